"""Facts about the family that the documentation states, with their numbers. Named by what they show."""

import math
import random
import statistics

import pytest
import torch

from emo_hf import registry
from tests import golden_traces


def start(key, value=0.0, **options):
    """Returns a parameter of one number and an optimizer over it."""
    param = torch.nn.Parameter(torch.tensor([value], dtype=torch.float64))
    return param, registry.build(key, [param], **options)


def feed(key, losses, **options):
    """Returns the signals of every step and the optimizer."""
    param, optimizer = start(key, **options)
    param.grad = torch.zeros_like(param)
    signals = []
    for loss in losses:
        optimizer.step(loss=loss)
        signals.append(optimizer.signals())
    return signals, optimizer


def pulses(losses, branch="rounding"):
    """Returns the pulses of 3.9 at a multiplier of 1, from the mechanism alone."""
    mechanism = registry.find("emosens-3.9").mechanism.configure(branch=branch, stopcoef=0.04)
    state, found = mechanism.start(), []
    for loss in losses:
        mechanism.advance(state, loss)
        found.append(mechanism.rate(state, lr=1.0, scope=1.0).pulse)
    return found


def fold(a, b):
    """Returns the largest ratio between two sequences of pulses."""
    return max(max(x / y, y / x) for x, y in zip(a, b, strict=True))


def noisy_fall(seed):
    generator = random.Random(seed)
    return [0.3 + 2 * math.exp(-t / 60) + 0.25 * abs(generator.gauss(0, 1)) for t in range(240)]


