"""`find_lr` runs the ramp of EmoFree for any Trainer, and leaves it as it was."""

import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainerCallback

import emo_hf
from emo_hf import free
from emo_hf.dashboards import read_signals
from emo_hf.errors import OptionError, RampError
from emo_hf.hf import probing
from emo_hf.hf.feed import find_optimizer

STEPS = 40


@pytest.fixture
def make(make_trainer):
    def make(kind=Trainer, **options):
        return make_trainer(kind, **{"optim": "adamw_torch", "learning_rate": 1e-3, "max_steps": STEPS, **options})

    return make


def seed(number):
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def numbers():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_it_finds_what_emofree_finds_in_a_training(make):
    found = emo_hf.find_lr(make(learning_rate=1e-5, lr_scheduler_type="linear", warmup_steps=3))
    trainer = make(optim="emofree", learning_rate=1.0)
    trainer.train()
    assert found.found == find_optimizer(trainer.optimizer).found
    assert found.lr == found.found.size
    assert str(found) == str(found.found)


@pytest.mark.parametrize("kind", [Trainer, emo_hf.EmoTrainer])
@pytest.mark.parametrize("optim", ["adamw_torch", "emosens"])
def test_a_training_afterwards_is_the_same_as_without(make, kind, optim):
    weights, logs = [], []
    for finds in (False, True):
        options = {} if optim == "adamw_torch" else {"optim": optim, "learning_rate": 5e-5}
        trainer = make(kind, gradient_accumulation_steps=2, **options)
        seed(1)
        if finds:
            before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
            args, attributes = trainer.args.to_dict(), {*vars(trainer)}
            emo_hf.find_lr(trainer)
            assert all(torch.equal(before[name], tensor) for name, tensor in trainer.model.state_dict().items())
            assert trainer.args.to_dict() == args
            assert {*vars(trainer)} == attributes
            assert trainer.optimizer is None
            assert trainer.state.global_step == 0
        trainer.train()
        weights.append([param.detach().clone() for param in trainer.model.parameters()])
        logs.append([log["loss"] for log in trainer.state.log_history if "loss" in log])
    assert logs[0] == logs[1]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_the_random_generators_go_on_where_they_were(make):
    drawn = []
    for finds in (False, True):
        trainer = make()
        seed(2)
        if finds:
            emo_hf.find_lr(trainer)
        drawn.append(numbers())
    assert drawn[0] == drawn[1]


class Gathering(Trainer):
    """Gathers metrics in itself, builds an optimizer of its own, and calls back."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.metrics = {"train": defaultdict(list)}
        self.called = 0

    def compute_loss(self, *args, **kwargs):
        self.metrics["train"]["seen"].append(1)
        return super().compute_loss(*args, **kwargs)

    def create_optimizer(self, *args, **kwargs):
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        return self.optimizer


class Counting(TrainerCallback):
    calls = 0

    def on_step_end(self, *args, **kwargs):
        Counting.calls += 1


def test_a_trainer_with_ways_of_its_own_is_left_alone(make):
    trainer = make(Gathering)
    trainer.add_callback(Counting())
    emo_hf.attach(trainer)  # binds methods to it
    emo_hf.find_lr(trainer)
    assert trainer.metrics == {"train": {}}
    assert Counting.calls == 0
    assert not hasattr(trainer.model, "_original_forward")


def test_what_waits_for_the_first_micro_batch_of_a_training_goes_on_waiting(make):
    trainer = make(optim="emosens", gradient_accumulation_steps=2)
    trainer.create_optimizer()
    waiting = vars(trainer)["compute_loss"]
    emo_hf.find_lr(trainer)
    assert vars(trainer)["compute_loss"] is waiting


def test_after_a_training_it_starts_from_the_trained_model(make):
    trainer = make(max_steps=3, bf16=True)
    trainer.train()
    trainer.args.max_steps = STEPS
    optimizer = trainer.optimizer
    found = emo_hf.find_lr(trainer)
    assert found.lr > 0
    assert trainer.optimizer is optimizer
    assert trainer.state.global_step == 3


def test_what_is_kept_is_a_record_and_its_picture(make, tmp_path):
    trainer = make(save_strategy="steps", save_steps=1, eval_strategy="no", logging_steps=1)
    found = emo_hf.find_lr(trainer, tmp_path / "ramp")
    assert {path.name for path in (tmp_path / "ramp").iterdir()} == {
        "emo_run.json",
        "emo_signals.jsonl",
        "ramp.svg",
        "trainer_state.json",
    }
    assert json.loads((tmp_path / "ramp/emo_run.json").read_text())["emo_found_lr"] == found.lr
    assert len(read_signals(tmp_path / "ramp/emo_signals.jsonl")) == found.found.steps
    assert f"found {found.lr:.2g}" in found._repr_svg_()
    found.draw(tmp_path / "mine.svg")
    assert (tmp_path / "mine.svg").read_text() == found._repr_svg_() == (tmp_path / "ramp/ramp.svg").read_text()
    assert not list(Path(trainer.args.output_dir).iterdir())  # nothing in the Trainer's own folder


def test_a_training_that_is_too_short_for_a_ramp_is_an_error(make):
    with pytest.raises(
        RampError, match=r"did not end within the 4 steps of this training: agreement .*20 steps or more"
    ):
        emo_hf.find_lr(make(max_steps=4))


def test_a_loss_without_gradients_is_an_error_soon(make):
    class Still(Trainer):
        def compute_loss(self, *args, **kwargs):
            return 0 * super().compute_loss(*args, **kwargs)

    with pytest.raises(RampError, match=r"no gradient, or a loss of 0, in 10 steps"):
        emo_hf.find_lr(make(Still, max_steps=1000))


def test_what_it_cannot_copy_is_refused(make, monkeypatch):
    trainer = make()
    monkeypatch.setattr(probing, "is_policy_gradient", lambda args: True)
    with pytest.raises(OptionError, match="measures no progress"):
        emo_hf.find_lr(trainer)
    trainer.is_fsdp_enabled = True
    with pytest.raises(OptionError, match="every process to hold the whole model"):
        emo_hf.find_lr(trainer)


def test_the_fewest_steps_are_those_into_which_a_ramp_fits():
    longest = [free.FREE.plan(steps, None).longest_ramp for steps in range(probing.FEWEST, 10_000)]
    assert all(ramp <= steps for steps, ramp in enumerate(longest, start=probing.FEWEST))
