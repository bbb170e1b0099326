"""Options: what each one changes, in the versions that have it, and how specs and classes are found."""

import math
import random
import warnings
from collections import Counter

import pytest
import torch

import emo_hf
from emo_hf import registry
from emo_hf.emotion import BRANCHED, Averages
from emo_hf.errors import OptionError, UnknownOptimizerError
from tests import golden_traces
from tests.optimizer_contract import (
    LOSSES,
    build,
    every_row,
    give_gradients,
    make_params,
    released,
    run,
    same,
    without_3_1_warning,
)

FALL_AND_RISE = [1.0, 0.5, 0.5, 0.5, 3.0, 3.0, 3.0, 0.2, 0.2]
HAVING_BRANCH = [spec for spec in registry.specs() if spec.mechanism.branch]


def signals_of(key, losses, **options):
    params = make_params([(2, 2)])
    optimizer = registry.build(key, params, **options)
    params[0].grad = torch.ones_like(params[0])
    found = []
    for loss in losses:
        optimizer.step(loss=loss)
        found.append(optimizer.signals())
    return found


def moved(spec, **options):
    params = make_params()
    run(build(spec, params, **options), params, range(len(LOSSES)))
    return [param.detach() for param in params]


# -- branch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", HAVING_BRANCH, ids=lambda spec: spec.key)
def test_branch_picks_who_decides_between_the_averages(spec):
    assert spec.version in ("3.6", "3.7.0", "3.7", "3.8", "3.9")
    for branch in ("quieter", "long", "rounding"):
        for s in signals_of(spec.key, FALL_AND_RISE, branch=branch):
            by_long = (s.ema_long - s.ema_short) / max(s.ema_long, 1e-5)
            by_medium = (s.ema_long - s.ema_short) / max(s.ema_medium, 1e-5)
            quieter = by_long if abs(by_long) < 0.05 else min(by_long, by_medium, key=abs)
            either = (math.tanh(by_long), math.tanh(by_medium))
            expected = {"long": either[:1], "quieter": (math.tanh(quieter),), "rounding": either}[branch]
            assert s.scalar in expected


def test_the_three_branches_differ():
    losses = golden_traces.losses("spiky")[::-1]  # backwards: rising
    choices = ({"branch": "rounding"}, {"branch": "quieter"}, {"branch": "long"}, {})
    rounding, quieter, long, default = ([s.scalar for s in signals_of("emosens", losses, **c)] for c in choices)
    assert rounding == default
    assert quieter != rounding != long != quieter


def test_the_thresholds_of_the_branches():
    """Random averages whose relative fall or rise, by the long average, is within a tenth of 0.05."""
    generator = random.Random(0)
    taken = Counter()
    for _ in range(5_000):
        medium, long = (1 + 0.06 * generator.uniform(-1, 1) for _ in range(2))
        short = long * (1 + generator.choice((-1, 1)) * generator.uniform(0.045, 0.055))
        averages, fall = Averages(short, medium, long), long - short
        by_long, by_medium = fall / long, fall / medium
        calm = abs(by_long) < 0.05
        rounding = "long" if calm or not abs(by_medium) * medium < abs(by_long) * long else "medium"
        quieter = "long" if calm or abs(by_long) <= abs(by_medium) else "medium"
        scalar = {"long": math.tanh(by_long), "medium": math.tanh(by_medium)}
        assert BRANCHED["rounding"](averages) == scalar[rounding]
        assert BRANCHED["quieter"](averages) == scalar[quieter]
        assert BRANCHED["long"](averages) == scalar["long"]
        taken[calm, rounding, quieter] += 1
    assert len(taken) == 5  # calm, and the four combinations otherwise
    assert min(taken.values()) > 10


def test_rows_before_3_6_have_no_branch():
    assert {spec.version for spec in registry.specs() if "branch" not in spec.options} == {"1.0", "2.0", "3.0", "3.1"}
    with pytest.raises(OptionError, match="unknown option 'branch'"):
        registry.build("emonavi-3.1", make_params(), branch="long")


