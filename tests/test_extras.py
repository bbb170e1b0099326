"""torch, transformers and accelerate are enough to train and record; what else is imported is declared."""

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import emo_hf
from emo_hf.__main__ import main
from emo_hf.errors import MissingExtraError
from emo_hf.extras import EXTRAS, needing

tomllib = pytest.importorskip("tomllib")
PACKAGE = Path(emo_hf.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
THREE = {"torch", "transformers", "accelerate"}
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "markdown_it": "markdown-it-py"}  # not named like their modules
REPORTERS = {"trackio", "mlflow", "comet_ml"}  # imported where Trainer's own callback has opened a run of theirs
HOSTS = {"axolotl"}  # what imports its plugin in emo_hf/integrations is there
OF_RECIPES = ("cli", "lab", "dashboards/watch.py", "dashboards/report/figures.py")


def declared(requirements):
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def distribution(module):
    return canonicalize_name(DISTRIBUTIONS.get(module, module))


def with_dependencies(names):
    """The distributions that come with `names`, themselves included."""
    found, todo = set(), [*names]
    while todo:
        if (name := canonicalize_name(todo.pop())) in found:
            continue
        found.add(name)
        try:
            needs = [Requirement(text) for text in requires(name) or []]
        except ModuleNotFoundError:  # of another platform
            continue
        todo += [each.name for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def imports(path):
    """Third-party module -> whether importing the file needs it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(node) for each in tree.body if is_type_checking(each) for node in ast.walk(each)}
    lazy = {id(node) for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) for node in ast.walk(each)}
    found = {}
    for node in (node for node in ast.walk(tree) if id(node) not in skipped):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in {name.partition(".")[0] for name in names} - {"emo_hf", *sys.stdlib_module_names}:
            found[name] = found.get(name, False) or id(node) not in lazy
    return found


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_three_packages_are_required():
    assert declared(PROJECT["dependencies"]) == THREE


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_imported_is_declared(path):
    optional = PROJECT["optional-dependencies"]
    recipes = declared(optional["recipes"])
    needed = THREE | ({"huggingface-hub", "numpy"} & with_dependencies(["transformers"]))
    needed |= {"jinja2", "markupsafe"} & with_dependencies(["torch"])
    if str(path.relative_to(PACKAGE)).startswith(OF_RECIPES):
        needed |= recipes
    if path.name in ("cuda.py", "triton_rules.py"):
        needed |= declared(optional["cuda"])
    if path.parent.name == "integrations":
        needed |= declared(optional["integrations"]) | ({path.stem} & HOSTS)
    anywhere = needed | recipes | declared(optional["wandb"]) | declared(optional["integrations"]) | REPORTERS
    for module, at_once in imports(path).items():
        assert (module if module in REPORTERS else distribution(module)) in (needed if at_once else anywhere)


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_extra_that_a_message_names_brings_the_package(extra):
    brought = declared(PROJECT["optional-dependencies"][extra])
    named = {distribution(module) for module in EXTRAS[extra]}
    assert named == brought if extra != "integrations" else named <= brought


def test_a_missing_package_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    message = 'The panel needs wandb_workspaces: pip install "emo-hf[wandb]"'
    with pytest.raises(MissingExtraError, match=re.escape(message)), needing("The panel"):
        import wandb_workspaces.workspaces  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="emo_hf_gone"), needing("The panel"):
        import emo_hf_gone  # noqa: F401


def test_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setitem(sys.modules, "rich", None)
    for name in [name for name in sys.modules if name.startswith("emo_hf.cli")]:
        monkeypatch.delitem(sys.modules, name)
    for arguments, command in ((["run", "quickstart"], "emo-hf run"), ([], "emo-hf")):
        assert main(arguments) == 2
        assert capsys.readouterr() == ("", f'{command} needs rich: pip install "emo-hf[recipes]"\n')


TRAINING = """
import json, sys
from pathlib import Path
for name in sys.argv[1:]:
    sys.modules[name] = None
import torch
import emo_hf
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

config = GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16, n_positions=8, bos_token_id=0, eos_token_id=0)
rows = [{"input_ids": [(i * k) % 16 for i in range(8)], "labels": [(i * k) % 16 for i in range(8)]} for k in range(8)]
args = TrainingArguments("out", optim="emosens", max_steps=3, report_to="none", use_cpu=True, save_strategy="no",
                         per_device_train_batch_size=2, logging_steps=1, dataloader_pin_memory=False)
trainer = Trainer(GPT2LMHeadModel(config), args, train_dataset=rows)
trainer.train()
assert type(trainer.optimizer.optimizer).__name__ == "EmoSens"
assert [json.loads(line)["step"] for line in Path("out/emo_signals.jsonl").read_text().splitlines()] == [1, 2, 3]

from emo_hf.dashboards import report
report.write_html(report.read(["out"]), Path("report.html"))
assert Path("report.html").stat().st_size > 10_000
try:
    report.write_png(report.read(["out"]), Path("report.png"))
except emo_hf.EmoError as error:
    assert str(error) == 'A picture needs matplotlib: pip install "emo-hf[recipes]"', error
else:
    raise SystemExit("a picture without matplotlib")
from emo_hf import EmoTrainer, EmoTrainingArguments, EmotionCallback, attach
"""


def test_a_plain_trainer_trains_and_records_with_the_three_alone(tmp_path):
    come_along = with_dependencies(THREE)
    extras = [module for modules in EXTRAS.values() for module in modules]
    blocked = [module for module in (*extras, *REPORTERS) if distribution(module) not in come_along]
    assert {"datasets", "matplotlib", "pandas", "scipy", "pyarrow", "wandb"} <= {*blocked}
    (tmp_path / "train.py").write_text(TRAINING)
    result = subprocess.run(
        [sys.executable, "train.py", *blocked],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr


def test_the_command_is_the_one_that_was_tested():
    assert PROJECT["scripts"] == {"emo-hf": "emo_hf.__main__:main"}


def test_the_commands_of_the_readme_install_what_they_need():
    readme = (PACKAGE.parent / "README.md").read_text()
    assert re.search(r'pip install -q -c constraints\.txt "\.\[recipes\]" && \.venv/bin/emo-hf run', readme)
    assert re.search(r'-e "\.\[test,integrations,baselines\]" && \.venv/bin/python -m pytest', readme)
    assert "emo-hf[recipes,wandb]" in PROJECT["optional-dependencies"]["test"]
