"""Trainings that report to W&B: whose run it is, the user's own rows, the settings on record, the best losses."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Trainer, TrainerCallback

from emo_hf.hf import EmotionCallback, EmoTrainer, registration
from tests.dashboards.conftest import records_of
from tests.hf.tiny_gpt2 import make_data

wandb = pytest.importorskip("wandb")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def session(own_home):
    """The settings of a session are read once, here from the test's environment."""
    wandb.teardown()
    yield
    wandb.finish()
    wandb.teardown()


def history() -> list[dict[str, Any]]:
    """Ends the open run and returns its rows."""
    folder = Path(wandb.run.settings.sync_dir)
    wandb.finish()
    wandb.teardown()
    return [record["history"]["item"] for record in records_of(folder) if record["type"] == "history"]


class Mine(TrainerCallback):
    """Logs in the hooks that it is told, at the step or without one."""

    def __init__(self, hooks: tuple[str, ...], at_step: bool = True) -> None:
        self.hooks, self.at_step, self.logged = hooks, at_step, 0

    def put(self, hook: str, state: Any) -> None:
        if hook in self.hooks:
            self.logged += 1
            options = {"step": state.global_step} if self.at_step else {}
            wandb.log({f"mine/{hook}": state.global_step}, **options)

    def on_step_begin(self, args, state, control, **kwargs):
        self.put("step_begin", state)

    def on_step_end(self, args, state, control, **kwargs):
        self.put("step_end", state)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.put("log", state)

    def on_evaluate(self, args, state, control, **kwargs):
        self.put("evaluate", state)

    def on_train_end(self, args, state, control, **kwargs):
        self.put("train_end", state)


EVERYWHERE = ("step_begin", "step_end", "log", "evaluate", "train_end")


@pytest.mark.parametrize("logging", [1, 5])
@pytest.mark.parametrize("hooks", [EVERYWHERE, ("log", "train_end")])
@pytest.mark.parametrize("way", ["wrap", "callback first", "callback last"])
def test_rows_that_the_user_logs_at_a_step_are_kept(way, hooks, logging, make_trainer):
    mine = Mine(hooks)
    callbacks = {
        "wrap": [mine],
        "callback first": [EmotionCallback(), mine],
        "callback last": [mine, EmotionCallback()],
    }
    options = {"report_to": "wandb", "max_steps": 10, "logging_steps": logging}
    options |= {"eval_strategy": "steps", "eval_steps": 5}
    trainer = make_trainer(trainer={"callbacks": callbacks[way], "eval_dataset": make_data(2)}, **options)
    trainer.train()
    rows = history()
    found = [(key, row["_step"], row[key]) for row in rows for key in row if key.startswith("mine/")]
    assert len(found) == mine.logged
    assert all(step == value for _, step, value in found)
    assert [row["train/global_step"] for row in rows if "emo/lr" in row] == list(range(1, 11))
    assert [row["train/global_step"] for row in rows if "train/loss" in row] == list(range(logging, 11, logging))
    assert [row["train/global_step"] for row in rows if "eval/loss" in row] == [5, 10]


def test_rows_of_an_unconnected_callback_leave_the_users(make_trainer):
    registration.remove_patches()
    mine = Mine(("log",))
    trainer = make_trainer(
        trainer={"callbacks": [mine, EmotionCallback()]}, report_to="wandb", max_steps=10, logging_steps=5
    )
    trainer.train()
    rows = history()
    assert [row["mine/log"] for row in rows if "mine/log" in row] == [5, 10]
    assert [row["train/global_step"] for row in rows if "emo/lr" in row] == list(range(1, 11))


def test_rows_without_a_step_are_kept_as_well(make_trainer):
    trainer = make_trainer(
        trainer={"callbacks": [Mine(("step_end",), at_step=False)]}, report_to="wandb", max_steps=10, logging_steps=5
    )
    trainer.train()
    rows = history()
    assert [row["mine/step_end"] for row in rows if "mine/step_end" in row] == list(range(1, 11))
    assert [row["train/global_step"] for row in rows if "emo/lr" in row] == list(range(1, 11))


def test_rows_of_a_resumed_training(make_trainer, tmp_path):
    options = {"report_to": "wandb", "logging_steps": 2, "save_strategy": "steps", "save_steps": 4}
    make_trainer(**options, max_steps=4).train()
    history()
    mine = Mine(EVERYWHERE)
    make_trainer(trainer={"callbacks": [mine]}, **options, max_steps=8).train(resume_from_checkpoint=True)
    rows = history()
    assert [row["train/global_step"] for row in rows if "emo/lr" in row] == [5, 6, 7, 8]
    assert sum(key.startswith("mine/") for row in rows for key in row) == mine.logged


