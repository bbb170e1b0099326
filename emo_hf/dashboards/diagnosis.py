"""How a recorded training went, in one line, and what else a person should look at.

    found = diagnose(run)       never empty; the first one is the line on top
    RULES                       each with its moment, in the order in which they are looked at

A rule is its threshold in words, for docs/signals.md, and a function of what is recorded. What a training says while
it runs is in `emo_hf.dashboards.health`, with the thresholds that both share.
"""

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from emo_hf.dashboards.health import BRAKES, LATE, PINNED, RECENT
from emo_hf.dashboards.metrics import EVAL_LOSS, of_sets
from emo_hf.dashboards.report.runs import RecordedRun
from emo_hf.dashboards.series import Series, Values

CHANGE = 0.02  # of the loss: less is no change
DOUBT = 2.0  # standard errors that a change has to exceed
RISE = 0.05  # of the evaluation loss above its least, that counts as a rise
CEILING, FLOOR = "emo/lr_at_ceiling", "emo/lr_at_floor"
STEERING, BRAKING = "emo/steering", "emo/braking"

Kind = Literal["good", "advice", "alarm"]


class Finding(NamedTuple):
    """One sentence about a training, short enough for a terminal; and whether it is good news."""

    text: str
    kind: Kind


class Rule(NamedTuple):
    """When something is said, in words; whether it is good news; and the sentences, made of what is recorded."""

    when: str
    kind: Kind
    says: Callable[["Record"], Iterator[str]]


class Record:
    """What the rules look at.

    Args:
        run: a training.
        steps: the shares are those of the last `steps`; 0: of all.
    """

    def __init__(self, run: RecordedRun, steps: int = 0) -> None:
        self.run = run
        self._since = run.steps - steps if steps else 0

    def recent(self, key: str) -> Values:
        """The finite values of the last steps."""
        values = self.run.series.get(key, Series()).since(self._since)
        return values[np.isfinite(values)]

    def share(self, key: str) -> float:
        """The mean of a share over the last steps; 0 where it is not recorded."""
        return _mean(self.recent(key))

    @cached_property
    def tenths(self) -> list[Values]:
        """The training loss: ten parts of one length; empty ones of a short training."""
        values = (self.run.series.get("emo/loss") or self.run.series.get("train/loss") or Series()).finite
        length = len(values) // 10
        return [values[len(values) - (10 - place) * length :][:length] for place in range(10)]

    def change(self, first: int, last: int) -> float:
        """From one tenth to another, as a share of the mean; 0 where it is small, or no more than the noise."""
        one, other = self.tenths[first], self.tenths[last]
        if len(one) < 2 or (start := _mean(one)) <= 0:
            return 0.0
        change = _mean(other) - start
        error = math.sqrt((one.var(ddof=1) + other.var(ddof=1)) / len(one))
        return change / start if abs(change) > max(CHANGE * start, DOUBT * error) else 0.0

    @property
    def is_complete(self) -> bool:
        return bool(self.run.total_steps) and self.run.steps >= self.run.total_steps


def diagnose(run: RecordedRun, steps: int = 0) -> list[Finding]:
    """Returns what there is to say of `run`, the most important first; if there is nothing, that it is healthy.

    Args:
        run: a training.
        steps: the shares are those of the last `steps`; 0: of all.
    """
    record = Record(run, steps)
    found = [Finding(text, rule.kind) for rule in RULES for text in rule.says(record)]
    so_far = f" so far: step {run.steps:,} of {run.total_steps:,}" if 0 < run.steps < run.total_steps else ""
    return found or [Finding(f"Healthy{so_far}.", "good")]


def _stopped(record: Record) -> Iterator[str]:
    if record.run.stopped:
        yield record.run.stopped


def _not_finite(record: Record) -> Iterator[str]:
    series = record.run.series
    for key in ("emo/loss", "train/loss", EVAL_LOSS, *of_sets(series)):
        if key in series and len(bad := series[key].x[np.isnan(series[key].y)]):
            yield f"{key} was not finite at {len(bad)} recorded steps, first at step {bad[0]:,}."


