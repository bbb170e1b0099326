"""What holds for any losses."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emo_hf import registry
from emo_hf.emotion import trust
from emo_hf.mechanism import MechanismState

MECHANISMS = list({spec.mechanism: spec for spec in registry.SPECS}.values())
every_mechanism = pytest.mark.parametrize("spec", MECHANISMS, ids=lambda spec: spec.key)
any_loss = st.floats(-1e6, 1e6) | st.floats(0, 10) | st.sampled_from([0.0, 1e-9, 1e30])
losses = st.lists(any_loss, min_size=1, max_size=60)
branches = st.sampled_from(["rounding", "quieter", "long"])
scopes = st.floats(1e-6, 100)


def run(spec, losses, branch="rounding", fftmode=False):
    """Yields the mechanism and its state after each loss."""
    options = {"branch": branch if spec.mechanism.branch else None, "fftmode": fftmode and "fftmode" in spec.options}
    mechanism = spec.mechanism.configure(stopcoef=spec.options.get("stopcoef"), **options)
    state = mechanism.start()
    for loss in losses:
        mechanism.advance(state, loss)
        yield mechanism, state


@every_mechanism
@given(losses=losses, branch=branches)
def test_scalar_trust_and_averages_stay_in_their_ranges(spec, losses, branch):
    for _, state in run(spec, losses, branch):
        assert -1 <= state.scalar <= 1
        assert -1 <= trust(state.scalar) <= 1
        assert abs(trust(state.scalar)) == 1 - abs(state.scalar)
        margin = 1e-9 * max(map(abs, losses))
        for average in (state.averages.short, state.averages.medium, state.averages.long):
            assert min(losses) - margin <= average <= max(losses) + margin


@every_mechanism
@given(losses=losses, branch=branches, scope=scopes, schedule=st.floats(0, 1), fftmode=st.booleans())
def test_the_step_size_stays_in_its_range(spec, losses, branch, scope, schedule, fftmode):
    for mechanism, state in run(spec, losses, branch, fftmode):
        rate = mechanism.rate(state, lr=scope * schedule, scope=scope)
        factor = mechanism.factor(state)
        assert 0 <= (1.0 if factor is None else factor) < 6.5
        if mechanism.pulse is None:
            assert rate == (scope * schedule * factor, scope * schedule, None, None, None)
            continue
        _, cap, least = mechanism.pulse.size(state.pulse, scope)
        assert least <= rate.pulse <= max(cap, least)
        assert rate.at_ceiling == float(rate.pulse >= cap)
        assert rate.at_floor == float(rate.pulse <= least)
        assert rate.decay == rate.pulse * (scope * schedule / scope)


@every_mechanism
@given(loss=st.floats(1e-6, 1e6), steps=st.integers(1, 80))
def test_a_constant_loss_is_no_emotion_and_ready_after_32_steps(spec, loss, steps):
    for mechanism, state in run(spec, [loss] * steps):
        assert state.scalar == pytest.approx(0, abs=1e-8)
        if mechanism.factor(state) is not None:
            assert mechanism.factor(state) == pytest.approx(1)
    if spec.version == "3.9":  # needs a small loss, too
        margins = mechanism.margins(state)
        assert margins[1] == pytest.approx(0.04 - max(loss, 1e-5))
        assert state.ready == float(min(margins) >= 0)
    elif spec.version == "3.8":
        assert state.ready == 0  # noise and distance are still far apart
    else:
        assert state.ready == float(steps >= 32)


@every_mechanism
@given(losses=losses)
def test_a_packed_state_is_plain_floats_and_comes_back(spec, losses):
    *_, (_, state) = run(spec, losses)
    packed = state.pack()
    assert all(type(value) is float for value in packed)
    assert MechanismState.unpack(packed) == state
    assert MechanismState.unpack(packed).pack() == packed


@every_mechanism
def test_a_state_before_the_first_loss_comes_back(spec):
    packed = spec.mechanism.start().pack()
    assert len(packed) == 46  # as long as one with a full history
    again = MechanismState.unpack(packed).pack()
    assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(packed, again, strict=True))


@every_mechanism
@given(losses=losses, cut=st.integers(0, 60))
def test_a_state_packed_midway_continues_the_same(spec, losses, cut):
    *_, (mechanism, whole) = run(spec, losses)
    part = mechanism.start()
    for i, loss in enumerate(losses):
        if i == cut:
            part = MechanismState.unpack(part.pack())
        mechanism.advance(part, loss)
    assert part.pack() == whole.pack()
