"""What a training leaves behind: logs, record, checkpoints; and what other optimizers never notice."""

import json
import logging
import math
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import Trainer, TrainerCallback
from transformers.integrations import integration_utils

from emo_hf import registry
from emo_hf.dashboards import Recorder, recorder, window
from emo_hf.hf import EmotionCallback, EmoTrainer, LossFeed, attach, registration
from emo_hf.hf import callback as hf_callback
from emo_hf.hf.feed import find_optimizer
from tests.hf.tiny_gpt2 import make_data


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def assert_equal(left, right):
    """Compares nested state bitwise; nan equals nan."""
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert type(left) is type(right)
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal(one, other)
    else:
        assert left == right or (left != left and right != right)


# -- the same numbers everywhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["wrap", "callback"])
@pytest.mark.parametrize("schedule", ["constant", "linear", "constant_with_warmup", "reduce_lr_on_plateau"])
def test_state_and_record_agree_on_every_step(schedule, way, make_trainer, read_signals):
    if way == "callback":
        registration.remove_patches()
    callbacks = [EmotionCallback()] if way == "callback" else []
    trainer = make_trainer(
        trainer={"callbacks": callbacks, "eval_dataset": [{"input_ids": torch.arange(8), "labels": torch.arange(8)}]},
        lr_scheduler_type=schedule,
        warmup_steps=2 if "warmup" in schedule else 0,
        max_steps=6,
        save_strategy="steps",
        save_steps=6,
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="loss",
    )
    trainer.train()
    state = json.loads((Path(trainer.args.output_dir) / "checkpoint-6" / "trainer_state.json").read_text())
    logs = [log for log in state["log_history"] if "loss" in log]
    rows = read_signals(trainer.args.output_dir)
    assert [row["step"] for row in rows] == [log["step"] for log in logs] == [1, 2, 3, 4, 5, 6]
    for key in ("emo/lr", "emo/pulse", "emo/scalar", "emo/loss", "emo/snr"):
        assert [row[key] for row in rows] == [log[key] for log in logs]
    if (schedule, way) != ("reduce_lr_on_plateau", "callback"):  # out of the callback's reach, as documented
        assert [log["learning_rate"] for log in logs] == [row["emo/lr"] for row in rows]
    evaluations = [log for log in state["log_history"] if "eval_loss" in log]
    assert len(evaluations) == 3
    assert not any("emo/lr" in log for log in evaluations)
    if schedule == "constant_with_warmup":
        assert rows[0]["emo/lr"] == 0.0
    else:
        assert all(row["emo/lr"] > 0 for row in rows)


@pytest.mark.parametrize("optim", ["emosens", "emonavi"])
def test_scheduler_state_holds_nothing_of_ours(optim, make_trainer):
    registration.remove_patches()
    trainer = make_trainer(
        trainer={"callbacks": [EmotionCallback()]}, optim=optim, max_steps=2, save_steps=1, save_strategy="steps"
    )
    trainer.train()
    saved = torch.load(Path(trainer.args.output_dir) / "checkpoint-1" / "scheduler.pt", weights_only=True)
    assert saved["_last_lr"] == [trainer.optimizer.param_groups[0]["scope"]] * 2


def without_clock(row):
    return {name: value for name, value in row.items() if name != "emo/step_seconds"}


# -- resume ----------------------------------------------------------------------------------------------------------


INEXACT = pytest.mark.skipif(
    Version(transformers.__version__).major < 5,
    reason="transformers 4.57 resumes inexactly, AdamW as well, in the middle of an epoch with accumulation",
)