def _no_signals(record: Record) -> Iterator[str]:
    run = record.run
    if "emo/loss" not in run.series and (not run.optimizer or run.optimizer.startswith("emo")):
        yield "No signals of an emotion: the optimizer has none, or nothing records them."


def _fed_zero(record: Record) -> Iterator[str]:
    losses = record.recent("emo/loss")
    if len(losses) and not losses.any():
        yield "It is fed a loss of exactly 0: the training loss does not reach it."


def _at_floor(record: Record) -> Iterator[str]:
    if (share := record.share(FLOOR)) > 0:
        yield f"At its floor in {share:.1%} of the steps: raise the multiplier (learning_rate)."


def _risen(record: Record) -> Iterator[str]:
    if (rise := record.change(0, -1)) > 0:
        yield f"The loss rose by {rise:.0%} since its first tenth: lower learning_rate."


def _at_ceiling(record: Record) -> Iterator[str]:
    if (share := record.share(CEILING)) > PINNED:
        then = "the loss falling: raise" if record.change(0, -1) < 0 else "the loss flat: lower"
        yield f"At its ceiling in {share:.0%} of the steps, {then} the multiplier."


def _late_ramp(record: Record) -> Iterator[str]:
    steering, late = record.run.series.get(STEERING, Series()), LATE * record.run.total_steps
    before = steering.y[: np.searchsorted(steering.x, late, "right")]
    if late and record.run.steps >= late and len(before) and not before.any():
        yield f"In its ramp for over {LATE:.0%} of the training: train longer, or a larger lr."


def _brakes(record: Record) -> Iterator[str]:
    if (share := _mean((record.recent(BRAKING) > 0).astype(np.float64))) > BRAKES:
        yield f"Brakes in {share:.0%} of the steps: take a smaller lr, or look at the data."


def _overfits(record: Record) -> Iterator[str]:
    for key in (EVAL_LOSS, *of_sets(record.run.series)):
        series = record.run.series.get(key, Series())
        values = series.finite
        if len(values) and (least := values.min()) > 0 and (rise := values[-1] / least - 1) > RISE:
            step = series.x[np.nanargmin(series.y)]
            yield f"{key} is {rise:.0%} above its least, of step {step:,}: stop there, or regularize."


def _still_falls(record: Record) -> Iterator[str]:
    if record.is_complete and (fall := -record.change(-2, -1)) > 0:
        yield f"The loss still falls at the end, by {fall:.0%} in the last tenth: train longer."


RULES = (
    Rule("the training was stopped because its optimizer was ready", "good", _stopped),
    Rule("a loss was not finite", "alarm", _not_finite),
    Rule("an emo optimizer, or one that is not known, has no signals on record", "alarm", _no_signals),
    Rule("the optimizer is fed a loss of exactly 0", "alarm", _fed_zero),
    Rule("the pulse is at its floor in any step", "alarm", _at_floor),
    Rule(
        f"the mean training loss of the last tenth is above that of the first, by more than {CHANGE:.0%} and"
        f" {DOUBT:g} standard errors",
        "alarm",
        _risen,
    ),
    Rule(f"the pulse is at its ceiling in more than {PINNED:.0%} of the steps", "advice", _at_ceiling),
    Rule(f"EmoFree was in its ramp for more than {LATE:.0%} of the training", "advice", _late_ramp),
    Rule(f"EmoFree brakes in more than {BRAKES:.0%} of the steps", "advice", _brakes),
    Rule(f"the last evaluation loss is more than {RISE:.0%} above the least one", "advice", _overfits),
    Rule(
        "the training is complete, and the mean training loss of its last tenth is below that of the tenth before,"
        f" by more than {CHANGE:.0%} and {DOUBT:g} standard errors",
        "advice",
        _still_falls,
    ),
)
WHERE = (
    "On top of a report and in `emo-hf watch` stands how the training went: the first of these that holds. Of shares,"
    f' `watch` counts the last {RECENT} steps alone, a report all of them. If none holds, the line is "Healthy".'
)


def _mean(values: Values) -> float:
    return float(values.mean()) if len(values) else 0.0
