"""The numbers beside the charts: what sums up a run, and what stands out in it."""

import math
import statistics
from collections.abc import Callable, Iterator

from emo_hf.dashboards.metrics import EVAL_LOSS, METRICS, of_sets
from emo_hf.dashboards.report.runs import RecordedRun, Series

CEILING, FLOOR = "emo/lr_at_ceiling", "emo/lr_at_floor"

Number = float | None  # None: there is no such number; nan: it is not finite


def summary(run: RecordedRun) -> dict[str, Number]:
    """Returns what sums up `run`, by name, in the order of a table."""
    loss = run.series.get("train/loss") or run.series.get("emo/loss", {})
    losses = [EVAL_LOSS, *of_sets(run.series)]
    scores = [key for key in run.series if key.startswith("eval/") and key not in losses]
    ready = [step for step, share in run.series.get("emo/stop_share", {}).items() if share > 0]
    return {
        **{f"best {key.replace('/', ' ').replace('_', ' ')}": _of(run.series.get(key, {}), min) for key in losses},
        **{f"last {key.replace('/', ' ')}": _of(run.series[key], lambda values: values[-1]) for key in scores},
        "loss, last tenth": _of(loss, lambda values: statistics.fmean(values[-math.ceil(len(values) / 10) :])),
        "median step size": _of(run.series.get("emo/lr", {}), statistics.median),
        "share at the ceiling": _of(run.series.get(CEILING, {}), statistics.fmean),
        "first ready at step": min(ready, default=None),
        "steps": run.steps,
        "seconds per step": _of(run.series.get("emo/step_seconds", {}), statistics.median),
    }


def ranges(series: Series) -> list[Number]:
    """Returns first, least, median, greatest and last of the finite values."""
    values = [value for _, value in sorted(series.items()) if math.isfinite(value)]
    if not values:
        return [math.nan] * 5
    return [values[0], min(values), statistics.median(values), max(values), values[-1]]


def findings(run: RecordedRun, steps: int = 0) -> Iterator[str]:
    """Yields what a person should look at, each in one sentence.

    Args:
        run: a training.
        steps: judge the last `steps` only; 0 judges all.
    """
    since = run.steps - steps if steps else 0
    recent = {key: [v for step, v in series.items() if step > since] for key, series in run.series.items()}
    for key in ("emo/loss", "train/loss", EVAL_LOSS, *of_sets(run.series)):
        if bad := [step for step, value in run.series.get(key, {}).items() if math.isnan(value)]:
            yield f"{key} was not finite at {len(bad)} recorded steps, first at step {bad[0]:,}."
    if "emo/loss" not in run.series:
        if not run.optimizer or run.optimizer.startswith("emo"):
            yield "There are no signals of an emotion: the optimizer has none, or nothing records them."
    elif recent["emo/loss"] and not any(recent["emo/loss"]):
        yield "The optimizer was fed a loss of exactly 0: the training loss does not reach it."
    if (share := _mean(recent.get(CEILING))) > 0.5:
        yield f"The pulse is at its ceiling in {share:.0%} of the steps. {_advice(CEILING)}"
    if (share := _mean(recent.get(FLOOR))) > 0:
        yield f"The pulse is at its floor in {share:.1%} of the steps. {_advice(FLOOR)}"


def _advice(key: str) -> str:
    act = METRICS[key].act
    return act[:1].upper() + act[1:] + "."


def _mean(values: list[float] | None) -> float:
    finite = [value for value in values or () if math.isfinite(value)]
    return statistics.fmean(finite) if finite else 0.0


def _of(series: Series, of: Callable[[list[float]], float]) -> Number:
    """Applies `of` to the finite values in the order of their steps."""
    values = [value for _, value in sorted(series.items()) if math.isfinite(value)]
    return of(values) if values else (math.nan if series else None)