def gradients(n, size=7):
    return list(torch.randn(n, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


# -- fact 1: without the loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["emosens-3.7", "emosens-3.8", "emonavi-3.6"])
def test_without_the_loss_sens_and_navi_are_adam_without_bias_correction(key):
    """The released code reads a loss that nobody gave as 0.0; a constant loss is the same. The difference is 0.0."""
    param = torch.nn.Parameter(torch.ones(7, dtype=torch.float64))
    optimizer = registry.build(key, [param], weight_decay=0.0, **({"lr": 1e-4} if key == "emonavi-3.6" else {}))
    p, m, v = (torch.full((7,), x, dtype=torch.float64) for x in (1.0, 0.0, 0.0))
    for grad in gradients(200):
        param.grad = grad
        optimizer.step(loss=0.0)
        m = m.mul(0.9).add(grad, alpha=1 - 0.9)
        v = v.mul(0.995).addcmul(grad, grad, value=1 - 0.995)
        p = p.add(m / v.sqrt().add(1e-8), alpha=-1e-4)
    assert torch.equal(param.detach(), p)


@pytest.mark.parametrize("key", ["emonavi-3.6", "emosens-3.7"])
def test_without_the_loss_the_stop_signal_is_a_step_counter(key):
    signals, _ = feed(key, [0.0] * 40)
    assert [s.ready for s in signals] == [0.0] * 31 + [1.0] * 9


# -- fact 2: given the pulse -----------------------------------------------------------------------------------------


def adam(m, v, g):
    m, v = 0.9 * m + 0.1 * g, 0.995 * v + 0.005 * g * g
    return m, v, m / (v.sqrt() + 1e-8)


def lion(m, v, g):
    return 0.995 * m + 0.005 * g, v, (0.9 * m + 0.1 * g).sign()


def sign(m, v, g):
    return m, v, g.sign()


DIRECTIONS = {
    "emosens-3.7": adam,
    "emosens-3.8": adam,
    "emosens-3.9": adam,
    "emocats-3.7": lion,
    "emocats-3.8": lion,
    "emocats-3.9": lion,
    "emoairy-3.7": sign,
    "emoairy-3.8": sign,
    "emoairy-3.9": sign,
}


@pytest.mark.parametrize("key", DIRECTIONS)
def test_given_the_pulse_sens_is_adam_cats_is_lion_and_airy_is_signsgd(key):
    param = torch.nn.Parameter(torch.ones(7, dtype=torch.float64))
    optimizer = registry.build(key, [param])
    p, m, v = (torch.full((7,), x, dtype=torch.float64) for x in (1.0, 0.0, 0.0))
    for grad, loss in zip(gradients(80), golden_traces.losses("spiky"), strict=False):
        param.grad = grad
        optimizer.step(loss=loss)
        pulse = optimizer.signals().pulse
        m, v, direction = DIRECTIONS[key](m, v, grad)
        p = p - 0.01 * pulse * p - pulse * direction
        torch.testing.assert_close(param.detach(), p, rtol=0, atol=1e-12)


# -- fact 3: no bias correction --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("betas", "first", "largest", "at"), [((0.9, 0.995), 1.41, 2.97, 12), ((0.9, 0.999), 3.16, 6.57, 12)]
)
def test_without_bias_correction_the_first_steps_are_large(betas, first, largest, at):
    """A constant gradient moves the weights by up to 3 or 6.5 times the learning rate; Adam by 1 times."""
    param, optimizer = start("emonavi-1.0", lr=1.0, betas=betas, weight_decay=0.0)
    sizes = []
    for _ in range(100):
        before = param.item()
        param.grad = torch.ones_like(param)
        optimizer.step(loss=1.0)
        sizes.append(before - param.item())
    assert sizes[0] == pytest.approx(first, abs=0.005)
    assert max(sizes) == pytest.approx(largest, abs=0.005)
    assert sizes.index(max(sizes)) + 1 == at


# -- fact 4: the rounding branch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", golden_traces.streams())
def test_a_loss_times_8_gives_identical_pulses(stream):
    losses = golden_traces.losses(stream)
    assert pulses([8 * loss for loss in losses]) == pulses(losses)


def test_a_loss_times_10_changes_the_pulses_more_than_30_fold():
    losses = golden_traces.losses("spiky")
    by_ten = [10 * loss for loss in losses]
    assert 30 < fold(pulses(losses), pulses(by_ten)) < 40
    assert fold(pulses(losses, branch="long"), pulses(by_ten, branch="long")) == pytest.approx(1, rel=1e-9)


def test_a_perturbation_of_1e_12_changes_a_later_pulse_by_a_median_factor_near_40():
    folds = {"rounding": [], "quieter": [], "long": []}
    for seed in range(40):
        generator = random.Random(seed)
        losses = noisy_fall(seed)
        other = [loss + 1e-12 * generator.uniform(-1, 1) for loss in losses]
        for branch, found in folds.items():
            found.append(fold(pulses(losses, branch=branch), pulses(other, branch=branch)))
    assert 25 < statistics.median(folds["rounding"]) < 60
    assert max(folds["long"]) < 1 + 1e-6


def test_about_8_percent_of_steps_take_the_medium_average():
    choices = []
    for seed in range(40):
        generator = random.Random(seed)
        signals, _ = feed("emosens-3.9", [1 + 0.5 * generator.gauss(0, 1) ** 2 for _ in range(200)])
        choices += [s.scalar != math.tanh(s.ema_gap) for s in signals]
    assert 0.07 < statistics.mean(choices) < 0.10


# -- facts 5 and 6: the brake and the cap ----------------------------------------------------------------------------


@pytest.mark.parametrize(("spike", "times"), [(2.9, 0.5), (3.0, 26), (3.2, 9.4)])
def test_the_brake_can_raise_the_pulse(spike, times):
    """150 calm steps at a loss of 1, then a single spike; the pulse of 3.9 stays up afterwards."""
    found = pulses([1.0] * 150 + [spike] + [1.0] * 20)
    calm = found[149]
    assert found[150] / calm == pytest.approx(times, rel=0.02)
    if times > 1:
        assert found[-1] / calm > 20
    else:
        assert found[-1] / calm == pytest.approx(1, abs=0.1)


def test_a_plain_fall_to_half_the_loss_reaches_the_cap_in_6_steps():
    signals, _ = feed("emosens-3.9", [1.0] * 100 + [0.5] * 10)
    assert [s.at_ceiling for s in signals] == [0.0] * 105 + [1.0] * 5
    assert signals[105].pulse == 3e-3


# -- fact 7: the scale of the loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["emosens-2.0", "emonavi-3.0"])
def test_2_0_and_3_0_depend_on_the_scale_of_the_loss(key):
    """A fall of 0.4 between the averages leaves less than 4 % of the learning rate; 3.1 does not see the scale."""
    fall = [2.0, 2.0 - 0.4 / 0.29]
    last = feed(key, fall)[0][-1]
    assert last.ema_long - last.ema_short == pytest.approx(0.4)
    assert last.factor == pytest.approx(1 - math.tanh(2))
    assert last.factor < 0.04
    assert feed(key, [loss / 100 for loss in fall])[0][-1].factor > 0.97
    relative = [feed("emonavi-3.1", [scale * loss for loss in fall])[0][-1].scalar for scale in (1, 0.01)]
    assert relative[0] == pytest.approx(relative[1], rel=1e-12)


def test_adding_a_constant_to_the_loss_flattens_the_pulse():
    losses = golden_traces.losses("calm")
    plain, shifted = pulses(losses), pulses([loss + 10 for loss in losses])
    assert max(plain) == 3e-3
    assert 0.99e-4 < min(shifted) < max(shifted) < 1.5e-4


# -- fact 8: the emotional filter ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "bound"), [("emosens-2.0", 1e-12), ("emocats-2.0", 1e-12), ("emoairy-2.0", 1e-6)])
def test_the_emotional_filter_closes_only_for_tiny_gradients(key, bound):
    """Below about 1e-12; in vectors of EmoAiry, which looks at the square, below about 1e-6."""
    param = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = registry.build(key, [param])
    param.grad = bound * torch.tensor([0.9, -0.9, 1.1, -1.1], dtype=torch.float64)
    optimizer.step(loss=1.0)
    assert param.ne(0).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("key", "moves"), [("emonavi-1.0", True), ("emosens-2.0", False), ("emolynx-1.0", True), ("emocats-2.0", False)]
)
def test_the_emotional_filter_holds_what_momentum_would_move(key, moves):
    param = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = registry.build(key, [param], weight_decay=0.0)
    param.grad = torch.ones_like(param)
    optimizer.step(loss=1.0)
    before = param.detach().clone()
    param.grad = torch.tensor([0.0, 1.0], dtype=torch.float64)
    optimizer.step(loss=1.0)
    assert param.ne(before).tolist() == [moves, True]


