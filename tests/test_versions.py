"""The versions that are promised, tested and written down are the same."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT

TABLE = re.compile(r"^\| ([\w-]+) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)


def pins(name):
    """Returns package -> version, of the newest Python where they differ."""
    lines = (ROOT / name).read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    chosen = [r for r in requirements if r.marker is None or r.marker.evaluate({"python_version": "3.13"})]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in chosen}


def lower_bounds():
    """Returns package -> version of what pyproject.toml requires at least, in any extra."""
    text = (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[0]
    return {canonicalize_name(name): bound for name, bound in re.findall(r'"([\w-]+)>=([\d.]+)"', text)}


def padded(version):
    return [int(part) for part in [*version.split("."), "0", "0"][:3]]


def test_oldest_versions_are_the_lower_bounds():
    oldest, bounds = pins("constraints-oldest.txt"), lower_bounds()
    for name in ("torch", "transformers", "accelerate", "datasets", "pydantic", "wandb", "rich"):
        assert name in oldest
    different = {name: (oldest[name], bounds[name]) for name in oldest.keys() & bounds.keys()}
    assert all(padded(pin) == padded(bound) for pin, bound in different.values()), different


@pytest.mark.parametrize("package", ["torch", "transformers", "accelerate", "datasets"])
def test_documented_versions_are_those_of_the_constraints(package):
    table = {name: versions for name, *versions in TABLE.findall((ROOT / "docs" / "versions.md").read_text())}
    assert table[package] == [pins("constraints-oldest.txt")[package], pins("constraints.txt")[package]]
