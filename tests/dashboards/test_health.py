import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from emo_hf import registry
from emo_hf.dashboards import Recorder
from emo_hf.dashboards.health import (
    BRAKES,
    FEWEST,
    GROWING,
    LATE,
    NEVER,
    RECENT,
    WHEN,
    Health,
    Plan,
    advise_on_schedule,
)
from emo_hf.signals import Signals
from tests import ROOT


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


def look(steps: Iterable[Signals], version: str = "3.9") -> None:
    health = Health({"emo_version": version})
    for step, signals in enumerate(steps, start=1):
        health.observe(step, signals)


def test_a_healthy_training_says_nothing(make, caplog) -> None:
    look([make(at_ceiling=float(step % 2)) for step in range(3 * RECENT)])
    assert said(caplog) == []


def test_pinned_at_the_ceiling_is_said_once_when_it_is_more_than_half(make, caplog) -> None:
    calm, pinned = make(), make(at_ceiling=1.0)
    look([calm] * RECENT + [pinned] * (RECENT // 2))
    assert said(caplog) == []
    look([calm] * RECENT + [pinned] * (RECENT + 50) + [calm] * RECENT + [pinned] * RECENT)
    (message,) = said(caplog)
    assert message.startswith(f"Step {RECENT + RECENT // 2 + 1}: the pulse was at its ceiling in 101 of the last 200")
    assert "multiplier" in message


def test_the_first_steps_alone_say_nothing_about_the_ceiling(make, caplog) -> None:
    look([make(at_ceiling=1.0)] * (RECENT - 1))
    assert said(caplog) == []


def test_the_floor_is_said_at_once(make, caplog) -> None:
    look([make(), make(), make(at_floor=1.0, pulse=1e-8), make(at_floor=1.0, pulse=1e-8)])
    (message,) = said(caplog)
    assert message.startswith("Step 3: the step size is 0.0001, with the pulse at 1e-08: ")


@pytest.mark.parametrize("losses", [(0.02, -0.02) * 3, (0.0,) * 3, (-1.0, -2.0, -3.0)], ids=str)
def test_a_loss_that_measures_no_progress_is_said_once(make, caplog, losses: tuple[float, ...]) -> None:
    look(make(loss=loss) for loss in losses)
    (message,) = said(caplog)
    third = [step for step, loss in enumerate(losses, start=1) if loss <= 0][2]
    assert message.startswith(f"Step {third}: the loss (now {losses[third - 1]:.3g}) belongs to a policy gradient")
    assert "optim_args='hold_pulse=true'" in message


def test_two_losses_of_zero_and_a_held_pulse_are_not_spoken_of(make, caplog) -> None:
    look([make(), make(loss=0.0), make(), make(loss=0.0), make()])
    held = Health({"emo_version": "3.9", "emo_hold_pulse": True, "emo_policy_gradient": True})
    for step in range(1, 10):
        held.observe(step, make(loss=-1.0))
    assert said(caplog) == []


def test_a_policy_gradient_is_said_at_once(make, caplog) -> None:
    health = Health({"emo_policy_gradient": True})
    for step in (1, 2, 3, 4):
        health.observe(step, make(loss=0.5 * (-1) ** step))
    (message,) = said(caplog)
    assert message.startswith("Step 1: the loss (now -0.5) belongs to a policy gradient")


@pytest.mark.parametrize(
    ("ready_by_snr", "loss", "expected"), [(0.1, 2.0, 1), (-0.1, 2.0, 0), (0.1, 0.9 * NEVER * 0.04, 0)]
)
def test_a_stop_signal_out_of_reach(make, caplog, ready_by_snr: float, loss: float, expected: int) -> None:
    steps = [make(ema_medium=loss, stop_margin_snr=ready_by_snr, stop_margin_loss=0.04 - loss)] * (RECENT + 10)
    look(steps)
    assert len(said(caplog)) == expected
    if expected:
        assert said(caplog)[0].startswith(f"Step {RECENT}: calm enough to stop, but")
        assert "stopcoef = 0.04, and the loss is 2." in said(caplog)[0]


def test_generations_without_margins_or_pulse(make, caplog) -> None:
    look([make(stop_margin_snr=None, stop_margin_loss=None, at_ceiling=None, at_floor=None)] * (2 * RECENT), "3.6")
    assert said(caplog) == []


@pytest.mark.parametrize(("version", "expected"), [("3.1", 1), ("3.6", 0)])
def test_the_shadow_that_shrinks_is_said_when_it_is_mixed_in(make, caplog, version: str, expected: int) -> None:
    look([make(shadow_mix=None), make(shadow_mix=0.0)], version)
    assert said(caplog) == []
    look([make(shadow_mix=0.0), make(shadow_mix=0.2), make(shadow_mix=0.2)], version)
    assert len(said(caplog)) == expected
    assert all(message.startswith("Step 2: the shadow was mixed in.") for message in said(caplog))


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [("constant", 100, 1), ("constant", 0, 0), ("constant_with_warmup", 100, 0), ("linear", 100, 0)],
)
def test_an_ignored_warmup(caplog, schedule: str, warmup: float, expected: int) -> None:
    advise_on_schedule(schedule, warmup)
    assert len(said(caplog)) == expected
    assert all("constant_with_warmup" in message for message in said(caplog))


def test_the_recorder_looks_at_every_step_of_a_window(tmp_path, make, caplog) -> None:
    recorder = Recorder(tmp_path, 50_000, config={"emo_version": "3.9"})
    recorder.write(1, make(at_floor=1.0, pulse=1e-8))
    assert len(said(caplog)) == 1
    recorder.close()


def observe(lrs: Iterable[float], make, **plan: int) -> None:
    health = Health({"emo_version": "3.9"}, Plan(**plan))
    for step, lr in enumerate(lrs, start=1 + plan.get("start", 0)):
        health.observe(step, make(lr=lr, pulse=1e-4))


@pytest.mark.parametrize("total", [0, 4, 20, 1000])
def test_a_schedule_of_rates_for_another_optimizer_is_said_early(make, caplog, total: int) -> None:
    observe([1e-8 * min(step, 5) for step in range(total or 30)], make, total=total)
    message = said(caplog)[0]
    assert message.startswith(f"Step {2 if total == 4 else 10}: the schedule has multiplied every step size by ")
    assert "set learning_rate=1.0" in message


def test_a_warmup_a_decay_and_a_resumed_decay_are_not_spoken_of(make, caplog) -> None:
    observe([1e-4 * step / 2000 for step in range(2000)], make, total=10_000, warmup=2000)
    observe([1e-4 * (1 - step / 100) ** 4 for step in range(101)], make, total=100)
    observe([1e-9] * 20, make, start=80, total=100)
    assert said(caplog) == []


def test_a_step_below_the_floor_is_said_whatever_the_pulse(make, caplog) -> None:
    observe([1e-4] * 20 + [1e-9] * 20, make, total=100)
    (message,) = said(caplog)
    assert message.startswith("Step 21: the step size is 1e-09, with the pulse at 0.0001: ")


# -- EmoFree ----------------------------------------------------------------------------------------------------------


def free(make, **signals):
    """Signals of EmoFree after its ramp, calm."""
    none = dict.fromkeys(("at_ceiling", "at_floor", "stop_margin_snr", "stop_margin_loss", "pulse"))
    calm = {"steering": 1.0, "growth": 0.0, "braking": 0.0, "agreement": 0.1, "agreement_end": 0.12}
    return make(**{**none, **calm, **signals})


def watch(steps: Iterable[Signals], **plan: int) -> None:
    health = Health({"emo_optimizer": "emofree", "emo_version": "1.0"}, Plan(**plan))
    for step, signals in enumerate(steps, start=1 + plan.get("start", 0)):
        health.observe(step, signals)


def test_an_emofree_that_finds_its_step_size_says_nothing(make, caplog) -> None:
    ramp, calm = free(make, steering=0.0, growth=1.0), free(make)
    for total in (0, 50, 1000):
        watch(
            [ramp] * 15 + [free(make, growth=1.0)] * 4 + [calm, free(make, braking=0.3), *[calm] * 18] * 40,
            total=total,
        )
    assert said(caplog) == []


@pytest.mark.parametrize(("total", "step", "do"), [(100, 40, "train for more steps"), (0, RECENT, "total_steps=...")])
def test_a_ramp_without_an_end_is_said_once(make, caplog, total: int, step: int, do: str) -> None:
    watch([free(make, steering=0.0, growth=1.0, agreement=0.61, lr=3e-4)] * 2 * RECENT, total=total)
    (message,) = said(caplog)
    assert message.startswith(f"Step {step}: EmoFree is still in its ramp ")
    assert "the agreement of the gradients is 0.61 at a step size of 0.0003." in message
    assert do in message
    assert ("40 % of the training" in message) == bool(total)


@pytest.mark.parametrize(("growth", "after", "expected"), [(0.8, 60, 1), (0.4, 60, 0), (1.0, FEWEST - 1, 0)])
def test_growth_that_goes_on_is_said_when_it_is_late(make, caplog, growth: float, after: int, expected: int) -> None:
    late = 80
    ramp, growing = free(make, steering=0.0, growth=1.0), free(make, growth=growth)
    watch([ramp] * (late - after) + [growing] * (after + 50), total=200)
    assert len(said(caplog)) == expected
    if expected:
        assert said(caplog)[0].startswith(
            f"Step {late}: EmoFree is still growing at 40 % of the training, over the last"
        )
        assert "by 80 % of the speed of its ramp" in said(caplog)[0]


@pytest.mark.parametrize(("share", "expected"), [(BRAKES + 0.01, 1), (BRAKES, 0)])
def test_braking_is_said_when_it_is_often(make, caplog, share: float, expected: int) -> None:
    braked = round(share * RECENT)
    watch([free(make, braking=0.5)] * braked + [free(make)] * (2 * RECENT), total=5000)
    assert len(said(caplog)) == expected
    if expected:
        assert said(caplog)[0].startswith(f"Step {RECENT}: EmoFree braked in 11 % of the last {RECENT} steps")


def test_no_advice_for_emofree_names_an_option_that_it_has_not(make, caplog) -> None:
    watch(
        [free(make, loss=-1.0, steering=0.0, growth=1.0)] * RECENT + [free(make, braking=1.0, growth=1.0)] * 300,
        total=600,
    )
    for total in (0, 300):
        watch([free(make, steering=0.0)] * 300, total=total)
    messages = said(caplog)
    assert len(messages) == 5  # policy gradient, ramp, growth, brake; the length is not known
    assert not any(word in message for message in messages for word in ("hold_pulse", "stopcoef", "ceiling. Hold"))
    named = {name for message in messages for name in re.findall(r"(\w+)=\.\.\.", message)}
    assert named == {"total_steps"}
    assert named <= registry.find("emofree").options.keys()


def test_the_page_tells_when_by_the_thresholds_of_the_code() -> None:
    text = " ".join(WHEN)
    for threshold in (f"{LATE:.0%}", f"{GROWING:.0%}", f"{BRAKES:.0%}", f"last {RECENT}", f"at least {FEWEST}"):
        assert threshold in text
    assert all(when in Path(ROOT, "docs/signals.md").read_text() for when in WHEN)
