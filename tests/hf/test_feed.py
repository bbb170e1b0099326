"""The loss that reaches the optimizer is the objective that was differentiated, in every way in."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import GradientState
from tiny_gpt2 import Meter
from transformers import Trainer

from emo_hf import catalog
from emo_hf.errors import MissingLossError
from emo_hf.hf import EmotionCallback, EmoTrainer, LossFeed, attach
from emo_hf.hf import trainer as hf_trainer
from emo_hf.hf.callback import lr_used
from emo_hf.hf.feed import PendingLoss, await_accelerator, find_optimizer, stop_feeding


def summed_loss(outputs, labels, num_items_in_batch=None):
    """A user's loss that normalizes by the number of labels in the whole accumulated batch."""
    logits, targets = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / num_items_in_batch


def build(way, make_trainer, **options):
    """A Trainer in one of the four ways in; only the first has the wrap of Trainer.create_optimizer."""
    if way != "wrap":
        hf_trainer.remove_wrap()
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
    "compute_loss_func": {"gradient_accumulation_steps": 4, "trainer": {"compute_loss_func": summed_loss}},
    "bf16": {"gradient_accumulation_steps": 4, "bf16": True},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("way", ["wrap", "mixin", "attach", "callback"])
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
    hf_trainer.remove_wrap()
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


def test_callback_alone_leaves_nothing_behind(make_trainer):
    hf_trainer.remove_wrap()
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
    hf_trainer.remove_wrap()
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


def test_waiting_for_one_accelerator_leaves_others_alone():
    waiting, model = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    awaited = catalog.build("emosens", waiting.parameters())
    other = catalog.build("emosens", model.parameters())
    accelerator, backward = Accelerator(cpu=True), Accelerator.backward
    accelerator.prepare(other)
    await_accelerator(awaited)
    try:
        accelerator.backward(model(torch.ones(1)).sum())
        assert model.weight.grad is not None
        assert LossFeed.of(other) is None
        assert LossFeed.of(awaited) is None
    finally:
        stop_feeding(awaited)
    assert Accelerator.backward is backward


def test_wrap_that_another_package_puts_around_backward_stays(monkeypatch):
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer, calls = catalog.build("emosens", [weight]), []
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(optimizer)
    GradientState()._set_sync_gradients(True)
    monkeypatch.setattr(Accelerator, "backward", Accelerator.backward)  # restored afterwards

    def wrap():
        inner = Accelerator.backward

        def theirs(self, loss, **kwargs):
            calls.append(loss.item())
            inner(self, loss, **kwargs)

        Accelerator.backward = theirs
        return theirs

    below = wrap()
    await_accelerator(optimizer)
    stop_feeding(optimizer)
    assert Accelerator.backward is below
    await_accelerator(optimizer)
    above = wrap()
    stop_feeding(optimizer)
    assert Accelerator.backward is above
    await_accelerator(optimizer)
    accelerator.backward(weight * 3)
    assert Accelerator.backward is above
    assert calls == [3.0, 3.0]  # theirs, above and below ours
    assert weight.grad == 3
    optimizer.step()
    assert optimizer.signals().loss == 3.0
    stop_feeding(optimizer)


def test_accelerate_accumulation_scale_is_applied():
    # Trainer scales itself and sets 1; a loop of one's own lets the Accelerator divide.
    model = torch.nn.Linear(1, 1)
    optimizer = catalog.build("emosens", model.parameters())
    GradientState._reset_state()  # what Trainers of other tests have set is shared by all Accelerators
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    prepared_model, prepared = accelerator.prepare(model, optimizer)
    LossFeed.install(accelerator, optimizer)
    for value in (1.0, 3.0):
        with accelerator.accumulate(prepared_model):
            accelerator.backward(prepared_model(torch.ones(1)).sum() * 0 + value)
            prepared.step()
            prepared.zero_grad()
    assert optimizer.signals().loss == 2.0


def test_step_skipped_by_a_grad_scaler_advances_nothing():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = catalog.build("emosens", [weight])
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu")
    prepared = AcceleratedOptimizer(optimizer, scaler=accelerator.scaler)
    LossFeed.install(accelerator, optimizer)
    GradientState()._set_sync_gradients(True)
    start = optimizer.param_groups[0]["emo"]

    accelerator.backward((weight * 7).sum())
    weight.grad.fill_(torch.inf)  # an overflow
    prepared.step()
    assert prepared.step_was_skipped
    assert repr(optimizer.param_groups[0]["emo"]) == repr(start)  # it holds NaNs
    assert optimizer.signals() is None
    assert lr_used(optimizer) == 0.0  # and not NaN, which no log could hold

    prepared.zero_grad()
    accelerator.backward((weight * 3).sum())
    prepared.step()
    assert not prepared.step_was_skipped
    assert optimizer.signals().loss == 3.0  # neither scaled nor the 7 of the skipped step


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_losses_are_summed_in_at_least_float32_and_copied(dtype):
    optimizer = catalog.build("emosens", [torch.nn.Parameter(torch.zeros(1))])
    accelerator = SimpleNamespace(
        backward=lambda loss: loss.fill_(9), sync_gradients=True, num_processes=1,
        gradient_accumulation_steps=1, distributed_type=None,
    )  # fmt: skip
    LossFeed.install(accelerator, optimizer)
    replicas = torch.tensor([1.0, 1.25], dtype=dtype)  # DataParallel: one loss per replica
    accelerator.backward(replicas)
    optimizer.param_groups[0]["params"][0].grad = torch.zeros(1)
    optimizer.step()
    assert optimizer.signals().loss == 1.125


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_loss_leaves_the_gpu_without_a_synchronisation():
    total = torch.tensor(2.5, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = PendingLoss(total, ranks=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert pending.item() == 2.5


def test_pending_loss_can_be_read_twice():
    pending = PendingLoss(torch.tensor(2.5), ranks=1)
    assert pending.item() == pending.item() == 2.5


def test_optimizer_is_found_inside_wrappers():
    optimizer = catalog.build("emosens", [torch.nn.Parameter(torch.zeros(1))])
    assert find_optimizer(SimpleNamespace(optimizer=SimpleNamespace(optimizer=optimizer))) is optimizer
    assert find_optimizer(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])) is None
    assert find_optimizer(None) is None
