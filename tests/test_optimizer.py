"""What every spec of the registry promises about a step. A new spec is tested because it is registered."""

import math
from dataclasses import replace

import pytest
import torch

from emo_hf import registry
from emo_hf.errors import EmoError, MissingLossError, NonFiniteLossError
from emo_hf.optimizer import EmoOptimizer
from tests.optimizer_contract import (
    LOSSES,
    STEPS,
    Writer,
    build,
    by_parts,
    every_row,
    give_gradients,
    make_params,
    run,
    same,
    snapshot,
    trained,
    values,
    without_3_1_warning,
)

pytestmark = without_3_1_warning


# -- parameter groups ------------------------------------------------------------------------------------------------


@every_row
@pytest.mark.parametrize("sizes", [(2, 3), (1, 1, 1, 1, 1), (4, 0, 1)], ids=str)
def test_groups_do_not_change_the_result(spec, sizes):
    params = make_params()
    rest = iter(params)
    groups = [{"params": [next(rest) for _ in range(size)]} for size in sizes]
    run(build(spec, groups, shadow=True), params, STEPS)
    assert same(values(params), trained(spec, shadow=True))


@by_parts
def test_a_group_has_its_own_learning_rate_and_decay(spec):
    spec = replace(spec, geometry=None)  # Tion's and Void's norm is of all groups
    lr = spec.options["lr"]
    own = [{"lr": lr}, {"lr": lr / 2, **({} if "weight_decay" in spec.dead else {"weight_decay": 0.3})}]
    together, apart = make_params(), make_params()
    parts = (slice(0, 2), slice(2, None))
    run(EmoOptimizer([{"params": together[p], **o} for p, o in zip(parts, own, strict=True)], spec), together, STEPS)
    for part, options in zip(parts, own, strict=True):
        optimizer = EmoOptimizer(apart[part], spec, **options)
        for t in STEPS:
            give_gradients(apart, t)
            optimizer.step(loss=LOSSES[t])
    assert same(values(together), values(apart))


@every_row
def test_half_the_learning_rate_is_half_the_step(spec):
    steps = []
    for scale in (1.0, 0.5):
        optimizer = build(spec, make_params(), lr=scale * spec.options["lr"])
        run(optimizer, optimizer.param_groups[0]["params"], [0])
        steps.append(optimizer.effective_lr)
    # in 3.7.0 the multiplier only bounds the pulse: min(distance, 20 lr)
    assert steps[1] == pytest.approx(steps[0] * (1.0 if spec.version == "3.7.0" else 0.5), rel=1e-12)


@every_row
def test_parameters_without_gradient_are_untouched(spec):
    params = make_params()
    frozen = params[1].requires_grad_(False)
    before = frozen.clone()
    optimizer = build(spec, params, shadow=True)
    for t in STEPS:
        give_gradients(params, t)
        frozen.grad = None
        optimizer.step(loss=LOSSES[t])
    assert torch.equal(frozen, before)
    assert frozen not in optimizer.state
    others = make_params()
    del others[1]
    rest = build(spec, others, shadow=True)
    for t in STEPS:
        every = make_params()
        give_gradients(every, t)
        for param, source in zip(others, [every[0], *every[2:]], strict=True):
            param.grad = source.grad
        rest.step(loss=LOSSES[t])
    assert same(values(others), values([params[0], *params[2:]]))


@every_row
def test_a_group_added_late_shares_the_emotion(spec):
    spec = replace(spec, geometry=None)
    early, late = make_params()[:3], make_params()[3:]
    optimizer = EmoOptimizer(early, spec)
    run(optimizer, early, STEPS[:5])
    optimizer.add_param_group({"params": late, "lr": spec.options["lr"] / 4})
    first, second = optimizer.param_groups
    assert second["emo"] == first["emo"]
    assert second["scope"] == spec.options["lr"] / 4
    before = values(late)
    run(optimizer, [*early, *late], STEPS[5:])
    assert same(values(early), [p.detach() for p in _trained_alone(spec)])
    assert not any(torch.equal(a, b) for a, b in zip(before, values(late), strict=True))


def _trained_alone(spec):
    params = make_params()[:3]
    run(EmoOptimizer(params, spec), params, STEPS)
    return params


