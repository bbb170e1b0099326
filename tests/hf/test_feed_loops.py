"""`LossFeed` on an Accelerator, without a Trainer."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import GradientState

from emo_hf import registry
from emo_hf.errors import OptionError
from emo_hf.hf import LossFeed, registration
from emo_hf.hf.callback import lr_used
from emo_hf.hf.feed import PendingLoss, await_accelerator, find_optimizer, stop_feeding


def test_waiting_for_one_accelerator_leaves_others_alone():
    waiting, model = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    awaited = registry.build("emosens", waiting.parameters())
    other = registry.build("emosens", model.parameters())
    accelerator, backward = Accelerator(cpu=True), Accelerator.backward
    registration.remove_patches()
    accelerator.prepare(other)
    await_accelerator(awaited)
    try:
        accelerator.backward(model(torch.ones(1)).sum())
        assert model.weight.grad is not None
        assert LossFeed.installed_on(other) is None
        assert LossFeed.installed_on(awaited) is None
    finally:
        stop_feeding(awaited)
        registration.install_patches()
    assert Accelerator.backward is backward


def test_wrap_that_another_package_puts_around_backward_stays(monkeypatch):
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer, calls = registry.build("emosens", [weight]), []
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
    optimizer = registry.build("emosens", model.parameters())
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
    optimizer = registry.build("emosens", [weight])
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
    optimizer = registry.build("emosens", [torch.nn.Parameter(torch.zeros(1))])
    accelerator = SimpleNamespace(
        backward=lambda loss: loss.fill_(9), clip_grad_norm_=None, sync_gradients=True, num_processes=1,
        gradient_accumulation_steps=1, distributed_type=None,
    )  # fmt: skip
    LossFeed.install(accelerator, optimizer)
    accelerator.backward(torch.tensor([1.125], dtype=dtype))
    optimizer.param_groups[0]["params"][0].grad = torch.zeros(1)
    optimizer.step()
    assert optimizer.signals().loss == 1.125


def test_a_loss_of_several_elements_needs_weights():
    weight = torch.nn.Parameter(torch.tensor(2.0))
    optimizer = registry.build("emosens", [weight])
    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare(optimizer)
    GradientState()._set_sync_gradients(True)
    with pytest.raises(OptionError, match=r"got a loss of shape \(3,\), expected one number: differentiate loss.mean"):
        accelerator.backward(weight * torch.ones(3))
    accelerator.backward(weight * torch.ones(3), gradient=torch.tensor([1.0, 2.0, 0.5]))
    prepared.step()
    assert optimizer.signals().loss == 7.0


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
    optimizer = registry.build("emosens", [torch.nn.Parameter(torch.zeros(1))])
    assert find_optimizer(SimpleNamespace(optimizer=SimpleNamespace(optimizer=optimizer))) is optimizer
    assert find_optimizer(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])) is None
    assert find_optimizer(None) is None


@pytest.fixture
def loop():
    """An Accelerator, a model of one weight, and its optimizer, fed."""
    GradientState._reset_state()
    accelerator, model = Accelerator(cpu=True), torch.nn.Linear(1, 1, bias=False)
    optimizer = registry.build("emosens", model.parameters())
    model, prepared = accelerator.prepare(model, optimizer)
    LossFeed.install(accelerator, optimizer)
    return accelerator, model, optimizer, prepared


def objective(model, value):
    """A loss of `value`, up to rounding, with a gradient."""
    weight = model.weight.sum()
    return weight - weight.detach() + value


def test_every_backward_of_a_step_counts(loop):
    accelerator, model, optimizer, prepared = loop
    for values in ([3.0, 0.5], [1.0], [0.25, 0.5, 0.125]):
        for value in values:
            accelerator.backward(objective(model, value))
        prepared.step()
        prepared.zero_grad()
        assert optimizer.signals().loss == sum(values)


def test_a_loop_that_divides_by_the_accumulation_itself_is_fed_the_mean(loop):
    accelerator, model, optimizer, prepared = loop
    for value in (1.0, 2.0, 6.0):
        accelerator.backward(objective(model, value) / 3)
    prepared.step()
    assert optimizer.signals().loss == pytest.approx(3.0)


@pytest.mark.parametrize("who", ["optimizer", "model", "wrapper"])
def test_what_is_thrown_away_before_the_step_does_not_count(loop, who):
    accelerator, model, optimizer, prepared = loop
    accelerator.backward(objective(model, 7.0))
    {"optimizer": optimizer, "model": model, "wrapper": prepared}[who].zero_grad()
    accelerator.backward(objective(model, 2.0))
    prepared.step()
    assert optimizer.signals().loss == 2.0


def test_a_probe_before_an_accumulation_does_not_count():
    GradientState._reset_state()
    accelerator, model = Accelerator(cpu=True, gradient_accumulation_steps=2), torch.nn.Linear(1, 1, bias=False)
    optimizer = registry.build("emosens", model.parameters())
    model, prepared = accelerator.prepare(model, optimizer)
    LossFeed.install(accelerator, optimizer)
    accelerator.backward(objective(model, 8.0))
    model.zero_grad()
    for value in (1.0, 3.0):
        with accelerator.accumulate(model):
            accelerator.backward(objective(model, value))
            prepared.step()
            prepared.zero_grad()
    assert optimizer.signals().loss == 2.0


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("order", ["each before its backward", "both at the top"])
def test_two_optimizers_hear_what_reached_their_own_parameters(order, set_to_none):
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True)
    models = [torch.nn.Linear(1, 1, bias=False) for _ in range(2)]
    ours = [registry.build("emosens", model.parameters()) for model in models]
    prepared = accelerator.prepare(*ours)
    for optimizer in ours:
        LossFeed.extend(accelerator, optimizer)
    discriminator, generator = models
    for step in range(3):
        losses = [2.0 + step, 5.0 + step]
        if order == "both at the top":
            for optimizer in prepared:
                optimizer.zero_grad(set_to_none=set_to_none)
        else:
            prepared[0].zero_grad(set_to_none=set_to_none)
        accelerator.backward(objective(discriminator, losses[0]))
        prepared[0].step()
        if order != "both at the top":
            prepared[1].zero_grad(set_to_none=set_to_none)
        # the generator's loss passes through the discriminator, whose gradient of it is thrown away
        accelerator.backward(objective(generator, losses[1]) + 0 * discriminator.weight.sum())
        prepared[1].step()
        assert [optimizer.signals().loss for optimizer in ours] == pytest.approx(losses)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_optimizers_that_hooks_step_inside_the_backward_hear_the_whole_loss(accumulation):
    # "Fused" groups of parameters: each has an optimizer, stepped as soon as its gradients are there.
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    layers = torch.nn.ModuleList(torch.nn.Linear(1, 1, bias=False) for _ in range(3))
    ours = [registry.build("emosens", layer.parameters()) for layer in layers]
    prepared = [accelerator.prepare(optimizer) for optimizer in ours]
    for each, layer in zip(prepared, layers, strict=True):

        def step(param, each=each):
            each.step()
            each.zero_grad()

        layer.weight.register_post_accumulate_grad_hook(step)
    for first in (1.0, 5.0, 2.0):
        losses = [first + micro for micro in range(accumulation)]
        for loss in losses:
            with accelerator.accumulate(layers):
                accelerator.backward(objective(layers[0], 0) + objective(layers[1], 0) + objective(layers[2], loss))
        mean = sum(losses) / accumulation
        assert [optimizer.signals().loss for optimizer in ours] == pytest.approx([mean] * 3, abs=1e-6)
    assert [optimizer.steps for optimizer in ours] == [3] * 3


def test_a_loss_that_reached_others_is_taken_back_from_an_accumulation():
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    models = torch.nn.ModuleList(torch.nn.Linear(1, 1, bias=False) for _ in range(2))
    ours = [registry.build("emosens", model.parameters()) for model in models]
    prepared = accelerator.prepare(*ours)
    for reached in ([0, 1], [1, 0], [0, 1]):
        for micro, which in enumerate(reached):
            with accelerator.accumulate(models):
                accelerator.backward(objective(models[which], 2.0 + micro))
                for optimizer in prepared:
                    optimizer.step()
                    optimizer.zero_grad()
        assert [ours[which].signals().loss for which in reached] == [1.0, 1.5]
        assert all(optimizer.observed is None for optimizer in ours)


def test_optimizers_that_the_accelerator_has_forgotten_are_fed_no_more():
    accelerator = Accelerator(cpu=True)
    ours = [registry.build("emosens", [torch.nn.Parameter(torch.ones(1))]) for _ in range(2)]
    accelerator.prepare(ours[0])
    LossFeed.extend(accelerator, ours[0])
    accelerator.free_memory()
    accelerator.prepare(ours[1])
    feed = LossFeed.extend(accelerator, ours[1])
    assert LossFeed.extend(accelerator, ours[1]) is feed
    assert LossFeed.installed_on(ours[0]) is None
    assert LossFeed.installed_on(ours[1]) is feed
