"""``trainer.hyperparameter_search``: each trial has an optimizer, an emotion and a loss of its own."""

import functools
import gc
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import Trainer, TrainerCallback

from emo_hf import EmotionCallback, EmoTrainer, EmoTrainingArguments, registry
from emo_hf.hf import registration
from emo_hf.hf.feed import find_optimizer
from emo_hf.scheduler import innermost
from tests.dashboards.conftest import records_of
from tests.hf.tiny_gpt2 import make_data, make_model

optuna = pytest.importorskip("optuna")


def make_measured_model(trial=None):
    """The tiny model whose loss is multiplied by its parameter `truth`, also in evaluations."""
    model = make_model()
    forward = model.forward

    @functools.wraps(forward)
    def measured(*args, **kwargs):
        output = forward(*args, **kwargs)
        output["loss"] = output["loss"] * model.truth
        return output

    model.forward = measured
    return model


class Trials(TrainerCallback):
    """Notes per trial what was differentiated, what was fed and what was logged."""

    def __init__(self):
        self.seen = []

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        trial = SimpleNamespace(lr=args.learning_rate, truth=[], fed=[], logged=[], ours=find_optimizer(optimizer))
        self.seen.append(trial)
        optimizer = innermost(optimizer)
        optimizer.register_step_pre_hook(lambda *_: trial.truth.append(model.truth.grad.item()))
        optimizer.register_step_post_hook(lambda *_: after_step(model, trial))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.seen[-1].logged.append(logs["learning_rate"])


def after_step(model, trial):
    model.truth.data.fill_(1.0)
    if trial.ours is not None:
        trial.fed.append(trial.ours.signals().loss)