# -- stopcoef, fftmode ------------------------------------------------------------------------------------------------


def test_stopcoef_of_3_9_is_in_units_of_the_loss():
    for stopcoef, loss, ever in [(0.04, 1.5, False), (0.04, 0.039, True), (2.0, 1.5, True), (0.0, 0.01, False)]:
        signals = signals_of("emosens-3.9", [loss] * 60, stopcoef=stopcoef)
        assert signals[0].ready == 0.0
        assert (signals[-1].ready == 1.0) == ever
        for s in signals:
            assert s.ready == float(s.stop_margin_snr >= 0 and s.stop_margin_loss >= 0)
            assert s.stop_margin_loss == pytest.approx(stopcoef - s.ema_medium)


def test_stopcoef_of_3_8_is_relative_to_the_least_pulse_and_a_stop_rests_at_a_tenth():
    never, always = (signals_of("emosens-3.8", [1.0] * 3 + [0.5], stopcoef=s) for s in (0.3, 1e7))
    assert [s.ready for s in never] == [0.0] * 4
    assert [s.ready for s in always] == [1.0, 1.0, 1.0, 1.0]
    # the scope is reduced from the step after the signal on
    assert [b.pulse / a.pulse for a, b in zip(never, always, strict=True)] == pytest.approx([1.0, 0.1, 0.1, 0.1])


def test_a_stop_of_3_8_that_clears_restores_the_multiplier():
    signals = signals_of("emosens-3.8", [1.0] * 3 + [9.0] * 2 + [1.0] * 3, stopcoef=1.2e6)
    ready = [s.ready for s in signals]
    assert 0.0 in ready
    assert 1.0 in ready
    reference = signals_of("emosens-3.8", [1.0] * 3 + [9.0] * 2 + [1.0] * 3, stopcoef=0.0)
    resting = [0.0, *ready[:-1]]
    for was_ready, ours, free in zip(resting, signals, reference, strict=True):
        assert ours.pulse == pytest.approx(free.pulse * (0.1 if was_ready else 1.0))


def test_fftmode_of_3_8_is_a_tenth_of_everything():
    losses = [1.0] * 5 + [0.5] * 60
    plain, small = (signals_of("emocats-3.8", losses, fftmode=mode) for mode in (False, True))
    assert [s.pulse for s in small] == pytest.approx([s.pulse / 10 for s in plain])
    assert small[0].pulse == pytest.approx(1e-5)
    for mode, cap, least in ((False, 3e-3, 1e-7), (True, 3e-4, 1e-8)):
        assert max(s.pulse for s in signals_of("emosens-3.8", losses, fftmode=mode, lr=1e3)) == cap
        assert min(s.pulse for s in signals_of("emosens-3.8", losses, fftmode=mode, lr=1e-9)) == least


def test_only_3_8_has_fftmode_and_only_3_8_and_3_9_have_stopcoef():
    assert {spec.version for spec in registry.specs() if "fftmode" in spec.options} == {"3.8"}
    assert {spec.version for spec in registry.specs() if "stopcoef" in spec.options} == {"3.8", "3.9"}


# Of policy gradients: a first loss above 0 lifts the pulse to its cap, one below 0 lets that of 3.9 collapse.
AROUND_ZERO = [0.02, -0.02] * 10
BELOW_ZERO = [-0.02, 0.023, -0.017, 0.023, -0.017, 0.023]


