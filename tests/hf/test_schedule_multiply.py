"""Schedules multiply: the step size really taken is the pulse times the factor of any schedule, and it is logged."""

import pytest
import torch
from transformers import Trainer, TrainerCallback, get_scheduler

from emo_hf import EmoTrainer, registry
from tests.hf.tiny_gpt2 import make_data

STEPS, WARMUP = 8, 3
SCHEDULES = {
    "constant": {},
    "constant_with_warmup": {},
    "linear": {},
    "cosine": {},
    "cosine_with_restarts": {"num_cycles": 2},
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "polynomial": {"lr_end": 0.1, "power": 2.0},
    "inverse_sqrt": {"timescale": 4},
    "warmup_stable_decay": {"num_decay_steps": 3},
}
MULTIPLIER = 0.5


class Moves(TrainerCallback):
    """Measures the longest way that a weight went in each step, of `params` or of all."""

    def __init__(self, params=None):
        self.params, self.moved = params, []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.params = self.params or list(model.parameters())
        self.weights = [p.detach().clone() for p in self.params]

    def on_step_end(self, args, state, control, **kwargs):
        pairs = zip(self.params, self.weights, strict=True)
        self.moved.append(max((p.detach() - before).abs().max().item() for p, before in pairs))


def steps_of(trainer):
    return [log for log in trainer.state.log_history if "loss" in log]


def pulses_of(trainer, scope):
    """Computes the pulse of every step from the losses alone."""
    mechanism = registry.find("emoairy").mechanism
    state, pulses = mechanism.start(), []
    for log in steps_of(trainer):
        mechanism.advance(state, log["emo/loss"])
        pulses.append(mechanism.rate(state, scope, scope).step)
    return pulses


def assert_multiplied(trainer, moves, factors):
    """Checks what the logs tell and how far the weights went; EmoAiry moves every weight by its step size."""
    logs, pulses = steps_of(trainer), pulses_of(trainer, MULTIPLIER)
    expected = [pulse * factor for pulse, factor in zip(pulses, factors, strict=True)]
    assert [log["emo/pulse"] for log in logs] == pulses
    assert [log["learning_rate"] for log in logs] == pytest.approx(expected, rel=1e-12)
    assert [log["emo/lr"] for log in logs] == [log["learning_rate"] for log in logs]
    assert moves.moved == pytest.approx(expected, rel=1e-3, abs=1e-7)  # weights are float32
    assert len(set(expected)) > STEPS / 2


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_step_size_is_the_pulse_times_the_schedule(schedule, make_trainer):
    options = {"lr_scheduler_type": schedule, "lr_scheduler_kwargs": SCHEDULES[schedule], "warmup_steps": WARMUP}
    moves = Moves()
    trainer = make_trainer(
        EmoTrainer if schedule == "cosine" else Trainer,
        {"callbacks": [moves]},
        optim="emoairy",
        learning_rate=MULTIPLIER,
        max_steps=STEPS,
        **options,
    )
    trainer.train()
    assert_multiplied(trainer, moves, factors_of(schedule))


def factors_of(schedule):
    """Returns what the schedule makes of a plain SGD at a learning rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))], lr=1.0)
    # As a fraction of the initial rate, which is 1 here; lr_end is a rate.
    options = {k: v / MULTIPLIER if k == "lr_end" else v for k, v in SCHEDULES[schedule].items()}
    scheduler, factors = get_scheduler(schedule, optimizer, WARMUP, STEPS, options), []
    for _ in range(STEPS):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert (len(set(factors)) == 1) == (schedule == "constant")
    return factors


def test_plateau_multiplies(make_trainer):
    moves = Moves()
    trainer = make_trainer(
        trainer={"callbacks": [moves], "eval_dataset": make_data(2)},
        optim="emoairy",
        learning_rate=MULTIPLIER,
        max_steps=STEPS,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs={"factor": 0.5, "patience": 0, "threshold": 0.9},  # no evaluation is that much better
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="loss",
    )
    trainer.train()
    assert_multiplied(trainer, moves, [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25])


def test_each_group_is_multiplied_by_its_own_rate(make_trainer):
    trainer = make_trainer(optim="emoairy", lr_scheduler_type="linear", max_steps=4)
    slow, fast = [], []
    for name, param in trainer.model.named_parameters():
        (fast if name.endswith("bias") else slow).append(param)
    groups = [{"params": slow}, {"params": fast, "lr": 2 * MULTIPLIER}]
    trainer.optimizer = registry.build("emoairy", groups, lr=MULTIPLIER, weight_decay=0.0)
    moves = [Moves(slow), Moves(fast)]
    for each in moves:
        trainer.add_callback(each)
    trainer.train()
    factors = (1, 0.75, 0.5, 0.25)
    expected = pulses_of(trainer, MULTIPLIER), pulses_of(trainer, 2 * MULTIPLIER)
    for each, pulses in zip(moves, expected, strict=True):
        steps = [pulse * factor for pulse, factor in zip(pulses, factors, strict=True)]
        assert each.moved == pytest.approx(steps, rel=1e-3, abs=1e-7)
    assert moves[1].moved[1] > 1.5 * moves[0].moved[1]