@pytest.mark.parametrize("way", ["wrap", "callback"])
@pytest.mark.parametrize(
    "options",  # 12 batches an epoch: step 10 lies within one, but for the third case
    [
        {"lr_scheduler_type": "constant"},
        {"lr_scheduler_type": "linear"},
        {"lr_scheduler_type": "linear", "gradient_accumulation_steps": 6},
        pytest.param({"gradient_accumulation_steps": 4, "optim_args": "use_shadow=true"}, marks=INEXACT),
        pytest.param({"gradient_accumulation_steps": 5}, marks=INEXACT),  # groups of 5, 5, 2
        {"optim": "emocats", "max_grad_norm": 1.0},
        {"optim": "emoairy"},
    ],
    ids=lambda options: "-".join(f"{name}={value}" for name, value in options.items()),
)
def test_resume_is_bit_exact(options, way, make_trainer, read_signals, tmp_path):
    if way == "callback":
        registration.remove_patches()

    def make(name, *callbacks):
        ours = [EmotionCallback()] if way == "callback" else []
        parts = {"callbacks": [*callbacks, *ours], "train_dataset": make_data(24)}
        saving = {"output_dir": str(tmp_path / name), "max_steps": 20, "save_strategy": "steps", "save_steps": 10}
        return make_trainer(trainer=parts, **options, **saving)

    straight = make("straight")
    straight.train()
    make("halves", StopAt(13)).train()  # three steps past the checkpoint are thrown away
    assert len(read_signals(tmp_path / "halves")) == 13
    resumed = make("halves")
    resumed.train(resume_from_checkpoint=str(tmp_path / "halves" / "checkpoint-10"))

    assert_equal(weights(resumed), weights(straight))
    ends = [tmp_path / name / "checkpoint-20" for name in ("straight", "halves")]
    assert_equal(*(torch.load(end / "optimizer.pt", weights_only=True) for end in ends))
    assert_equal(*(torch.load(end / "scheduler.pt", weights_only=True) for end in ends))
    states = [torch.load(end / "optimizer.pt", weights_only=True) for end in ends]
    assert all(isinstance(group["emo"], tuple) for group in states[0]["param_groups"])
    rows, halves = (read_signals(tmp_path / name) for name in ("straight", "halves"))
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert [without_clock(row) for row in halves] == [without_clock(row) for row in rows]
    assert resumed.state.log_history[:-1] == straight.state.log_history[:-1]  # the last line has the run time


def test_window_of_steps_ends_at_a_checkpoint(make_trainer, read_signals, monkeypatch):
    monkeypatch.setattr(window, "ROWS", 4)  # 10 steps: 3 in a row
    options = {"max_steps": 10, "save_strategy": "steps", "save_steps": 5}
    trainer = make_trainer(**options)
    trainer.train()
    rows = read_signals(trainer.args.output_dir)
    assert [row["step"] for row in rows] == [3, 5, 8, 10]
    resumed = make_trainer(**options)
    resumed.train(resume_from_checkpoint=str(Path(trainer.args.output_dir) / "checkpoint-5"))
    assert [without_clock(row) for row in read_signals(trainer.args.output_dir)] == [
        without_clock(row) for row in rows
    ]


def callback_types(trainer):
    return [type(callback) for callback in trainer.callback_handler.callbacks]


# -- the four ways in ------------------------------------------------------------------------------------------------


def test_adamw_never_notices(make_trainer):
    def train(**kwargs):
        trainer = make_trainer(optim="adamw_torch", max_steps=5, max_grad_norm=1.0, **kwargs)
        trainer.train()
        return trainer

    registration.remove_patches()
    plain = train()
    registration.install_patches()
    for trainer in (train(), train(kind=EmoTrainer)):
        assert_equal(weights(trainer), weights(plain))
        assert trainer.state.log_history[:-1] == plain.state.log_history[:-1]  # the last line has the run time
        assert vars(trainer).keys() == vars(plain).keys()
        assert "backward" not in vars(trainer.accelerator)
        assert [type(c) for c in trainer.callback_handler.callbacks] == [
            type(c) for c in plain.callback_handler.callbacks
        ]
        assert not (Path(trainer.args.output_dir) / "emo_signals.jsonl").exists()


def test_attach_to_a_trainer_of_another_optimizer_does_nothing(make_trainer):
    trainer = make_trainer(optim="adamw_torch", max_steps=1)
    attach(trainer)
    trainer.train()
    assert "backward" not in vars(trainer.accelerator)


def test_callback_says_that_another_optimizer_has_no_signals(make_trainer, caplog):
    make_trainer(optim="adamw_torch", max_steps=1, trainer={"callbacks": [EmotionCallback()]}).train()
    assert "nothing to record" in caplog.text