@pytest.mark.parametrize("lr", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("key", ["emosens-3.7", "emocats-3.8", "emosens-3.9", "emotion-3.9", "emovoid-3.9"])
def test_a_held_pulse_keeps_its_base_and_records_the_emotion(key, lr):
    for losses in (AROUND_ZERO, BELOW_ZERO):
        free, held = (signals_of(key, losses, hold_pulse=hold, lr=lr) for hold in (False, True))
        assert [s.pulse for s in held] == pytest.approx([1e-4 * lr] * len(losses), rel=1e-12)
        assert any(s.pulse != pytest.approx(1e-4 * lr, rel=0.1) for s in free)
        assert [s.lr for s in held] == [s.pulse for s in held]
        assert [(s.scalar, s.snr, s.loss) for s in held] == [(s.scalar, s.snr, s.loss) for s in free]


def test_what_a_policy_gradient_does_to_a_pulse_that_is_not_held():
    assert max(s.pulse for s in signals_of("emosens", AROUND_ZERO)) == 3e-3
    assert signals_of("emosens", BELOW_ZERO[:4])[-1].pulse == pytest.approx(3.4e-6, rel=0.01)


@pytest.mark.parametrize(("key", "stopcoef"), [("emosens-3.7", None), ("emosens-3.8", 1e7), ("emosens-3.9", 2.0)])
def test_a_held_pulse_never_says_stop(key, stopcoef):
    options = {} if stopcoef is None else {"stopcoef": stopcoef}
    assert signals_of(key, [1.0] * 60, **options)[-1].ready == 1.0
    assert {s.ready for s in signals_of(key, [1.0] * 60, hold_pulse=True, **options)} == {0.0}


def test_a_held_pulse_has_the_base_of_fftmode():
    assert {s.pulse for s in signals_of("emosens-3.8", [1.0, 5.0, 0.1], fftmode=True, hold_pulse=True)} == {1e-5}


def test_only_a_pulse_with_a_base_can_be_held():
    assert {spec.version for spec in registry.specs() if "hold_pulse" in spec.options} == {"3.7", "3.8", "3.9"}
    with pytest.raises(OptionError, match="unknown option 'hold_pulse'"):
        registry.build("emosens-3.7.0", make_params(), hold_pulse=True)


# -- use_shadow -------------------------------------------------------------------------------------------------------


@released
@without_3_1_warning
def test_the_shadow_is_off_by_default_since_3_0_and_in_the_second_generation(spec):
    always = spec.version in ("1.0", "2.0") and spec.name in ("emonavi", "emofact", "emolynx")
    assert spec.shadow.always == always == ("use_shadow" not in spec.options)
    assert always or spec.options["use_shadow"] is False
    for switch in (True,) if always else (True, False):
        params = make_params()
        optimizer = build(spec, params, shadow=switch)
        run(optimizer, params, range(len(LOSSES)))
        assert {"shadow" in optimizer.state[param] for param in params} == {switch}
        assert (optimizer.signals().shadow_mix is not None) == switch
    assert always or not same(moved(spec), moved(spec, shadow=True))


SHADOW = {  # version, scalar: weights and shadow afterwards, from weights 1 and shadow 2
    ("1.0", 0.7): (1.84, 1.992),  # ratio 0.7 + 0.2 s
    ("1.0", -0.7): (1.1, 1.955),
    ("1.0", 0.4): (1.3, 1.965),
    ("1.0", 0.2): (1.0, 2.0),
    ("2.0", 0.7): (1.7, 1.985),  # ratio |s|
    ("3.0", -0.2): (1.2, 1.96),
    ("3.0", 0.05): (1.0, 2.0),
    ("3.1", 0.8): (0.25 + 0.2 * 2, 2.0),  # 0.25 p + (1 - |s|) shadow
    ("3.1", -0.5): (1.0, 1.9),
    ("3.1", 0.2): (1.0, 2 - 0.1 * 1.2),
    ("3.6", -0.7): (0.7 + 0.3 * 2, 2.0),  # |s| p + (1 - |s|) shadow
    ("3.9", 0.7): (0.7 + 0.3 * 2, 2.0),
    ("3.9", 0.5): (1.0, 2 - 0.1 * 0.5),
}


@pytest.mark.parametrize(("version", "scalar"), SHADOW, ids=str)
def test_the_shadow_law_of_each_version(version, scalar):
    spec = next(spec for spec in registry.specs() if spec.version == version)
    param = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    state = {"shadow": torch.tensor([2.0], dtype=torch.float64)}
    with torch.no_grad():
        spec.shadow.apply(param, state, scalar)
    assert (param.item(), state["shadow"].item()) == pytest.approx(SHADOW[version, scalar])


@every_row
def test_only_the_shadow_of_3_1_warns(spec):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build(spec, make_params())
        assert not caught
        build(spec, make_params(), shadow=True)
    assert len(caught) == (spec.version == "3.1")
    if caught:
        assert f"{spec.key} with use_shadow=True" in str(caught[0].message)
        assert "shrinks the weights towards zero" in str(caught[0].message)


@without_3_1_warning
def test_the_shadow_of_3_1_shrinks_weights_to_a_hundredth_in_80_shocks():
    params = [torch.nn.Parameter(torch.ones(1, dtype=torch.float64))]
    optimizer = registry.build("emonavi-3.1", params, use_shadow=True, lr=0.0)
    params[0].grad = torch.zeros_like(params[0])
    for t in range(80):
        optimizer.step(loss=1.5**t)
    assert params[0].item() < 0.011


# -- decoupled_weight_decay -------------------------------------------------------------------------------------------

DECOUPLED = [spec for spec in registry.specs() if "decoupled_weight_decay" in spec.options]


@pytest.mark.parametrize("spec", DECOUPLED, ids=lambda spec: spec.key)
def test_decoupled_weight_decay_is_weight_decay_over_the_initial_lr(spec):
    """In emoclan in its lion steps alone: the losses make |scalar| > 0.6 in every step but the first."""
    losses = [1.0, *(10.0**t for t in range(1, 8))]

    def after(decay, decoupled):
        params = make_params()
        optimizer = build(spec, params, lr=0.1, decoupled_weight_decay=decoupled)
        for t, loss in enumerate(losses):
            optimizer.param_groups[0]["weight_decay"] = decay if t else 0.0
            give_gradients(params, t)
            optimizer.step(loss=loss)
        return params

    for ours, as_large, as_given in zip(after(0.05, True), after(0.5, False), after(0.05, False), strict=True):
        torch.testing.assert_close(ours, as_large, rtol=1e-12, atol=0)
        assert not torch.allclose(ours, as_given, rtol=1e-2)


@pytest.mark.parametrize("spec", DECOUPLED, ids=lambda spec: spec.key)
def test_decoupled_weight_decay_at_a_learning_rate_of_0_changes_nothing(spec):
    params = make_params()
    before = [param.detach().clone() for param in params]
    optimizer = build(spec, params, lr=0.0, decoupled_weight_decay=True)
    give_gradients(params, 0)
    optimizer.step(loss=1.0)
    assert all(map(torch.equal, params, before))


def test_lynx_clan_neco_and_the_first_cats_have_decoupled_weight_decay():
    keys = {"emolynx-1.0", "emolynx-2.0", "emolynx-3.0", "emoclan-3.0", "emoneco-3.0", "emocats-2.0"}
    assert {spec.key for spec in DECOUPLED} == keys


# -- specs and classes ----------------------------------------------------------------------------------------------


def test_the_registry_holds_35_released_specs_of_11_families_and_one_of_ours():
    assert len(registry.SPECS) == 35
    assert len({spec.name for spec in registry.SPECS}) == 11
    assert [spec.key for spec in registry.specs()[35:]] == ["emofree-1.0"]
    assert len({spec.key for spec in registry.specs()}) == 36
    assert list(registry.families()) == sorted({spec.name for spec in registry.specs()})
    assert len(registry.families()) == 12


@every_row
def test_a_row_says_where_it_comes_from_and_what_is_odd_about_it(spec):
    ours = spec in registry.OWN
    assert spec.source == "emo_hf" if ours else spec.source.startswith(("muooon/EmoNavi@", "muooon/EmoSens@"))
    assert spec.recommended_lr
    assert spec.quirks
    assert all(quirk.endswith(".") for quirk in spec.quirks)
    assert spec.lr_is_multiplier == (ours or spec.version.startswith(("3.7", "3.8", "3.9")))
    assert spec.options["lr"] == (1.0 if spec.lr_is_multiplier else 1e-3)


@every_row
def test_every_way_to_name_a_row_finds_it(spec):
    cls = registry.optimizer_class(spec.name)
    assert registry.find(spec.key) is registry.find(spec.name, spec.version) is spec
    for optimizer in (
        cls(make_params(), version=spec.version),
        cls(make_params(), spec.options["lr"], version=spec.version),
        registry.build(spec.key, make_params()),
        registry.build(spec.name, make_params(), version=spec.version),
    ):
        assert optimizer.spec is spec
        assert type(optimizer) is cls
        assert optimizer.defaults["lr"] == spec.options["lr"]
        assert repr(optimizer) == f"{cls.__name__}(version={spec.version!r}, lr={spec.options['lr']!r})"
    assert getattr(emo_hf, cls.__name__) is cls
    assert cls.__name__.lower() == spec.name


@pytest.mark.parametrize("name", registry.families())
def test_a_name_without_version_is_the_newest(name):
    newest = max((spec for spec in registry.specs() if spec.name == name), key=lambda spec: spec.version.split("."))
    assert registry.find(name) is newest
    assert registry.optimizer_class(name)(make_params()).spec is newest


def test_versions_may_be_numbers():
    assert registry.find("emosens", 3.7) is registry.find("emosens-3.7")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("emosense",), r"No optimizer is called 'emosense'\. Did you mean 'emosens'"),
        (("emo-sens",), r"Did you mean .*'emosens'"),
        (("xyzzy",), r"'xyzzy'\. Known: emoairy, emocats, .*emozeal"),
        (("emosens", "4.0"), r"emosens has no version '4.0'; expected one of 2.0, 3.7.0, 3.7, 3.8, 3.9\."),
        (("emosens-4.0",), r"Did you mean 'emosens-3.9' or|Did you mean .*'emosens-"),
        (("emotion", 3.8), r"emotion has no version 3.8; expected one of 3.9\."),
    ],
)
def test_an_unknown_name_or_version_is_answered_with_what_there_is(arguments, message):
    with pytest.raises(UnknownOptimizerError, match=message):
        registry.find(*arguments)


