"""The plugin for axolotl, under a stand-in for its interface: axolotl itself needs more than a test machine has.

The stand-in has what axolotl 0.19.0 does with a plugin: it imports the class by name, makes one without arguments, and
calls ``register(cfg)`` before it reads the configuration, ``post_trainer_create(cfg, trainer)`` before the training.
"""

import importlib
import os
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from transformers import Trainer, TrainingArguments

from emo_hf.hf import registration
from tests.hf.tiny_gpt2 import make_data, make_model

NAME = "emo_hf.integrations.axolotl.EmoPlugin"
STAND_IN = """
class BasePlugin:
    def __init__(self):
        pass

    def register(self, cfg):
        pass

    def post_trainer_create(self, cfg, trainer):
        pass
"""


@pytest.fixture
def load_plugin(monkeypatch):
    for name in ("axolotl", "axolotl.integrations", "axolotl.integrations.base"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    exec(STAND_IN, vars(sys.modules["axolotl.integrations.base"]))

    def load(name):
        module, _, cls = name.rpartition(".")
        monkeypatch.delitem(sys.modules, module, raising=False)
        return getattr(importlib.import_module(module), cls)()

    yield load
    sys.modules.pop("emo_hf.integrations.axolotl", None)


class OwnOptimizer(Trainer):
    """Makes its optimizer without ``Trainer.create_optimizer``, as axolotl's does for embeddings of another rate."""

    def create_optimizer(self, model=None):
        cls, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        named = [(name, param) for name, param in self.model.named_parameters() if param.requires_grad]
        embeddings = [param for name, param in named if "wte" in name]
        others = [param for name, param in named if "wte" not in name]
        groups = [{"params": others, "lr": options["lr"]}, {"params": embeddings, "lr": options["lr"] * 0.1}]
        self.optimizer = cls(groups, **options)
        return self.optimizer


@pytest.mark.parametrize("patched", [True, False])
@pytest.mark.parametrize("cls", [Trainer, OwnOptimizer])
def test_the_plugin_feeds_and_records(cls, patched, load_plugin, options, check):
    if not patched:
        registration.remove_patches()
    try:
        plugin = load_plugin(NAME)
        plugin.register({"plugins": [NAME], "optimizer": "emosens"})
        trainer = cls(make_model(), TrainingArguments(**options), train_dataset=make_data())
        plugin.post_trainer_create({}, trainer)
        check(trainer)
    finally:
        registration.install_patches()


def test_a_trainer_with_another_optimizer_is_left_alone(load_plugin, options):
    args = TrainingArguments(**{**options, "optim": "adamw_torch", "max_steps": 1})
    trainer = Trainer(make_model(), args, train_dataset=make_data())
    callbacks = [*trainer.callback_handler.callbacks]
    load_plugin(NAME).post_trainer_create({}, trainer)
    trainer.train()
    assert trainer.callback_handler.callbacks == callbacks
    assert isinstance(trainer.optimizer.optimizer, torch.optim.AdamW)


@pytest.mark.slow
def test_importing_the_plugin_makes_the_names_known_in_a_process_that_does_not_know_them(tmp_path):
    folder = tmp_path / "axolotl" / "integrations"
    folder.mkdir(parents=True)
    (tmp_path / "axolotl" / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "base.py").write_text(STAND_IN)
    code = f"""
from transformers.training_args import OptimizerNames
assert "emosens" not in [each.value for each in OptimizerNames]
import importlib
module, _, cls = {NAME!r}.rpartition(".")
getattr(importlib.import_module(module), cls)().register({{}})
assert OptimizerNames("emosens").value == "emosens"
"""
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env={**os.environ, "PYTHONPATH": path})
