"""The numbers beside the charts: what sums up a run, and what stands out in it."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from emo_hf.dashboards.health import BRAKES, FALLING, LATE, PINNED
from emo_hf.dashboards.metrics import EVAL_LOSS, METRICS, of_sets
from emo_hf.dashboards.report.runs import RecordedRun
from emo_hf.dashboards.series import Series, Values

CEILING, FLOOR = "emo/lr_at_ceiling", "emo/lr_at_floor"
STEERING, BRAKING = "emo/steering", "emo/braking"

Number = float | None  # None: there is no such number; nan: it is not finite


def summary(run: RecordedRun) -> dict[str, Number]:
    """Returns what sums up `run`, by name, in the order of a table."""
    loss = run.series.get("train/loss") or run.series.get("emo/loss")
    losses = [EVAL_LOSS, *of_sets(run.series)]
    scores = [key for key in run.series if key.startswith("eval/") and key not in losses]
    share = run.series.get("emo/stop_share", Series())
    ready = share.x[share.y > 0]
    return {
        **{f"best {key.replace('/', ' ').replace('_', ' ')}": _of(run.series.get(key), np.min) for key in losses},
        **{f"last {key.replace('/', ' ')}": _of(run.series[key], lambda values: values[-1]) for key in scores},
        "loss, last tenth": _of(loss, lambda values: np.mean(values[-math.ceil(len(values) / 10) :])),
        "median step size": _of(run.series.get("emo/lr"), np.median),
        "found step size": run.found,
        "share at the ceiling": _of(run.series.get(CEILING), np.mean),
        "first ready at step": int(ready[0]) if len(ready) else None,
        "steps": run.steps,
        "seconds per step": _of(run.series.get("emo/step_seconds"), np.median),
    }


def ranges(series: Series) -> list[Number]:
    """Returns first, least, median, greatest and last of the finite values."""
    values = series.finite
    if not len(values):
        return [math.nan] * 5
    return [float(value) for value in (values[0], values.min(), np.median(values), values.max(), values[-1])]


def diagnosis(run: RecordedRun, steps: int = 0) -> str:
    """Returns how `run` is, in one line: why it stopped, else the first of its findings, else what it may do.

    Args:
        run: a training.
        steps: judge the last `steps` only; 0 judges all.
    """
    if run.stopped:
        return run.stopped
    if found := next(findings(run, steps), ""):
        return found
    if run.total_steps and run.steps >= run.total_steps and (fall := _last_fall(run)) > FALLING:
        return f"The loss still fell by {fall:.0%} over the last tenth of the training: train longer."
    return "Healthy."


def _last_fall(run: RecordedRun) -> float:
    """Returns by which share the mean loss of the last tenth is below that of the tenth before it."""
    values = (run.series.get("emo/loss") or run.series.get("train/loss") or Series()).finite
    tenth = len(values) // 10
    before, last = (float(np.mean(part)) if tenth else 0.0 for part in (values[-2 * tenth : -tenth], values[-tenth:]))
    return (before - last) / before if before > 0 else 0.0


def findings(run: RecordedRun, steps: int = 0) -> Iterator[str]:
    """Yields what a person should look at, each in one sentence.

    Args:
        run: a training.
        steps: judge the last `steps` only; 0 judges all.
    """
    since = run.steps - steps if steps else 0
    recent = {key: series.since(since) for key, series in run.series.items()}
    for key in ("emo/loss", "train/loss", EVAL_LOSS, *of_sets(run.series)):
        series = run.series.get(key, Series())
        if len(bad := series.x[np.isnan(series.y)]):
            yield f"{key} was not finite at {len(bad)} recorded steps, first at step {bad[0]:,}."
    if "emo/loss" not in run.series:
        if not run.optimizer or run.optimizer.startswith("emo"):
            yield "There are no signals of an emotion: the optimizer has none, or nothing records them."
    elif len(recent["emo/loss"]) and not recent["emo/loss"].any():
        yield "The optimizer was fed a loss of exactly 0: the training loss does not reach it."
    if (share := _mean(recent.get(CEILING))) > PINNED:
        yield f"The pulse is at its ceiling in {share:.0%} of the steps. {_advice(CEILING)}"
    if (share := _mean(recent.get(FLOOR))) > 0:
        yield f"The pulse is at its floor in {share:.1%} of the steps. {_advice(FLOOR)}"
    if run.series.get(STEERING) and run.total_steps:
        yield from _of_ramp(run)
    if BRAKING in recent and (share := _mean((recent[BRAKING] > 0).astype(np.float64))) > BRAKES:
        yield f"EmoFree brakes in {share:.0%} of the steps: the loss rises beyond its noise. {_advice(BRAKING)}"


def _of_ramp(run: RecordedRun) -> Iterator[str]:
    """Yields whether an EmoFree has found its step size in time."""
    late = LATE * run.total_steps
    before = [value for step, value in run.series[STEERING].items() if step <= late]
    if run.steps >= late and before and max(before) == 0:
        yield f"EmoFree was in its ramp for more than {LATE:.0%} of the training. {_advice(STEERING)}"


def _advice(key: str) -> str:
    act = METRICS[key].act
    return act[:1].upper() + act[1:] + "."


def _mean(values: Values | None) -> float:
    finite = values[np.isfinite(values)] if values is not None else ()
    return float(np.mean(finite)) if len(finite) else 0.0


def _of(series: Series | None, of: Callable[[Values], Any]) -> Number:
    """Applies `of` to the finite values in the order of their steps."""
    if not series:
        return None
    values = series.finite
    return float(of(values)) if len(values) else math.nan
