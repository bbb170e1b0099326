"""Several steps in one row, so that a long training leaves about 5,000 rows.

    emo/<signal>                            mean over the window; for one step its exact value
    emo/lr_min, _max; emo/scalar_min, _max  what a mean would hide
    emo/lr_at_ceiling, emo/lr_at_floor      share of the steps with the pulse clamped
    emo/stop_share, emo/stop_count          share of the steps that were ready to stop; their number since step 1
    emo/step_seconds                        wall time of a step, with whatever lies between (evaluation, checkpoints)
    nonfinite                               names of those left out, because the window holds a NaN or infinity

`emo_hf.dashboards.metrics` says what they mean.
"""

import math
import statistics
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from emo_hf.signals import EXTREMES, KEYS, PREFIX, Signals

ROWS = 5000
FOUND = {"emo_found_lr": "emo/found_lr", "emo_found_after": "emo/found_after"}  # setting -> summary

LogRow = dict[str, Any]


def window_size(total_steps: int) -> int:
    """Returns the steps per row that keep ``total_steps`` within 5,000 rows; 1 if the total is not known."""
    return max(1, math.ceil(total_steps / ROWS))


class Window:
    """Gathers the signals of ``size`` steps, row after row."""

    def __init__(self, size: int, stop_count: int = 0) -> None:
        """``stop_count``: the steps that were ready before this window, in a training that is resumed."""
        self._size = size
        self._stop_count = stop_count
        self._steps: list[Signals] = []
        self._last = 0
        self._since = time.perf_counter()

    def add(self, step: int, signals: Signals) -> LogRow | None:
        """Takes one step; returns the row that it completes."""
        self._last = step
        self._steps.append(signals)
        return self.row() if len(self._steps) == self._size else None

    def row(self) -> LogRow | None:
        """Returns the row of the steps gathered so far, and starts over; None if there are none."""
        if not self._steps:
            return None
        values = dict(self._values())
        finite = {key: value for key, value in values.items() if math.isfinite(value)}
        nonfinite = [key for key in values if key not in finite]
        self._steps.clear()
        return {"step": self._last, **finite} | ({"nonfinite": nonfinite} if nonfinite else {})

    def _values(self) -> Iterator[tuple[str, float]]:
        now, steps = time.perf_counter(), len(self._steps)
        for name, key in KEYS.items():
            values = [getattr(signals, name) for signals in self._steps]
            if values[0] is None:
                continue
            mean = sum(values) / steps
            yield key, mean
            if name in EXTREMES:  # no order among values with a NaN: then they are NaN as well
                yield f"{key}_min", min(values) if math.isfinite(mean) else mean
                yield f"{key}_max", max(values) if math.isfinite(mean) else mean
        self._stop_count += sum(signals.ready > 0 for signals in self._steps)
        yield f"{PREFIX}stop_count", self._stop_count
        yield f"{PREFIX}step_seconds", (now - self._since) / steps
        self._since = now


def merged(rows: list[LogRow]) -> LogRow:
    """Returns one row in the place of several that follow each other, as if their steps had been one window."""
    if len(rows) == 1:
        return rows[0]
    nonfinite = list(dict.fromkeys(name for row in rows for name in row.get("nonfinite", ())))
    whole: LogRow = {"step": rows[-1]["step"]}
    for key in rows[-1]:
        found = [row[key] for row in rows if key in row]
        if key in ("step", "nonfinite") or key in nonfinite:
            continue
        if key == f"{PREFIX}stop_count":
            whole[key] = found[-1]
        elif key.endswith(("_min", "_max")):
            whole[key] = (min if key.endswith("_min") else max)(found)
        else:
            whole[key] = statistics.fmean(found)
    return whole | ({"nonfinite": nonfinite} if nonfinite else {})


def summarize(rows: Iterable[LogRow], settings: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Returns the flat numbers that sum up a training: ``emo/lr_median``, ``emo/lr_ceiling_share``, if it was ever
    ready to stop ``emo/first_stop_step`` (the last step of the window in which it first was), and from its `settings`
    ``emo/found_lr`` and ``emo/found_after``, if its optimizer has found a step size."""
    settings = settings or {}
    summary: dict[str, float] = {key: settings[name] for name, key in FOUND.items() if name in settings}
    lrs, shares, first = array("d"), array("d"), None  # of rows that are read one by one
    for row in rows:
        for key, values in (("emo/lr", lrs), ("emo/lr_at_ceiling", shares)):
            if row.get(key) is not None:
                values.append(row[key])
        if first is None and (row.get("emo/stop_share") or 0) > 0:
            first = row["step"]
    if lrs:
        summary["emo/lr_median"] = statistics.median(lrs)
    if shares:
        summary["emo/lr_ceiling_share"] = statistics.fmean(shares)
    if first is not None:
        summary["emo/first_stop_step"] = first
    return summary