@by_parts
def test_one_group_at_a_time_equals_one_step(spec):
    """As DeepSpeed ZeRO steps: one observed loss, then one `step` per group with the others out of sight."""
    spec = replace(spec, geometry=None)
    params = make_params()
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": spec.options["lr"] / 2}]
    whole = make_params()
    reference = EmoOptimizer([{**groups[0], "params": whole[:2]}, {**groups[1], "params": whole[2:]}], spec)
    optimizer = EmoOptimizer(groups, spec)
    for t in STEPS:
        run(reference, whole, [t])
        give_gradients(params, t)
        optimizer.observe(LOSSES[t])
        every = optimizer.param_groups
        for group in every:
            optimizer.param_groups = [group]
            optimizer.step()
        optimizer.param_groups = every
    assert same(snapshot(optimizer, params), snapshot(reference, whole))
    assert optimizer.signals() == reference.signals()
    with pytest.raises(MissingLossError):
        optimizer.step()


# -- the loss --------------------------------------------------------------------------------------------------------


class AsModel:
    """A model whose gradients and loss at step `t` are those of `contract`, with a real backward."""

    def __init__(self, params):
        self.params, self.t = params, 0

    def closure(self):
        give_gradients(self.params, self.t)
        coefficients = [param.grad.clone() for param in self.params]
        for param in self.params:
            param.grad = None
        slope = sum((c * p).sum() for c, p in zip(coefficients, self.params, strict=True))
        loss = slope - slope.detach() + LOSSES[self.t]
        loss.backward()
        self.t += 1
        return loss


@every_row
def test_a_closure_equals_a_loss(spec):
    params = make_params()
    model, optimizer = AsModel(params), build(spec, params)
    for t in STEPS:
        assert optimizer.step(model.closure).item() == LOSSES[t]
    assert same(values(params), trained(spec))


@every_row
def test_an_observed_loss_equals_a_given_one(spec):
    params = make_params()
    optimizer = build(spec, params)
    for t in STEPS:
        give_gradients(params, t)
        optimizer.observe(1e6)  # replaced by the next
        optimizer.observe(torch.tensor(LOSSES[t], dtype=torch.float64, requires_grad=True))
        assert optimizer.step() is None
    assert same(values(params), trained(spec))


@every_row
def test_a_missing_loss_raises_and_changes_nothing(spec):
    params = make_params()
    optimizer = build(spec, params)
    for steps in ([], STEPS[:3]):
        run(optimizer, params, steps)
        give_gradients(params, 9)
        before = snapshot(optimizer, params)
        for _ in range(2):
            with pytest.raises(MissingLossError, match=r"got no loss.*EmoTrainer.*attach.*step\(loss=loss\)"):
                optimizer.step()
        assert same(snapshot(optimizer, params), before)


def test_a_step_in_a_captured_graph_is_refused_and_changes_nothing(monkeypatch):
    params = make_params()
    optimizer = registry.build("emosens", params)
    run(optimizer, params, STEPS[:2])
    before = snapshot(optimizer, params)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(EmoError, match=r"while a CUDA graph is being captured.*step\(loss="):
        run(optimizer, params, STEPS[2:3])
    assert same(snapshot(optimizer, params), before)


@every_row
def test_a_probe_creates_the_state_and_changes_nothing(spec):
    params = make_params()
    optimizer = build(spec, params)
    before = snapshot(optimizer, params)
    for param in params:
        param.grad = torch.zeros_like(param)
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    for group, lr in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = lr
    after = snapshot(optimizer, params)
    assert same(after[0], before[0])
    assert same(after[1]["param_groups"], before[1]["param_groups"])
    assert optimizer.signals() is None
    for i, param in enumerate(params):
        shadow = spec.shadow.start(param) if spec.shadow.always else {}
        assert same(after[1]["state"].get(i, {}), spec.update.init(param) | shadow)
    run(optimizer, params, STEPS)
    assert same(values(params), trained(spec))


@every_row
@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("policy", ["raise", "auto"])
def test_a_non_finite_loss_raises_and_changes_nothing(spec, loss, policy):
    params = make_params()
    optimizer = build(spec, params, shadow=True, on_nonfinite_loss=policy)
    run(optimizer, params, STEPS[:3])
    before, signals = snapshot(optimizer, params), optimizer.signals()
    if policy == "auto":
        params[-1].grad.view(-1)[-1] = loss
    with pytest.raises(NonFiniteLossError, match="Nothing was changed"):
        optimizer.step(loss=loss)
    with pytest.raises(MissingLossError):  # the refused loss is not kept
        optimizer.step()
    assert same(snapshot(optimizer, params), before)
    assert optimizer.signals() == signals
    run(optimizer, params, STEPS[3:])
    assert same(values(params), trained(spec, shadow=True))


