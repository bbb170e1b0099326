"""The loss that reaches the optimizer is the objective that was differentiated, in every way in."""

import pytest
import torch
from accelerate import Accelerator
from transformers import Trainer

from emo_hf.errors import MissingLossError
from emo_hf.hf import EmotionCallback, EmoTrainer, attach, registration
from tests.hf.loss_functions import token_mean
from tests.hf.tiny_gpt2 import Meter


def build(way, make_trainer, **options):
    """A Trainer in one of the four ways in; only the first has the wrap of Trainer.create_optimizer."""
    if way != "wrap":
        registration.remove_patches()
    kind = EmoTrainer if way == "mixin" else Trainer
    if way == "callback":
        options["trainer"] = {**options.get("trainer", {}), "callbacks": [EmotionCallback()]}
    trainer = make_trainer(kind, **options)
    if way == "attach":
        attach(trainer)
    return trainer


SETTINGS = {
    "plain": {},
    "accumulation with an incomplete last group": {"gradient_accumulation_steps": 4},
    "mean loss per micro-batch": {"gradient_accumulation_steps": 4, "loss_kwargs": False},
    "label smoothing": {"gradient_accumulation_steps": 4, "label_smoothing_factor": 0.1},
    "compute_loss_func": {"gradient_accumulation_steps": 4, "trainer": {"compute_loss_func": token_mean}},
    "bf16": {"gradient_accumulation_steps": 4, "bf16": True},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("way", ["wrap", "mixin", "attach", "callback"])
@pytest.mark.filterwarnings("ignore:.*makes no use of num_items_in_batch")  # label smoothing before 5.15
def test_fed_loss_is_the_objective(way, setting, make_trainer, read_signals):
    options = dict(SETTINGS[setting])
    accepts_loss_kwargs = options.pop("loss_kwargs", True)
    trainer = build(way, make_trainer, num_train_epochs=2, **options)  # 10 batches an epoch: groups of 4, 4, 2
    trainer.model_accepts_loss_kwargs = accepts_loss_kwargs
    measured = Meter(trainer)
    trainer.train()

    steps = 20 if setting == "plain" else 6
    assert len(measured.truth) == steps
    assert len(set(measured.truth)) == steps
    assert measured.fed == measured.truth
    # The record and the logs are there whichever way was taken.
    rows = read_signals(trainer.args.output_dir)
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [row["emo/loss"] for row in rows] == measured.truth
    assert [log["learning_rate"] for log in logs] == [row["emo/lr"] for row in rows]


def test_combined_ways_count_a_loss_once(make_trainer):
    options = {"gradient_accumulation_steps": 4, "num_train_epochs": 1}
    trainer = make_trainer(EmoTrainer, trainer={"callbacks": [EmotionCallback()]}, **options)
    attach(trainer)
    attach(trainer)
    measured = Meter(trainer)
    trainer.train()
    trainer.train()
    assert measured.fed == measured.truth
    assert len(measured.truth) == 6
    assert sum(isinstance(each, EmotionCallback) for each in trainer.callback_handler.callbacks) == 1


def test_trainer_without_a_feed_is_an_error_that_names_the_cures(make_trainer):
    registration.remove_patches()
    trainer = make_trainer(max_steps=2)
    with pytest.raises(MissingLossError, match=r"(?s)EmoTrainer.*attach.*EmotionCallback.*loss="):
        trainer.train()


def test_half_finished_sum_of_an_interrupted_training_is_dropped(make_trainer):
    trainer = make_trainer(gradient_accumulation_steps=4, num_train_epochs=1)
    measured = Meter(trainer)
    compute_loss = trainer.compute_loss
    trainer.compute_loss = iter_then_raise(compute_loss, 6)  # before the third micro-batch of the second step
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.compute_loss = compute_loss
    trainer.model.zero_grad()
    trainer.train()
    assert measured.fed == measured.truth
    assert len(measured.fed) == 1 + 3


def test_a_short_last_group_is_on_record(make_trainer, read_signals):
    trainer = make_trainer(gradient_accumulation_steps=4, num_train_epochs=2, logging_steps=1)
    trainer.train()  # 10 micro-batches an epoch
    assert [row["emo/micro_batches"] for row in read_signals(trainer.args.output_dir)] == [4, 4, 2, 4, 4, 2]
    logged = [log["emo/micro_batches"] for log in trainer.state.log_history if "loss" in log]
    assert logged == [4, 4, 2, 4, 4, 2]
    alone = make_trainer(max_steps=2)
    alone.train()
    assert all("emo/micro_batches" not in row for row in read_signals(alone.args.output_dir))


def test_callback_alone_leaves_nothing_behind(make_trainer):
    registration.remove_patches()
    backward = Accelerator.backward
    trainer = make_trainer(trainer={"callbacks": [EmotionCallback()]}, max_steps=3)
    during = []
    compute_loss = trainer.compute_loss
    trainer.compute_loss = lambda *a, **k: (during.append(Accelerator.backward), compute_loss(*a, **k))[1]
    trainer.train()
    assert during[0] is not backward
    assert during[1:] == [backward, backward]
    assert Accelerator.backward is backward
    assert "backward" not in vars(trainer.accelerator)
    assert type(trainer.lr_scheduler) is torch.optim.lr_scheduler.LambdaLR
    measured = Meter(trainer)
    trainer.train()  # and it can begin again
    assert measured.fed == measured.truth
    assert len(measured.fed) == 3


def test_callback_alone_recovers_from_an_interrupted_training(make_trainer):
    registration.remove_patches()
    trainer = make_trainer(trainer={"callbacks": [EmotionCallback()]}, gradient_accumulation_steps=4, max_steps=3)
    compute_loss = trainer.compute_loss
    trainer.compute_loss = iter_then_raise(compute_loss, 6)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.compute_loss = compute_loss
    trainer.model.zero_grad()
    measured = Meter(trainer)
    trainer.train()
    assert measured.fed == measured.truth
    assert len(measured.fed) == 3
    rates = [log["learning_rate"] for log in trainer.state.log_history if "loss" in log]
    assert rates == [log["emo/lr"] for log in trainer.state.log_history if "loss" in log]


@pytest.mark.parametrize("way", ["wrap", "callback"])
def test_smaller_batch_after_a_failure_in_mid_accumulation(way, make_trainer):
    trainer = build(way, make_trainer, gradient_accumulation_steps=4, num_train_epochs=1, auto_find_batch_size=True)
    measured = Meter(trainer)
    compute_loss = trainer.compute_loss
    failing = iter_then_raise(compute_loss, 6, RuntimeError("CUDA out of memory."))

    def fail_once(*args, **kwargs):
        try:
            return failing(*args, **kwargs)
        except RuntimeError:
            trainer.compute_loss = compute_loss
            trainer.model.zero_grad()
            raise

    trainer.compute_loss = fail_once
    trainer.train()
    assert trainer._train_batch_size < 2
    assert measured.fed == measured.truth
    assert len(measured.fed) == 1 + 5  # one before the failure; then 20 batches of 1, in groups of 4


def iter_then_raise(function, calls, error=KeyboardInterrupt):
    remaining = [None] * calls

    def wrapped(*args, **kwargs):
        if not remaining:
            raise error
        remaining.pop()
        return function(*args, **kwargs)

    return wrapped