# -- moments (experimental) -------------------------------------------------------------------------------------------


def test_moments_are_those_of_all_gradient_entries():
    params = make_params([(2,), ()])
    params[0].grad = torch.tensor([1.0, -2.0], dtype=torch.float64)
    params[1].grad = torch.tensor(3.0, dtype=torch.float64)
    rates = {}
    for choice in ("off", "log", "drive"):
        optimizer = registry.build("emonavi-1.0", params, moments=choice, lr=1e-3)
        optimizer.step(loss=1.0)
        rates[choice] = optimizer.effective_lr
        log = optimizer.signals().log()
        assert ("emo/moment_1" in log) == (choice != "off")
    means = [2 / 3, 14 / 3, 20 / 3, 98 / 3]
    emotion = means[2] / (means[1] + 1e-8) * math.exp(-means[3])
    assert [log[f"emo/moment_{k}"] for k in (1, 2, 3, 4)] == pytest.approx(means)
    assert log["emo/moment_emotion"] == pytest.approx(emotion)
    assert rates["off"] == rates["log"] == 1e-3
    assert rates["drive"] == pytest.approx(1e-3 * (1 - emotion), rel=1e-15)


@pytest.mark.parametrize(("entry", "factor"), [(0.5, 1 - 0.5 * math.exp(-0.0625)), (0.0, 1), (-3.0, 1)])
def test_moments_drive_the_step_within_bounds(entry, factor):
    params = make_params([(3,)])
    params[0].grad = torch.full_like(params[0], entry)
    optimizer = registry.build("emosens", params, moments="drive")
    optimizer.step(loss=1.0)
    assert optimizer.effective_lr == pytest.approx(1e-4 * factor, rel=1e-4)
    assert 0.1 <= optimizer.effective_lr / optimizer.signals().pulse <= 2