@every_row
@pytest.mark.parametrize("policy", ["skip", "auto"])
def test_a_skipped_step_is_counted_said_once_and_otherwise_as_if_it_never_was(spec, policy, caplog):
    params = make_params()
    writer = Writer()
    optimizer = build(spec, params, shadow=True, on_nonfinite_loss=policy, writer=writer)
    for skipped, t in enumerate(STEPS, start=1):
        before = values(params)
        give_gradients(params, 100 + t)
        if policy == "skip":
            params[0].grad.fill_(math.nan)
        optimizer.step(loss=math.nan)
        assert same(values(params), before)
        assert optimizer.skipped_steps == skipped
        run(optimizer, params, [t])
    reference = make_params()
    never = build(spec, reference, shadow=True)
    run(never, reference, STEPS)
    assert same(values(params), values(reference))
    assert optimizer.signals() == never.signals()
    assert list(writer.scalars) == [t + 1 for t in STEPS]
    (line,) = caplog.messages
    assert line.startswith(f"{spec.key}: the loss of step 1 is not finite")


# -- the learning rate -----------------------------------------------------------------------------------------------


@every_row
def test_schedulers_multiply_and_the_optimizer_never_writes_lr(spec):
    params = make_params()
    optimizer = build(spec, [{"params": params[:2]}, {"params": params[2:], "lr": spec.options["lr"] / 2}])
    scopes = [spec.options["lr"], spec.options["lr"] / 2]
    constant = build(spec, make_params(), lr=scopes[0])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.0 if t == 0 else 1 / t)
    for t in STEPS:
        rates = [group["lr"] for group in optimizer.param_groups]
        schedule = 0.0 if t == 0 else 1 / t
        assert rates == [scope * schedule for scope in scopes]
        run(optimizer, params, [t])
        run(constant, constant.param_groups[0]["params"], [t])
        assert [group["lr"] for group in optimizer.param_groups] == rates
        if spec.mechanism.measures:  # it heeds the schedule: a step that does not move teaches nothing
            assert optimizer.effective_lr == pytest.approx(optimizer.signals().pulse * schedule, rel=1e-12)
        else:
            assert optimizer.effective_lr == pytest.approx(constant.effective_lr * schedule, rel=1e-12)
            assert optimizer.signals().pulse == constant.signals().pulse
        assert optimizer.signals().lr == optimizer.effective_lr
        scheduler.step()
    assert [group["scope"] for group in optimizer.param_groups] == scopes


@every_row
def test_a_rate_of_zero_moves_nothing_but_the_emotion(spec):
    spec = replace(spec, geometry=None)  # Void rescales weights
    params = make_params()
    optimizer = EmoOptimizer(params, spec, **({"use_shadow": False} if "use_shadow" in spec.options else {}))
    before = values(params)
    optimizer.param_groups[0]["lr"] = 0.0
    run(optimizer, params, [0, 1])
    assert same(values(params), before)
    assert optimizer.signals().loss == LOSSES[1]


@every_row
def test_a_constant_schedule_is_no_schedule(spec):
    params = make_params()
    optimizer = build(spec, params)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    for t in STEPS:
        run(optimizer, params, [t])
        scheduler.step()
    assert same(values(params), trained(spec))


@pytest.mark.parametrize(
    ("name", "rate", "group", "said"),
    [
        ("emosens", 2e-5, None, "2e-05 means a step of about 2e-09"),
        ("emosens", 1.0, 2e-4, "0.0002 means a step of about 2e-08"),
        ("emosens", 0.01, None, ""),  # recommended for full fine-tunes
        ("emonavi", 2e-5, 2e-5, ""),  # a rate, not a multiplier
    ],
)
def test_a_rate_meant_for_adamw_is_said_once_wherever_it_comes_from(name, rate, group, said, caplog):
    params = make_params()
    own = {} if group is None else {"lr": group}
    optimizer = registry.build(name, [{"params": params[:1]}, {"params": params[1:2], **own}], lr=rate)
    optimizer.add_param_group({"params": params[2:], **own})
    assert len(caplog.messages) == bool(said)
    assert said in caplog.text