def online(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Plays that there is a key and a network; returns the arguments of ``wandb.init`` as they come."""
    opened: list[dict[str, Any]] = []
    start = wandb.init

    def init(*args: Any, settings: Any = None, **options: Any) -> Any:
        opened.append(options)
        return start(*args, **options, mode="offline")

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(wandb, "login", lambda **options: True)
    monkeypatch.setattr(wandb, "init", init)
    return opened


@pytest.mark.parametrize("way", ["wrap", "mixin", "callback", "unconnected"])
def test_no_run_is_opened_before_the_training(way, make_trainer, monkeypatch):
    opened = online(monkeypatch)
    if way == "unconnected":
        registration.remove_patches()
    callbacks = [EmotionCallback()] if way in ("callback", "unconnected") else []
    kind = EmoTrainer if way == "mixin" else Trainer
    trainer = make_trainer(kind, {"callbacks": callbacks}, report_to="wandb", max_steps=1, run_name="of the arguments")
    assert not opened
    run = wandb.init(project="mine", name="my name", group="my group", config={"x": 1})
    trainer.train()
    assert len(opened) == 1
    assert wandb.run is run
    assert (run.project, run.name, run.group, run.config["x"]) == ("mine", "my name", "my group", 1)
    assert run.config["emo_optimizer"] == "emosens"


@pytest.mark.parametrize("name", [None, "of the arguments"])
def test_the_run_has_the_users_names(name, make_trainer, monkeypatch):
    opened = online(monkeypatch)
    trainer = make_trainer(trainer={"callbacks": [EmotionCallback()]}, report_to="wandb", max_steps=1, run_name=name)
    for variable in ("PROJECT", "ENTITY", "RUN_GROUP", "NAME"):
        monkeypatch.setenv(f"WANDB_{variable}", f"my {variable}".replace(" ", "-").lower())
    trainer.train()
    run = wandb.run
    assert len(opened) == 1
    assert (run.project, run.entity, run.group) == ("my-project", "my-entity", "my-run_group")
    assert run.name == (name or "my-name")


def test_logging_in_between_counts(make_trainer, monkeypatch):
    trainer = make_trainer(trainer={"callbacks": [EmotionCallback()]}, report_to="wandb", max_steps=1)
    opened = online(monkeypatch)
    trainer.train()
    assert len(opened) == 1  # and not offline because there was no key at first


# -- what is on record ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected", "corrected"),
    [
        (
            {},
            {
                "emo_lr": 1.0,
                "emo_betas": [0.9, 0.995],
                "emo_pulse_floor": 1e-8,
                "emo_pulse_base": 1e-4,
                "emo_pulse_ceiling": 3e-3,
            },
            {"learning_rate": 1.0, "adam_beta2": 0.995},
        ),
        (
            {"learning_rate": 0.5, "optim_args": "stopcoef=1.5,branch=long", "adam_beta1": 0.8, "weight_decay": 0.1},
            {
                "emo_lr": 0.5,
                "emo_betas": [0.8, 0.995],
                "emo_stopcoef": 1.5,
                "emo_branch": "long",
                "emo_weight_decay": 0.1,
                "emo_weight_decay_of_groups": [0.1, 0.0],
                "emo_pulse_ceiling": 1.5e-3,
            },
            {"learning_rate": 0.5, "adam_beta1": 0.8},
        ),
        ({"lr_scheduler_type": "cosine", "warmup_steps": 1}, {"emo_lr": 1.0}, {"learning_rate": 1.0}),
        (
            {
                "learning_rate": np.float32(0.5),
                "adam_beta1": np.float64(0.75),
                "max_steps": np.int64(2),
                "save_steps": np.int64(2),
            },
            {"emo_lr": 0.5, "emo_betas": [0.75, 0.995], "total_steps": 2},
            {"learning_rate": 0.5, "max_steps": 2},
        ),
        (
            {"optim": "adamw_torch", "lr_scheduler_type": "emopulse", "learning_rate": 1e-3},
            {
                "emo_optimizer": "emopulse",
                "emo_drives": "AdamW",
                "emo_lr": 1e-3,
                "emo_betas": [0.9, 0.999],
                "emo_pulse_base": 1e-3,
            },
            {"learning_rate": 1e-3, "adam_beta2": 0.999},
        ),
    ],
)
def test_what_trained_is_on_record(options, expected, corrected, make_trainer, caplog):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2, **options}
    trainer = make_trainer(EmoTrainer, report_to="wandb", **options)
    before = {name: getattr(trainer.args, name) for name in ("learning_rate", "adam_beta1", "adam_beta2")}
    trainer.train()
    config, folder = dict(wandb.run.config), Path(trainer.args.output_dir)
    saved = json.loads((folder / "emo_run.json").read_text())
    assert expected.items() <= saved.items()
    of_checkpoint = json.loads((folder / "checkpoint-2" / "trainer_state.json").read_text())
    settings = of_checkpoint["stateful_callbacks"]["EmotionCallback"]["attributes"]["settings"]
    assert {name: value for name, value in expected.items() if name.startswith("emo_")}.items() <= settings.items()
    assert {**expected, **corrected}.items() <= {**config, "total_steps": 2}.items()
    assert before == {name: getattr(trainer.args, name) for name in before}
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_what_emofree_found_is_in_the_settings_and_the_summary(make_trainer):
    trainer = make_trainer(EmoTrainer, optim="emofree", report_to="wandb", max_steps=20)
    trainer.train()
    found = trainer.optimizer.optimizer.found
    assert wandb.run.config["emo_found_lr"] == found.size
    assert (wandb.run.summary["emo/found_lr"], wandb.run.summary["emo/found_after"]) == (found.size, found.steps)


# -- best losses ------------------------------------------------------------------------------------------------------


class Losses(Trainer):
    """What Trainer evaluates by itself has the losses that it is given, in turn; anything else has 0.1."""

    losses: list[float]
    loss = 0.1

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        loss, *rest = super().prediction_step(*args, **kwargs)
        return loss * 0 + self.loss, *rest

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        own = eval_dataset is None or kwargs.get("metric_key_prefix", "").startswith("eval_")
        if own and self.losses and not (eval_dataset is None and isinstance(self.eval_dataset, dict)):
            self.loss = self.losses.pop(0)
        elif not own:
            self.loss = 0.1
        return super().evaluate(eval_dataset, *args, **kwargs)


def best() -> dict[str, float]:
    return {key: value for key, value in dict(wandb.run.summary).items() if key.startswith("best/")}


def make_losses(make_trainer, losses: list[float], trainer: dict[str, Any] | None = None, **options: Any) -> Trainer:
    options = {"eval_strategy": "steps", "eval_steps": 1, "report_to": "wandb", **options}
    made = make_trainer(Losses, {"eval_dataset": make_data(2), **(trainer or {})}, max_steps=4, **options)
    made.losses = losses
    return made


def test_best_loss_is_the_least_finite_one_of_the_training(make_trainer):
    trainer = make_losses(make_trainer, [math.nan, 3.0, 2.0, math.inf])
    trainer.train()
    assert best() == {"best/eval_loss": 2.0}
    trainer.evaluate()
    trainer.evaluate(make_data(2), metric_key_prefix="test")
    assert best() == {"best/eval_loss": 2.0}


def test_the_loss_of_the_first_weights_counts_as_well(make_trainer):
    make_losses(make_trainer, [1.0, 3.0, 2.0, 4.0, 5.0], eval_on_start=True).train()
    assert best() == {"best/eval_loss": 1.0}


def test_other_data_do_not_count_while_it_trains(make_trainer):
    class Other(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            trainer.evaluate(make_data(2))
            trainer.evaluate(make_data(2), metric_key_prefix="test")

        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            if metrics.get("eval_loss", 0.1) > 0.11:  # of Trainer: the same step again
                trainer.evaluate(make_data(2))

    trainer = make_losses(make_trainer, [3.0, 2.0, 4.0, 5.0], {"callbacks": [Other()]})
    trainer.train()
    assert not trainer.losses
    assert best() == {"best/eval_loss": 2.0}


def test_each_of_several_sets_has_its_best_loss(make_trainer):
    sets = {"a": make_data(2), "b": make_data(2)}
    trainer = make_losses(make_trainer, [9.0, 8.0, 2.0, 3.0, 4.0, 1.0, math.nan, 6.0], {"eval_dataset": sets})
    trainer.train()
    assert best() == {"best/eval_a_loss": 2.0, "best/eval_b_loss": 1.0}


def test_the_best_loss_before_a_resume_counts(make_trainer):
    options = {"save_strategy": "steps", "save_steps": 2}
    trainer = make_losses(make_trainer, [1.0, 3.0, 2.0, 4.0], **options)
    trainer.train()
    trainer = make_losses(make_trainer, [3.0, 2.0], **options)
    trainer.train(resume_from_checkpoint=str(Path(trainer.args.output_dir) / "checkpoint-2"))
    assert not trainer.losses
    assert trainer.state.stateful_callbacks["EmotionCallback"]["attributes"]["best"] == {"eval_loss": 1.0}
