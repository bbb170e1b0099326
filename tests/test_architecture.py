"""Who may import whom, and what the package shows."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import emo_hf
import emo_hf.dashboards
from emo_hf import errors

PACKAGE = Path(emo_hf.__file__).parent
FORMULAS = {"emotion", "pulse", "mechanism", "updates", "shadow", "geometry", "moments", "quirks", "spec", "kernels"}
FORMULAS |= {"free", "loss", "measurement"}
CORE = {*FORMULAS, "saved_state", "optimizer", "versions", "families", "registry", "scheduler"}
# The rooms of the lab: each imports only from those before it.
ROOMS = ("recipe", "sources", "tasks", "run", "analysis", "figures", "report")
# Each part and the parts it may import; all may import EVERYWHERE.
ALLOWED = {
    "emotion": set(),
    "pulse": {"emotion"},
    "mechanism": {"pulse", "emotion"},
    "free": {"mechanism", "emotion"},
    "measurement": {"mechanism", "kernels"},
    "updates": set(),
    "kernels": {"updates"},
    "shadow": {"pulse", "emotion"},
    "geometry": set(),
    "moments": {"geometry"},
    "quirks": set(),
    "loss": set(),
    "spec": {"loss", "mechanism", "kernels", "updates", "shadow", "geometry", "emotion"},
    "saved_state": {"spec", "mechanism", "free", "kernels"},
    "optimizer": {
        "saved_state",
        "loss",
        "spec",
        "kernels",
        "mechanism",
        "free",
        "measurement",
        "updates",
        "geometry",
        "moments",
        "emotion",
    },
    "scheduler": {"loss", "spec", "saved_state", "optimizer", "mechanism", "pulse", "emotion"},
    "versions": FORMULAS,
    "families": {"versions", "optimizer", "kernels", "emotion", "spec", "loss"},
    "registry": {"versions", "families", "optimizer"},
    "integrations": {"hf", "scheduler"},
    "dashboards": {"run_folder", "reading"},
    "lazy": set(),
    "hf": {"lazy", "registry", "optimizer", "free", "spec", "scheduler", "mechanism", "emotion", "dashboards"},
    "launch": {"__init__", "startup"},
    "startup": {"__init__"},
    "lab": {"hf", "dashboards", "run_folder", "reading", "__init__", *CORE},
    "cli": {"lab", "hf", "registry", "dashboards", "run_folder", "__init__"},
    "__main__": {"cli", "__init__"},
    "__init__": {"lazy", "hf", "families", "registry", "optimizer", "scheduler"},
    "run_folder": {"extras", "reading"},
    "reading": {"errors"},
    "signals": set(),
    "errors": set(),
    "extras": set(),
}
EVERYWHERE = {"errors", "extras", "signals"}
VENDORS = {"wandb", "wandb_workspaces", "trackio", "tensorboard", "mlflow", "comet_ml"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it. ``from emo_hf import x`` counts as emo_hf.x if x is a part."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            of_package = node.module == "emo_hf"
            found |= {f"emo_hf.{alias.name}" for alias in node.names} if of_package else {node.module}
    return {"emo_hf.__init__" if is_name_of_package(name) else name for name in found}


def is_name_of_package(name: str) -> bool:
    return name == "emo_hf" or (name.startswith("emo_hf.") and name.split(".")[1] not in ALLOWED)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def of_top(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@every_file
def test_imports_point_one_way(path):
    own = {name.split(".")[1] for name in imports(path) if name.startswith("emo_hf.")}
    part = part_of(path)
    assert own - EVERYWHERE - {part} <= ALLOWED[part]


def test_every_part_has_a_rule_and_the_rules_have_no_cycle():
    assert {part_of(path) for path in FILES} == set(ALLOWED)
    order = []
    while len(order) < len(ALLOWED):
        free = [part for part, needs in ALLOWED.items() if part not in order and needs <= {*order, *EVERYWHERE}]
        assert free, f"a cycle among {set(ALLOWED) - set(order)}"
        order += free


@every_file
def test_who_touches_what_from_outside(path):
    part, top = part_of(path), of_top(path)
    if part in ("emotion", "pulse"):
        assert top <= {"math", "dataclasses", "collections", "typing", "emo_hf"}
    if part in CORE:
        own = {"triton"} if path.name in ("cuda.py", "triton_rules.py") else set()
        assert top <= {"torch", "emo_hf", *own, *sys.stdlib_module_names}
    if part != "dashboards":
        assert not top & VENDORS
    if path.name != "figures.py" and path.parent.name != "figures":
        assert "matplotlib" not in top


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE / "lab").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [path for path in FILES if part_of(path) == "lab"], ids=lambda path: str(path.name))
def test_the_rooms_of_the_lab_import_one_way(path):
    before = {*ROOMS[: ROOMS.index(room_of(path)) + 1]} if room_of(path) != "__init__" else set()
    assert {name.split(".")[2] for name in imports(path) if name.startswith("emo_hf.lab.")} <= before


@pytest.mark.parametrize("room", ["recipe", "run", "analysis", "report"])
def test_the_table_of_a_room_names_every_module(room):
    folder = PACKAGE / "lab" / room
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()), clean=False)
    named = [name for line in re.findall(r"^    ((?:\w+, )*\w+) ", text, re.M) for name in line.split(", ")]
    assert sorted(named) == sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def test_the_table_of_the_lab_names_every_room_in_order():
    text = ast.get_docstring(ast.parse((PACKAGE / "lab" / "__init__.py").read_text()), clean=False)
    assert tuple(re.findall(r"^    (\w+) ", text, re.M)) == ROOMS
    assert {path.name for path in (PACKAGE / "lab").iterdir() if path.name != "__pycache__"} == {*ROOMS, "__init__.py"}


def test_what_the_package_shows_is_sorted_and_there():
    for module in (emo_hf, emo_hf.hf, emo_hf.dashboards):
        assert sorted(module.__all__) == module.__all__
        assert all(hasattr(module, name) for name in module.__all__)


def test_every_error_is_an_emo_error_and_in_the_tree():
    found = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]
    assert len(found) > 5
    for cls in found:
        assert issubclass(cls, errors.EmoError)
        assert cls.__doc__
        if cls is not errors.EmoError:
            builtin = cls.__mro__[2].__name__
            assert f"{cls.__name__} ({builtin})" in errors.__doc__


def test_the_core_runs_without_transformers():
    """The core's modules, put into an empty package, build and step an optimizer without importing transformers."""
    code = f"""
import sys, types
package = types.ModuleType("emo_hf")
package.__path__ = [{str(PACKAGE)!r}]
sys.modules["emo_hf"] = package
import torch
from emo_hf import registry
p = torch.nn.Parameter(torch.ones(3))
p.grad = torch.ones(3)
registry.build("emosens", [p]).step(loss=1.0)
assert p.lt(1).all()
assert not {{"transformers", "wandb", "matplotlib", "datasets"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
