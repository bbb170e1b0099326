"""The lines of docs/other-trainers.md for programs that are not there when the tests run."""

import re
import shlex

import pytest
import yaml
from transformers import TrainingArguments

from emo_hf.hf.optim import class_and_kwargs
from tests import ROOT
from tests.clients.meter import run

PAGE = (ROOT / "docs/other-trainers.md").read_text(encoding="utf-8")


def block(heading, language):
    """The first code block of that language below `heading`."""
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)[1]
    return re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1]


def test_the_line_for_sd_scripts_trains():
    command = shlex.split(block("kohya's sd-scripts", "bash").replace("\\\n", ""))
    notes = run("adapter", *command[3:])
    assert command[:3] == ["accelerate", "launch", "sdxl_train_network.py"]
    assert notes.heard == pytest.approx(notes.objectives, abs=1e-6)
    assert [log["lr/unet"] / log["lr/textencoder"] for log, _ in notes.logs] == pytest.approx([2.0] * 8)


@pytest.mark.parametrize("heading", ["LLaMA-Factory", "axolotl"])
def test_the_yaml_gives_the_optimizer_that_it_names(heading, tmp_path):
    options = yaml.safe_load(block(heading, "yaml"))
    names = {"optimizer": "optim", "lr_scheduler": "lr_scheduler_type"}  # axolotl's, and what it makes of them
    options = {names.get(name, name): value for name, value in options.items()}
    assert options.pop("plugins", []) == (["emo_hf.integrations.axolotl.EmoPlugin"] if heading == "axolotl" else [])
    args = options.pop("optim_args", {})
    options["optim_args"] = ",".join(f"{name}={value}" for name, value in args.items()) or None
    cls, chosen = class_and_kwargs(TrainingArguments(str(tmp_path), use_cpu=True, **options))
    assert cls.__name__ == "EmoSens"
    assert chosen == {"version": "3.9", "lr": 1.0, **args}