def test_the_emotional_filter_of_airys_matrices_is_always_open():
    param = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    optimizer = registry.build("emoairy-2.0", [param])
    param.grad = torch.full_like(param, 1e-30)
    optimizer.step(loss=1.0)
    assert param.ne(0).all()


# -- fact 9: memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version", "ratio"),
    [
        *(("emosens", "3.9", 2), ("emonavi", "3.6", 2), ("emocats", "3.9", 1), ("emolynx", "3.6", 1)),
        *(("emotion", "3.9", 1), ("emofact", "3.1", 2 / 768), ("emofact", "3.6", 0), ("emoairy", "3.9", 0)),
        ("emovoid", "3.9", 0),
    ],
)
def test_state_bytes_per_parameter_byte(name, version, ratio):
    spec = registry.find(name, version)
    assert spec.state_ratio == pytest.approx(ratio)
    param = torch.nn.Parameter(torch.ones(768, 768))
    optimizer = registry.build(spec.key, [param])
    param.grad = torch.ones_like(param)
    optimizer.step(loss=1.0)
    assert sum(t.numel() for t in optimizer.state[param].values()) / param.numel() == spec.state_ratio


def test_lynx_is_not_as_light_as_fact_but_sens_cats_airy_is_the_order():
    size = {spec.key: spec.state_ratio for spec in registry.specs()}
    assert all(size[f"emolynx-{v}"] > 100 * size[f"emofact-{v}"] for v in ("1.0", "2.0", "3.0", "3.1", "3.6"))
    assert all(size[f"emosens-{v}"] > size[f"emocats-{v}"] > size[f"emoairy-{v}"] for v in ("3.7", "3.8", "3.9"))
