"""Signals agree with the released code to every recorded digit, and the replay enters every branch."""

import pytest
import torch

from emo_hf import registry
from tests import branch_counter, golden_traces
from tests.optimizer_contract import released

pytestmark = pytest.mark.filterwarnings("ignore:.*shrinks the weights:UserWarning")  # 3.1 with shadow
NAMES = {  # recorded name: our signal
    "ema_short": "ema_short",
    "ema_medium": "ema_medium",
    "ema_long": "ema_long",
    "scalar": "scalar",
    "noise_est": "noise",
    "d_est": "distance",
    "dNR_hist": "snr",
    "c_est": "drift",
    "pulse": "pulse",
    "should_stop": "ready",
}


def digits(value: float) -> float:
    """As recorded: 13 significant digits."""
    return float(f"{value:.13g}")


def inner_coefficient(scalar: float) -> float:
    """What 3.6 and 3.7.0 call coeff: an intermediate of emoDrive, which uses it above |scalar| = 0.75 only."""
    return 1.0 - abs(scalar) if abs(scalar) > 0.25 else 1.0


def feed(built_by, key: str, losses: list[float], **options):
    """Yields the optimizer after each loss; a scalar parameter takes the steps."""
    param = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    param.grad = torch.ones_like(param)
    optimizer = built_by.build(key, [param], **options)
    for loss in losses:
        optimizer.step(loss=loss)
        yield optimizer


def with_shadow(spec) -> dict:
    return {} if spec.shadow.always else {"use_shadow": True}


def recorded_signals(spec) -> dict:
    return golden_traces.load(f"signals/mechanism-{'2.0' if spec.version == '3.0' else spec.version}")["signals"]


def test_all_generations_are_recorded():
    recorded = {name.removeprefix("mechanism-") for name in golden_traces.names("signals")}
    assert len(recorded) == 8
    assert recorded | {"3.0"} == {spec.version for spec in registry.SPECS}
    assert golden_traces.load("signals/mechanism-2.0")["same_as"] == ["3.0"]


@released
def test_signals_are_those_of_the_released_code(spec):
    special = {
        "coeff": lambda spec, signals: signals.factor if spec.version == "3.1" else inner_coefficient(signals.scalar),
        "shadow_ratio": lambda spec, signals: spec.shadow.mix(signals.scalar),
    }
    assert list(recorded_signals(spec)) == golden_traces.streams()
    for stream, recorded in recorded_signals(spec).items():
        assert set(recorded) <= set(NAMES) | set(special)
        ours = {name: [] for name in recorded}
        for optimizer in feed(registry, spec.key, golden_traces.losses(stream), **with_shadow(spec)):
            signals = optimizer.signals()
            for name, values in ours.items():
                value = special[name](spec, signals) if name in special else getattr(signals, NAMES[name])
                values.append(digits(value))
        for name, values in ours.items():
            assert values == recorded[name], (stream, name)


@pytest.mark.parametrize("key", ["emonavi-3.6", "emosens-3.7.0"])
@pytest.mark.parametrize(
    ("scalar", "factor"),
    [
        *((0.26, 6.36), (0.30, 5.99), (0.35, 5.54), (0.40, 5.09), (0.45, 4.64), (0.49, 4.29), (-0.26, 5.48)),
        *((-0.30, 5.21), (0.25, 1.0), (0.5, 1.0), (0.75, 1.0), (-0.8, 0.2), (1.0, 0.0)),
    ],
)
def test_emodrive_has_the_published_values(key, scalar, factor):
    assert round(registry.find(key).mechanism.damper(scalar), 2) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("scalar", "factor"),
    [(0.125, 1.0), (-0.125, 1.0), (0.13, 1.13), (-0.13, 0.87), (0.625, 1.625), (-0.625, 0.375), (0.63, 0.37)],
)
def test_the_zones_of_3_1(scalar, factor):
    assert registry.find("emonavi-3.1").mechanism.damper(scalar) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("scalar", "outcome"),
    [*((s, "grow") for s in (0.49, 0.5)), *((s, "brake") for s in (0.51, 1.0, -0.5, -0.51, -1.0)), (-0.49, "hold")],
)
def test_the_ratchet_grows_brakes_or_holds_at_its_thresholds(scalar, outcome):
    """From a held ratio of 1: it grows where trust >= 0.5, brakes where |trust| <= 0.5, and holds below -0.5."""
    pulse = registry.find("emosens-3.9").mechanism.pulse
    state = pulse.start()
    pulse.advance(state, scalar)
    assert state.now != 1.0
    assert state.snr == {"grow": 1.5, "brake": 0.8 * state.now, "hold": 1.0}[outcome]