class PruneSecond(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return trial.number == 1


@pytest.fixture
def search(make_args, monkeypatch):
    """Searches a grid of three in one of the ways in; the second trial is pruned after 2 of its 4 steps."""

    def run(way, grid, args=None):
        monkeypatch.setattr(gc, "collect", lambda *_: 0)  # most of the time otherwise
        if way != "wrap":
            registration.remove_patches()
        options = {"gradient_accumulation_steps": 2, "max_steps": 4, "eval_strategy": "steps", "eval_steps": 2}
        trials = Trials()
        trainer = (EmoTrainer if way == "mixin" else Trainer)(
            model_init=make_measured_model,
            args=args(**options) if args else make_args(**options),
            train_dataset=make_data(),
            eval_dataset=make_data(2),
            callbacks=[trials, *([EmotionCallback()] if way == "callback" else [])],
        )
        trainer.hyperparameter_search(
            backend="optuna",
            direction="minimize",
            n_trials=3,
            hp_space=lambda trial: {name: trial.suggest_categorical(name, values) for name, values in grid.items()},
            sampler=optuna.samplers.GridSampler(grid, seed=0),
            pruner=PruneSecond(),
        )
        assert [len(trial.truth) for trial in trials.seen] == [4, 2, 4]
        return trials.seen

    return run


def assert_own_emotion(trial, lr, **options):
    """Recomputes every step size of a trial from a fresh emotion and the losses that were differentiated."""
    assert trial.fed == trial.truth
    row = trial.ours.spec
    mechanism = row.mechanism.configure(**{name: row.options.get(name) for name in ("branch", "stopcoef")} | options)
    state, expected = mechanism.start(), []
    for loss in trial.truth:
        mechanism.advance(state, loss)
        expected.append(mechanism.rate(state, lr, lr).step)
    assert trial.logged == expected
    assert len(set(expected)) > 1 or not row.lr_is_multiplier  # what is damped is not in the first steps


@pytest.mark.parametrize("way", ["wrap", "callback"])
def test_search_over_the_multiplier(way, search):
    rates = [0.01, 0.1, 1.0]
    seen = search(way, {"learning_rate": rates})
    assert sorted(trial.lr for trial in seen) == rates
    assert len({id(trial.ours) for trial in seen}) == 3
    for trial in seen:
        assert {group["scope"] for group in trial.ours.param_groups} == {trial.lr}
        assert_own_emotion(trial, trial.lr)


def test_search_over_optimizers(search):
    seen = search("wrap", {"optim": ["emosens", "emonavi-3.1", "adamw_torch"]})
    for trial in (trial for trial in seen if trial.ours is not None):
        assert_own_emotion(trial, trial.ours.spec.options["lr"])  # the untouched 5e-5 stands for the row's own
    keys = {trial.ours.spec.key if trial.ours else "adamw_torch": trial for trial in seen}
    assert keys.keys() == {"emosens-3.9", "emonavi-3.1", "adamw_torch"}
    assert set(keys["adamw_torch"].logged) == {5e-5}


def test_search_over_emo_options(search, make_args):
    def args(**options):
        plain = make_args(**options)
        return EmoTrainingArguments(**{name: plain.to_dict()[name] for name in plain.to_dict() if name != "optim"})

    seen = search("mixin", {"emo_branch": ["rounding", "quieter", "long"]}, args)
    branches = [trial.ours.options["branch"] for trial in seen]
    assert sorted(branches) == ["long", "quieter", "rounding"]
    for trial, branch in zip(seen, branches, strict=True):
        assert_own_emotion(trial, registry.find("emosens").options["lr"], branch=branch)


@pytest.mark.slow
@pytest.mark.parametrize("callbacks", [[], [EmotionCallback]], ids=["wrap", "callback"])
@pytest.mark.parametrize("report_to", [[], ["wandb"]])
def test_each_trial_of_a_wandb_sweep_is_recorded_in_its_own_run(callbacks, report_to, make_args, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # the settings are read once per session, here from the test's environment
    runs, opened, grid, start = [], [], [{"learning_rate": 0.1}, {"learning_rate": 1.0}], wandb.init

    def init(*args, **kwargs):
        opened.append(kwargs)
        return start(*args, **kwargs)

    def agent(sweep_id, function, count):  # as the server would start the trials
        for config in grid:
            wandb.init(project="p", config=config, reinit="finish_previous")
            function()
            wandb.finish()

    class Note(TrainerCallback):
        def on_train_end(self, *args, **kwargs):
            runs.append((Path(wandb.run.settings.sync_dir), wandb.run.config["emo_lr"]))

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "sweep", lambda *args, **kwargs: "e/p/sweep")
    monkeypatch.setattr(wandb, "agent", agent)
    trainer = Trainer(
        model_init=lambda trial=None: make_model(),
        args=make_args(max_steps=4, logging_steps=2, eval_strategy="steps", eval_steps=4, report_to=report_to),
        train_dataset=make_data(),
        eval_dataset=make_data(2),
        callbacks=[Note(), *(kind() for kind in callbacks)],
    )
    space = {"method": "grid", "metric": {}, "parameters": {}}
    trainer.hyperparameter_search(backend="wandb", hp_space=lambda trial: space, n_trials=2, direction="minimize")
    wandb.teardown()
    assert len(opened) == 4  # the agent's and Trainer's, none of ours
    assert [lr for _, lr in runs] == [0.1, 1.0]
    for folder, _ in runs:
        rows = [record["history"]["item"] for record in records_of(folder) if record["type"] == "history"]
        assert [row["train/global_step"] for row in rows if "emo/lr" in row] == [1, 2, 3, 4]
        assert [row["train/global_step"] for row in rows if "train/loss" in row] == [2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("callbacks", [[], [EmotionCallback]], ids=["wrap", "callback"])
def test_trials_of_another_search_have_a_run_each(callbacks, make_args, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    opened, start = [], wandb.init

    def init(*args, **kwargs):
        run = start(*args, **kwargs)
        opened.append(Path(run.settings.sync_dir))
        return run

    monkeypatch.setattr(wandb, "init", init)
    trainer = Trainer(
        model_init=lambda trial=None: make_model(),
        args=make_args(max_steps=2, eval_strategy="steps", eval_steps=2, report_to=["wandb"]),
        train_dataset=make_data(),
        eval_dataset=make_data(2),
        callbacks=[kind() for kind in callbacks],
    )
    grid = {"learning_rate": [0.1, 1.0]}
    trainer.hyperparameter_search(
        backend="optuna",
        direction="minimize",
        n_trials=2,
        hp_space=lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", grid["learning_rate"])},
        sampler=optuna.samplers.GridSampler(grid, seed=0),
    )
    wandb.finish()
    wandb.teardown()
    assert len(opened) == 2
    for folder in opened:
        rows = [record["history"]["item"] for record in records_of(folder) if record["type"] == "history"]
        assert [row["train/global_step"] for row in rows if "emo/lr" in row] == [1, 2]
