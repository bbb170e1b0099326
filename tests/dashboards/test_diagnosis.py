"""The diagnosis line: each rule holds above its threshold and not below it, and the first that holds comes first."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from emo_hf.dashboards.diagnosis import RULES, Record, diagnose
from emo_hf.dashboards.report.runs import RecordedRun, read
from tests.dashboards.recorded_runs import write_run

STEPS = 1000
FLAT = {"emo/loss": [1.0] * STEPS}


def losses(first: float, last: float, noise: float = 0.0) -> dict[str, list[float]]:
    """A loss with these means of its last two tenths, and of those before."""
    tenth = STEPS // 10
    means = [first] * (STEPS - tenth) + [last] * tenth
    return {"emo/loss": [mean + noise * (-1) ** step for step, mean in enumerate(means)]}


def share(key: str, value: float) -> dict[str, list[float]]:
    """This share of the steps, at the end of them."""
    return {key: [0.0] * round(STEPS * (1 - value)) + [1.0] * round(STEPS * value)}


def run(optimizer: str = "emosens-3.9", stopped: str = "", total: int = STEPS, **series: list[float]) -> RecordedRun:
    made = RecordedRun(Path("out"), "out", "", optimizer, total_steps=total, stopped=stopped)
    for key, values in series.items():
        for step, value in enumerate(values, start=1):
            made.add(step, {key: value})
    return made


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {  # what holds, what does not quite, the sentence
    "stopped": ({"stopped": "Stopped at step 54: ready for 20 steps."}, {}, "Stopped at step 54: ready for 20 steps."),
    "not finite": (
        {"emo/loss": [1.0] * 998 + [math.nan] * 2},
        {},
        "emo/loss was not finite at 2 recorded steps, first at step 999.",
    ),
    "no signals": (
        {"emo/loss": [], "train/loss": [1.0]},
        {"emo/loss": [], "train/loss": [1.0], "optimizer": "adamw_torch"},
        "No signals of an emotion: the optimizer has none, or nothing records them.",
    ),
    "fed zero": (
        {"emo/loss": [0.0] * STEPS},
        {"emo/loss": [0.0] * (STEPS - 1) + [1e-9]},
        "It is fed a loss of exactly 0: the training loss does not reach it.",
    ),
    "floor": (
        share("emo/lr_at_floor", 0.001),
        share("emo/lr_at_floor", 0),
        "At its floor in 0.1% of the steps: raise the multiplier (learning_rate).",
    ),
    "risen": (
        losses(1, 1.03, noise=0.1),
        losses(1, 1.03, noise=0.2),  # two standard errors are more
        "The loss rose by 3% since its first tenth: lower learning_rate.",
    ),
    "risen a little": (losses(1, 1.021), losses(1, 1.019), "The loss rose by 2% since its first tenth: lower"),
    "ceiling": (
        share("emo/lr_at_ceiling", 0.51),
        share("emo/lr_at_ceiling", 0.5),
        "At its ceiling in 51% of the steps, the loss flat: lower the multiplier.",
    ),
    "ceiling, falling": (
        share("emo/lr_at_ceiling", 0.51) | {"emo/loss": [3.0 - step / STEPS for step in range(STEPS)]},
        {},
        "At its ceiling in 51% of the steps, the loss falling: raise the multiplier.",
    ),
    "ramp": (
        share("emo/steering", 0.59),
        share("emo/steering", 0.61),
        "In its ramp for over 40% of the training: train longer, or a larger lr.",
    ),
    "brakes": (
        share("emo/braking", 0.11),
        share("emo/braking", 0.1),
        "Brakes in 11% of the steps: take a smaller lr, or look at the data.",
    ),
    "overfits": (
        {"eval/loss": [2.0, 1.0, 1.06]},
        {"eval/loss": [2.0, 1.0, 1.04]},
        "eval/loss is 6% above its least, of step 2: stop there, or regularize.",
    ),
    "still falls": (
        losses(1, 0.97),
        losses(1, 0.97) | {"total": STEPS + 1},
        "The loss still falls at the end, by 3% in the last tenth: train longer.",
    ),
}


@pytest.mark.parametrize(("holds", "not_quite", "says"), CASES.values(), ids=CASES)
def test_a_rule_holds_above_its_threshold_only(holds: dict, not_quite: dict, says: str) -> None:
    first = diagnose(run(**{**FLAT, **holds}))[0].text
    assert first.startswith(says)
    assert len(first) <= 76  # so that a terminal does not wrap it
    assert says[:12] not in " ".join(text for text, _ in diagnose(run(**{**FLAT, **not_quite})))


def test_every_rule_has_a_case() -> None:
    records = [Record(run(**{**FLAT, **holds})) for holds, _, _ in CASES.values()]
    assert all(any(list(rule.says(record)) for record in records) for rule in RULES)


def test_the_first_rule_comes_first_and_the_others_after_it() -> None:
    both = {**share("emo/lr_at_ceiling", 0.6), **share("emo/lr_at_floor", 0.1), **FLAT}
    (text, kind), (other, of_other) = diagnose(run(**both))
    assert (text[:12], kind, other[:14], of_other) == ("At its floor", "alarm", "At its ceiling", "advice")


@pytest.mark.parametrize(("total", "says"), [(STEPS, "Healthy."), (2500, "Healthy so far: step 1,000 of 2,500.")])
def test_nothing_to_say(total: int, says: str) -> None:
    assert diagnose(run(**FLAT, total=total)) == [(says, "good")]


def test_of_the_last_steps_alone() -> None:
    recorded = run(**FLAT, **share("emo/lr_at_ceiling", 0.1))
    assert diagnose(recorded)[0].kind == "good"
    assert diagnose(recorded, 150)[0].text.startswith("At its ceiling in 67% of the steps")


def test_what_stopped_a_training_is_read_from_its_settings(tmp_path: Path) -> None:
    settings = write_run(tmp_path) / "emo_run.json"
    told = json.loads(settings.read_text()) | {"total_steps": 300}
    for more, says in (
        ({"emo_stopped_at": 60, "emo_stopped_after": 1}, "Stopped at step 60: ready for 1 step."),
        ({"emo_stopped_at": "60", "emo_stopped_after": 1}, "Healthy so far: step 60 of 300."),  # somebody else's
    ):
        settings.write_text(json.dumps(told | more))
        assert diagnose(read([tmp_path])[0])[0].text == says