def test_wrap_is_idempotent_and_reversible():
    registration.remove_patches()
    original = Trainer.create_optimizer
    registration.install_patches()
    wrapped = Trainer.create_optimizer
    registration.install_patches()
    assert Trainer.create_optimizer is wrapped is not original
    registration.remove_patches()
    registration.remove_patches()
    assert Trainer.create_optimizer is original


def test_wrap_of_another_package_is_left_alone(monkeypatch):
    def theirs(self):
        return None

    monkeypatch.setattr(Trainer, "create_optimizer", theirs)
    registration.remove_patches()
    registration.install_patches()
    assert Trainer.create_optimizer is theirs


def test_attach_reaches_a_trainer_that_makes_its_own_optimizer(make_trainer, read_signals):
    class Own(Trainer):
        def create_optimizer(self):
            self.optimizer = registry.build("emosens", self.model.parameters())
            return self.optimizer

    trainer = make_trainer(Own, optim="adamw_torch", max_steps=2)
    attach(trainer)
    trainer.train()
    assert len(read_signals(trainer.args.output_dir)) == 2


def test_optimizer_passed_to_a_plain_trainer_is_fed(make_trainer, read_signals):
    trainer = make_trainer(optim="adamw_torch", max_steps=2)
    trainer.optimizer = registry.build("emosens", trainer.model.parameters())
    trainer.train()
    assert len(read_signals(trainer.args.output_dir)) == 2


def test_new_optimizer_of_the_same_trainer_takes_over_the_feed(make_trainer):
    trainer = make_trainer(max_steps=2)
    trainer.train()
    first = find_optimizer(trainer.optimizer)
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.train()
    assert LossFeed.installed_on(first) is None
    assert LossFeed.installed_on(find_optimizer(trainer.optimizer)) is not None
    assert first.signals() is not None
    assert find_optimizer(trainer.optimizer).signals() is not None


# -- a dashboard that fails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fail", ["__init__", "write", "close"])
def test_failing_record_is_logged_and_training_goes_on(fail, make_trainer, monkeypatch, caplog):
    calls = []

    class Failing(Recorder):
        pass

    def broken(self, *args, **kwargs):
        if fail == "close":
            Recorder.close(self)
        calls.append(fail)
        raise OSError("no space left on device")

    setattr(Failing, fail, broken)
    monkeypatch.setattr(hf_callback, "Recorder", Failing)
    trainer = make_trainer(max_steps=3)
    with caplog.at_level(logging.ERROR):
        trainer.train()
    assert trainer.state.global_step == 3
    assert calls == [fail]
    assert "no space left on device" in caplog.text
    assert "training goes on" in caplog.text
    assert all(math.isfinite(log["learning_rate"]) for log in trainer.state.log_history if "loss" in log)


@pytest.mark.parametrize("way", ["wrap", "mixin", "attach", "callback"])
def test_wandb_is_made_safe_before_its_callback_opens_a_run(way, make_trainer, monkeypatch):
    wandb, order = pytest.importorskip("wandb"), []

    class Reporter(integration_utils.WandbCallback):
        def on_train_begin(self, *args, **kwargs):
            self._wandb.init(project="mine")

        def on_log(self, *args, **kwargs):
            pass

    for module, name in ((hf_callback.wandb, "prepare"), (hf_callback.wandb, "open_run"), (wandb, "init")):
        monkeypatch.setattr(module, name, lambda name=name, **_: order.append(name))
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", Reporter)
    monkeypatch.delitem(recorder.REMOTE, "wandb")
    if way != "wrap":
        registration.remove_patches()
    callbacks = [EmotionCallback()] if way == "callback" else []
    kind = EmoTrainer if way == "mixin" else Trainer
    trainer = make_trainer(kind, {"callbacks": callbacks}, max_steps=1, report_to=["wandb"])
    if way == "attach":
        attach(trainer)
    assert order == (["prepare"] if way == "callback" else [])  # nothing else comes before `Reporter` there
    trainer.train()
    assert order == (["prepare", "init"] if way == "callback" else ["open_run"])
