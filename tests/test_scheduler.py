"""`EmoPulse` over optimizers of torch and one of our own: the 3.9 pulse, whatever it drives."""

import copy
import io
import math
import pickle
import random

import pytest
import torch

from emo_hf import EmoPulse, registry
from emo_hf.errors import CheckpointError, MissingLossError, NonFiniteLossError, OptionError
from emo_hf.scheduler import KEY


class Minimal(torch.optim.Optimizer):
    """All that an optimizer must have."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for param in group["params"]:
                param -= group["lr"] * param.grad


class Wrapper(torch.optim.Optimizer):
    """Like those of accelerate and DeepSpeed: not initialized as an Optimizer, shares the groups of the inner one."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)

    def step(self):
        self.optimizer.step()


KINDS = {"SGD": torch.optim.SGD, "AdamW": torch.optim.AdamW, "of our own": Minimal}
if hasattr(torch.optim, "Muon"):  # since torch 2.9
    KINDS["Muon"] = torch.optim.Muon
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def make_losses(n=120):
    """A fall with noise, a spike and a rise: every regime of the pulse."""
    noise = random.Random(0)
    losses = [2.0 * math.exp(-i / 30) + 0.3 + 0.05 * noise.random() for i in range(n)]
    losses[n // 3] *= 8
    return [*losses[: -n // 4], *(loss + 0.1 * i for i, loss in enumerate(losses[-n // 4 :]))]


LOSSES = make_losses()


def make_param():
    param = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
    param.grad = torch.linspace(1, 2, 12).reshape(3, 4)
    return param


def make(kind=torch.optim.SGD, lr=1e-4, **options):
    optimizer = kind([make_param()], lr=lr)
    return optimizer, EmoPulse(optimizer, **options)


def drive(optimizer, scheduler, losses, start=0):
    """Returns the rate that each step used; the gradient is a function of the step's number."""
    rates = []
    for i, loss in enumerate(losses, start):
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad = torch.cos(torch.arange(param.numel()) + i).reshape(param.shape)
        scheduler.observe(loss)
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def pulses(losses, **options):
    """The step sizes of a 3.9 optimizer at lr=1.0."""
    optimizer, found = registry.build("emosens-3.9", [make_param()], **options), []
    for loss in losses:
        optimizer.step(loss=loss)
        found.append(optimizer.effective_lr)
    return found


# -- the rate ---------------------------------------------------------------------------------------------------------


@every_kind
def test_rates_are_the_pulse_of_3_9(kind):
    optimizer, scheduler = make(kind)
    assert optimizer.param_groups[0]["lr"] == 1e-4
    rates = drive(optimizer, scheduler, LOSSES)
    assert rates == pytest.approx(pulses(LOSSES), rel=1e-14, abs=0)
    assert max(rates) > 3 * min(rates)
    assert scheduler.get_last_lr() == rates[-1:]


def test_loss_of_a_step_sets_the_rate_of_the_same_step():
    optimizer, scheduler = make()
    param = optimizer.param_groups[0]["params"][0]
    for loss in LOSSES[:5]:
        before = param.detach().clone()
        param.grad = torch.ones_like(param)
        scheduler.observe(torch.tensor(loss, dtype=torch.float64))
        optimizer.step()
        assert torch.equal(param, before - scheduler.factor * 1e-4)
        assert scheduler.signals().loss == loss


@pytest.mark.parametrize("branch", ["quieter", "long"])
def test_branch(branch):
    assert drive(*make(branch=branch), LOSSES) == pytest.approx(pulses(LOSSES, branch=branch), rel=1e-14, abs=0)
    assert drive(*make(branch=branch), LOSSES) != drive(*make(), LOSSES)


def test_each_group_keeps_its_own_base_rate():
    optimizer = torch.optim.AdamW([{"params": [make_param()], "lr": 3e-3}, {"params": [make_param()]}], lr=1e-4)
    scheduler = EmoPulse(optimizer)
    for loss in LOSSES:
        drive(optimizer, scheduler, [loss])
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == [3e-3 * scheduler.factor, 1e-4 * scheduler.factor] == scheduler.get_last_lr()
    assert scheduler.factor != 1.0


def test_warmup_rises_linearly_and_multiplies_the_pulse():
    optimizer, scheduler = make(warmup_steps=4)
    assert optimizer.param_groups[0]["lr"] == 1e-4 / 4
    warm, plain = drive(optimizer, scheduler, LOSSES[:8]), drive(*make(), LOSSES[:8])
    assert [w / p for w, p in zip(warm, plain, strict=True)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    signals = scheduler.signals()
    assert (signals.lr, signals.pulse) == pytest.approx((plain[-1], plain[-1]))


def test_factor_stays_within_its_bounds():
    optimizer, scheduler = make(lr=1.0)
    noise = random.Random(1)
    losses = [10 ** noise.uniform(-12, 12) for _ in range(400)]
    losses += [10.0 ** (40 - i / 4) for i in range(300)] + [10.0**i for i in range(-30, 30)]
    rates = drive(optimizer, scheduler, losses)
    assert 1e-4 * (1 - 1e-14) <= min(rates) < 1e-2
    assert 3 < max(rates) <= 30 * (1 + 1e-14)


def test_how_often_step_is_called_does_not_matter():
    optimizer, scheduler = make()
    param = optimizer.param_groups[0]["params"][0]
    for i, loss in enumerate(LOSSES):  # several processes, or none at all
        param.grad = torch.cos(torch.arange(12) + i).reshape(3, 4)
        scheduler.observe(loss)
        optimizer.step()
        for _ in range(i % 3):
            scheduler.step()
    other, reference = make()
    rates = drive(other, reference, LOSSES)
    assert optimizer.param_groups[0]["lr"] == rates[-1]
    assert torch.equal(param, other.param_groups[0]["params"][0])


def test_stopcoef_reaches_the_stop_law():
    losses = [0.5 + 1e-4 * math.cos(i) for i in range(300)]
    near, far = make(stopcoef=0.6)[::-1], make()[::-1]
    for scheduler, optimizer in (near, far):
        drive(optimizer, scheduler, losses)
    assert near[0].should_stop
    assert not far[0].should_stop


def test_tensor_rate_is_filled_in_place():
    rate = torch.tensor(1e-3)
    optimizer = torch.optim.AdamW([make_param()], lr=rate, capturable=False, foreach=False)
    scheduler = EmoPulse(optimizer)
    drive(optimizer, scheduler, LOSSES[:10])
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(1e-3 * scheduler.factor)
    assert all(type(lr) is float for lr in scheduler.state_dict()["_last_lr"] + scheduler.state_dict()["base_lrs"])


# -- the loss ---------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("options", [{}, {"warmup_steps": 5}])
def test_missing_loss_is_an_error(kind, options):
    optimizer, scheduler = make(kind, **options)
    param = optimizer.param_groups[0]["params"][0]
    before = param.detach().clone()
    for losses in ([], LOSSES[:1]):  # at the first step, and later
        drive(optimizer, scheduler, losses)
        before = param.detach().clone()
        with pytest.raises(MissingLossError, match=r"(?s)EmoTrainer.*attach.*EmotionCallback.*scheduler.observe"):
            optimizer.step()
        assert torch.equal(param, before)


def test_probe_with_every_rate_at_zero_creates_state_only():
    optimizer, scheduler = make(torch.optim.AdamW)
    group = optimizer.param_groups[0]
    state, group["lr"] = scheduler.state_dict(), 0.0
    optimizer.step()
    assert optimizer.state
    assert repr(scheduler.state_dict()) == repr(state)  # it holds NaNs
    assert scheduler.signals() is None


def test_distributed_checkpoint_can_ask_for_the_state():
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    EmoPulse(optimizer)
    assert get_optimizer_state_dict(model, optimizer)["state"]
    assert optimizer.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_nonfinite_loss_raises_and_changes_nothing(loss):
    optimizer, scheduler = make(torch.optim.AdamW)
    drive(optimizer, scheduler, LOSSES[:5])
    before = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict(), optimizer.param_groups[0]["params"]))
    scheduler.observe(torch.tensor(loss))
    optimizer.param_groups[0]["params"][0].grad.fill_(loss)
    with pytest.raises(NonFiniteLossError, match="EmoPulse got a loss of"):
        optimizer.step()
    after = (optimizer.state_dict(), scheduler.state_dict(), optimizer.param_groups[0]["params"])
    assert repr(after) == repr(before)
    assert scheduler.signals().loss == LOSSES[4]


def test_a_loss_of_a_batch_without_labels_does_not_count(caplog):
    optimizer, scheduler = make(torch.optim.AdamW)
    drive(optimizer, scheduler, LOSSES[:5])
    before, rate = scheduler.state_dict()["emo"], optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["params"][0].grad.zero_()
    for _ in range(2):
        scheduler.observe(math.nan)
        optimizer.step()
    after = scheduler.state_dict()["emo"]
    assert [one - other for one, other in zip(after, before, strict=True) if one != other] == [2]
    assert optimizer.param_groups[0]["lr"] == rate
    (line,) = caplog.messages
    assert line.startswith("emopulse-3.9: the loss of step 6 is not finite")


@pytest.mark.parametrize("fused", [False, True])
def test_step_skipped_by_a_grad_scaler_advances_nothing(fused):
    param = make_param()
    optimizer = torch.optim.AdamW([param], lr=1e-3, fused=fused)
    scheduler, scaler = EmoPulse(optimizer), torch.amp.GradScaler("cpu", init_scale=2.0)
    losses = iter(LOSSES)
    for overflow in (True, False, True, False):
        before, state = param.detach().clone(), repr(scheduler.state_dict()["emo"])
        loss = next(losses)
        optimizer.zero_grad()
        scaler.scale(param.sum() * 3).backward()
        if overflow:
            param.grad[0, 0] = math.inf
        scheduler.observe(loss)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        assert torch.equal(param, before) is overflow
        assert (repr(scheduler.state_dict()["emo"]) == state) is overflow
    assert scheduler.get_last_lr() == pytest.approx([10 * p for p in pulses([LOSSES[1], LOSSES[3]])[-1:]])


# -- what it is put on ------------------------------------------------------------------------------------------------


def test_emo_optimizer_is_refused():
    optimizer = registry.build("emosens", [make_param()])
    for given in (optimizer, Wrapper(optimizer)):
        with pytest.raises(OptionError, match=r"emosens-3\.9.*constant"):
            EmoPulse(given)


@pytest.mark.parametrize("options", [{"branch": "quiter"}, {"warmup_steps": -1}, {"stopcoef": math.nan}])
def test_bad_option(options):
    with pytest.raises(OptionError, match=r"rounding, quieter, long"):
        make(**options)


def test_wrapped_optimizer_is_driven():
    inner = torch.optim.SGD([make_param()], lr=1e-4)
    outer = Wrapper(inner)
    assert drive(outer, EmoPulse(outer), LOSSES[:20]) == pytest.approx(pulses(LOSSES[:20]), rel=1e-14, abs=0)


def test_newest_scheduler_of_an_optimizer_drives_it():
    optimizer, old = make()
    drive(optimizer, old, LOSSES[:7])
    new = EmoPulse(optimizer)  # as Trainer does at every train()
    assert drive(optimizer, new, LOSSES) == pytest.approx(pulses(LOSSES), rel=1e-14, abs=0)
    assert old.signals().loss == LOSSES[6]


def test_groups_that_step_one_after_the_other_share_a_loss():
    """DeepSpeed ZeRO shows the optimizer one parameter group at a time."""
    groups = [{"params": [make_param()], "lr": lr} for lr in (1e-4, 2e-4)]
    optimizer = Minimal(groups, lr=1.0)
    scheduler, groups = EmoPulse(optimizer), optimizer.param_groups

    def step_each():
        for group in groups:
            optimizer.param_groups = [group]
            optimizer.step()
        optimizer.param_groups = groups

    for loss, pulse in zip(LOSSES[:5], pulses(LOSSES[:5]), strict=True):
        scheduler.observe(loss)
        step_each()
        assert [group["lr"] for group in groups] == pytest.approx([pulse, 2 * pulse], rel=1e-14)
    with pytest.raises(MissingLossError):
        step_each()


# -- state ------------------------------------------------------------------------------------------------------------


def save_and_load(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@every_kind
@pytest.mark.parametrize("options", [{}, {"warmup_steps": 15, "branch": "quieter"}])
def test_resume_is_bit_exact(kind, options):
    straight = make(kind, **options)
    rates = drive(*straight, LOSSES[20:40])
    first = make(kind, **options)
    halves = drive(*first, LOSSES[20:30])
    saved = save_and_load([part.state_dict() for part in first])
    weights = first[0].param_groups[0]["params"][0].detach()

    second = make(kind, lr=0.5, **options)  # the saved base rate counts
    with torch.no_grad():
        second[0].param_groups[0]["params"][0].copy_(weights)
    second[0].load_state_dict(saved[0])
    second[1].load_state_dict(saved[1])
    assert second[1].signals() is None
    assert second[1].get_last_lr() == halves[-1:]
    halves += drive(*second, LOSSES[30:40], start=10)

    assert halves == rates
    assert torch.equal(*(pair[0].param_groups[0]["params"][0] for pair in (straight, second)))
    assert second[1].state_dict() == straight[1].state_dict()
    assert second[1].signals() == straight[1].signals()


def test_load_does_not_change_its_argument():
    optimizer, scheduler = make()
    drive(optimizer, scheduler, LOSSES[:5])
    state = scheduler.state_dict()
    kept = copy.deepcopy(state)
    other, loaded = make(lr=0.5)
    loaded.load_state_dict(state)
    drive(other, loaded, LOSSES)
    drive(optimizer, scheduler, LOSSES)
    assert state == kept


def test_load_drops_what_belongs_to_the_step_before():
    optimizer, scheduler = make()
    drive(optimizer, scheduler, LOSSES[:5])
    scheduler.observe(1.0)
    scheduler.load_state_dict(scheduler.state_dict())
    assert scheduler.signals() is None
    with pytest.raises(MissingLossError):
        optimizer.step()


def foreign_states():
    linear = torch.optim.lr_scheduler.LinearLR(torch.optim.SGD([make_param()], lr=1.0))
    mine = make()[1].state_dict()
    yield "another scheduler", linear.state_dict(), "of another scheduler.*" + KEY
    yield "an empty dict", {}, "of another scheduler"
    yield "another version", {**mine, "scheduler": "emopulse-2.0"}, r"of emopulse-2\.0"
    yield "a name only", {"scheduler": KEY}, "of emopulse-3.9"
    two = {**mine, "base_lrs": [1e-4, 1e-4], "_last_lr": [1e-4, 1e-4]}
    yield "other groups", two, "base_lrs: of 2 parameter groups, expected 1; _last_lr: of 2"
    for state in ([], None, "text"):
        yield f"{state!r}", state, "of another scheduler"
    emo = mine["emo"]
    for what, value in {
        "in words": "calm",
        "nothing": None,
        "too short": emo[:9],
        "too long": (*emo, 0.0),
        "nan": (*emo[:3], math.nan, *emo[4:]),
        "a word in it": ("x", *emo[1:]),
        "an infinite ratio": (*emo[:5], math.inf, *emo[6:]),
        "drift above 1": (*emo[:8], 400.0, *emo[9:]),
    }.items():
        yield f"emo: {what}", {**mine, "emo": value}, "does not fit emopulse-3.9, and nothing was loaded: emo: "
    for name in ("base_lrs", "_last_lr"):
        for value in (None, 1e-4, "1e-4", [None], [math.nan], [-1.0], ["1"], [True]):
            yield f"{name}: {value!r}", {**mine, name: value}, f"{name}: got .*, expected a list of rates >= 0"
    for name in ("last_epoch", "_step_count"):
        for value in (None, 1.5, -1, "1"):
            yield f"{name}: {value!r}", {**mine, name: value}, f"{name}: got .*, expected a count"


@pytest.mark.parametrize(("state", "message"), [pytest.param(*case[1:], id=case[0]) for case in foreign_states()])
def test_foreign_state_is_refused_and_changes_nothing(state, message):
    optimizer, scheduler = make()
    drive(optimizer, scheduler, LOSSES[:3])
    before = scheduler.state_dict()
    with pytest.raises(CheckpointError, match=message):
        scheduler.load_state_dict(state)
    assert scheduler.state_dict() == before


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_live_on_their_own(duplicate):
    """Hooks are not copied with an optimizer, so the copy of the scheduler has to put its own on it."""
    optimizer, scheduler = make(torch.optim.AdamW)
    drive(optimizer, scheduler, LOSSES[:10])
    copied_optimizer, copied = duplicate((optimizer, scheduler))
    assert copied.optimizer is copied_optimizer
    state = scheduler.state_dict()
    rates = drive(copied_optimizer, copied, LOSSES[10:30])
    assert scheduler.state_dict() == state
    assert rates == drive(optimizer, scheduler, LOSSES[10:30])
    with pytest.raises(MissingLossError):
        copied_optimizer.step()


def test_first_step_warns_of_nothing():
    """torch's schedulers complain when the first optimizer step is skipped or wrapped; warnings are errors here."""
    optimizer, scheduler = make()
    optimizer.step = optimizer.step.__get__(optimizer)
    scheduler.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 1e-4