# -- every branch is entered -----------------------------------------------------------------------------------------

TINY = [1e-6, 1e-7, 1e-7]
SURGE = [2.0**i for i in range(140)]  # powers of 2, so that every step rounds the same way
# What no recorded stream reaches: (optimizer, options, losses) and the branches that enter nothing else
BY_HAND = {
    "losses below the bound of what divides": ("emosens-3.9", {}, TINY),
    "the bound, branch='quieter'": ("emosens-3.9", {"branch": "quieter"}, TINY),
    "a fall and a rise, branch='quieter'": ("emosens-3.9", {"branch": "quieter"}, [1.0, 0.1, 0.1, 5.0, 5.0]),
    "calm on average, but with one outlier": ("emonavi-3.0", {}, [1.0] * 20 + [1.25] + [1.0] * 11),
    "3.7.0: a loss that never stops surging": ("emosens-3.7.0", {}, SURGE),
    "3.7.0: a small multiplier": ("emosens-3.7.0", {"lr": 0.01}, [1.0] * 10),
    "3.8: fftmode": ("emosens-3.8", {"fftmode": True}, [1.0]),
    "a held pulse": ("emosens-3.9", {"hold_pulse": True}, [1.0]),
    "3.9: a multiplier so small that the least pulse holds": ("emosens-3.9", {"lr": 1e-6}, [1.0]),
    "Void: a stop signal that rises late": ("emovoid-3.9", {}, [0.06] * 60 + [0.03] * 25),
}
# Sharded, large or strided tensors, and none at all: see hf/test_fsdp.py, test_kernels.py and test_optimizer.py;
# tensors that join late: test_free.py
PLUMBING = (
    "geometry.to_float",
    "geometry._pieces",
    "geometry._sum_of_abs",
    "updates._mean",
    "updates.as_if_always",
    "updates._mean_of_columns",
)
UNREACHABLE = {
    # drift averages scalars, which are at least -1, so 100 ** drift is at least 0.01; the clamp is the released code's
    (("pulse.Pulse.size", "max(100.0 ** s.drift, 0.01)"), 1),
}


@pytest.fixture
def counted(monkeypatch):
    return branch_counter.instrumented(monkeypatch)


def look_at(optimizer):
    """Asks for all that a mechanism tells."""
    optimizer.signals()
    _ = optimizer.bounds


def test_every_branch_of_every_mechanism_is_entered(counted):
    counting, hits = counted
    generations = {(spec.mechanism, spec.shadow.mix): spec for spec in counting.SPECS}
    for spec in generations.values():
        for stream in golden_traces.streams():
            for optimizer in feed(counting, spec.key, golden_traces.losses(stream), **with_shadow(spec)):
                look_at(optimizer)
    for spec in counting.SPECS:
        for run in golden_traces.load(f"updates/{spec.key}")["runs"]:
            params = golden_traces.parameters(run)
            optimizer = counting.build(spec.key, params.values(), **golden_traces.options(spec, run))
            assert [*golden_traces.replay(optimizer, params, run["losses"])] == list(golden_traces.CHECKPOINTS)
    only_by_hand = hits.missed()
    assert len(only_by_hand) < 0.2 * len(hits.counts)
    for name, (key, options, losses) in BY_HAND.items():
        before = hits.missed()
        for optimizer in feed(counting, key, losses, **options):
            look_at(optimizer)
        assert hits.missed() < before, f"{name}: reaches nothing new"
    assert {(branch, outcome) for branch, outcome in hits.missed() if branch[0] not in PLUMBING} == UNREACHABLE


def test_the_counter_notices_a_branch_that_is_not_entered(counted):
    counting, hits = counted
    for optimizer in feed(counting, "emosens-3.9", [1.0, 1.0]):
        optimizer.signals()
    settled = ("emotion.relative_rounding", "abs(by_long) < 0.05")
    assert hits.counts[settled, True] == 2
    assert (settled, False) in hits.missed()
