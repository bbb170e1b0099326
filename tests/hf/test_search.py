"""``trainer.hyperparameter_search``: each trial has an optimizer, an emotion and a loss of its own."""

import functools
import gc
from types import SimpleNamespace

import pytest
from transformers import Trainer, TrainerCallback

from emo_hf import EmotionCallback, EmoTrainer, EmoTrainingArguments, registry
from emo_hf.hf import registration
from emo_hf.hf.feed import find_optimizer
from emo_hf.scheduler import innermost
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
