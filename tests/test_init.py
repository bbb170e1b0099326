"""The door of the package: what an import loads, and the names that load the rest."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import emo_hf
import emo_hf.hf
from emo_hf import lazy

PACKAGE = Path(emo_hf.__file__).parent
HEAVY = (
    "accelerate",
    "datasets",
    "matplotlib",
    "pandas",
    "pydantic",
    "rich",
    "scipy",
    "transformers",
    "wandb",
    "yaml",
)


def loaded(code: str) -> set[str]:
    """Returns the top-level modules that a new Python has loaded after `code`."""
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return set(result.stdout.splitlines()[-1].split())


def test_a_class_loads_torch_and_nothing_of_hugging_face():
    found = loaded("from emo_hf import EmoSens, EmoPulse, Signals, EmoError")
    assert "torch" in found
    assert not found & {*HEAVY}


def test_the_version_and_the_errors_load_nothing():
    assert not loaded("import emo_hf\nemo_hf.__version__, emo_hf.EmoError, dir(emo_hf)") & {*HEAVY, "torch", "numpy"}


@pytest.mark.parametrize("path", ["__init__.py", "hf/__init__.py"])
def test_type_checkers_see_the_names_where_they_are(path):
    tree = ast.parse((PACKAGE / path).read_text())
    branch = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(branch.test) == "TYPE_CHECKING"
    seen = {node.module: [alias.name for alias in node.names] for node in branch.body}
    ((homes,),) = [node.value.args[1:] for node in branch.orelse]
    given = ast.literal_eval(homes)
    if path == "__init__.py":
        seen["emo_hf.registry"] = seen.pop("emo_hf")
    assert {home: {*names} for home, names in seen.items()} == {home: {*names} for home, names in given.items()}


@pytest.mark.parametrize("package", [emo_hf, emo_hf.hf], ids=lambda package: package.__name__)
def test_every_name_is_listed_and_found(package):
    assert {*package.__all__} <= {*dir(package)}
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in vars(package)  # found once


def test_registry_is_there_without_an_import_of_its_own():
    assert loaded("import emo_hf\nemo_hf.registry.find('emosens')") >= {"emo_hf", "torch"}


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'emo_hf' has no attribute 'EmoSense'"):
        emo_hf.EmoSense  # noqa: B018
    with pytest.raises(ImportError, match="EmoSense"):
        exec("from emo_hf import EmoSense")


def test_a_name_is_looked_up_where_it_lives(monkeypatch):
    package = type(sys)("package")
    monkeypatch.setitem(sys.modules, "package", package)
    package.__getattr__, package.__dir__ = lazy.names("package", {"math": ["tau"], "json": ["loads"]})
    assert dir(package) == sorted([*vars(package), "loads", "tau"])
    assert package.tau == 6.283185307179586
    assert vars(package)["tau"] == package.tau
    assert not hasattr(package, "pi")


def test_type_checkers_are_told_that_there_are_types():
    assert (PACKAGE / "py.typed").read_text() == ""
