"""The numbers beside the charts: what sums up a run, and the ranges of its metrics."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from emo_hf.dashboards.diagnosis import CEILING
from emo_hf.dashboards.metrics import EVAL_LOSS, of_sets
from emo_hf.dashboards.report.runs import RecordedRun
from emo_hf.dashboards.series import Series, Values

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


def _of(series: Series | None, of: Callable[[Values], Any]) -> Number:
    """Applies `of` to the finite values in the order of their steps."""
    if not series:
        return None
    values = series.finite
    return float(of(values)) if len(values) else math.nan
