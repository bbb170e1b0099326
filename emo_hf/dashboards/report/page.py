"""What a report shows: charts made of lines, and a table of numbers. `build` and `figures` draw it.

One run: a chart for each panel of `emo_hf.dashboards.metrics`, with a band from the least to the greatest value, and
the step size with the bounds of its pulse.
Several runs: a chart for each metric; one colour per group, a thin line per run, a thick one for the group's mean.

No chart shows the same curves as one before it: under a constant schedule the pulse is the step size. What a
comparison has one value of for each run is in its table alone.

Long runs are reduced to buckets of steps. A bucket ends at its right edge, so that all runs share their x values.
"""

import math
import posixpath
import statistics
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from emo_hf.dashboards.colours import assign
from emo_hf.dashboards.metrics import SECTIONS, Metric, Panel, find
from emo_hf.dashboards.report.runs import RecordedRun
from emo_hf.dashboards.series import Series

POINTS = 1500  # per line of a single run
POINTS_OF_ALL = 4000  # per metric of a comparison
FEWEST_POINTS = 150
NAMED = 5  # groups in a title
BOUNDS = ("bound", "far")  # kinds of lines
AVERAGES = {"emo/ema_short", "emo/ema_medium", "emo/ema_long"}  # follow emo/loss: nobody compares them over runs

LOSSES = {"train": "Training loss", "eval": "Evaluation loss"}
REPEATS = {"emo/pulse": "emo/lr", "emo/loss": "train/loss"}  # may show the same values
STEP_SIZE = "emo/lr"
CLOSE = 1e-4  # relative: what a chart does not show
NEAR = 10  # times the greatest pulse, or a tenth of the least: bounds beyond are out of sight

Point = float | None  # None: not finite


@dataclass(slots=True)
class Curve:
    """One line: y over x, and the least and greatest value where a band is drawn."""

    name: str  # lines of one name are switched on and off together
    colour: int
    x: list[int]
    y: list[Point]
    low: list[Point] = field(default_factory=list)
    high: list[Point] = field(default_factory=list)
    # "seed": thin, behind its group's mean; "bound": of the pulse; "far": the same, but out of sight
    kind: str = "main"


@dataclass(slots=True)
class Chart:
    """One chart. Its axis is that of its first metric."""

    title: str
    metrics: tuple[Metric, ...]
    zero_line: bool
    lines: list[Curve]


@dataclass(slots=True)
class Group:
    """Runs that differ in the seed alone."""

    label: str
    runs: list[RecordedRun]
    colour: int = 0  # of `emo_hf.dashboards.colours.assign`


@dataclass(slots=True)
class Page:
    """A report. `bucket` steps share a point; `ready` is the share of ready steps, of a single run."""

    title: str
    groups: list[Group]
    sections: list[tuple[str, bool, list[Chart]]]
    bucket: int
    ready: Curve | None

    @property
    def runs(self) -> list[RecordedRun]:
        return [run for group in self.groups for run in group.runs]

    @property
    def steps(self) -> int:
        return max(run.steps for run in self.runs)

    @property
    def is_comparison(self) -> bool:
        return len(self.runs) > 1


def arrange(runs: list[RecordedRun], points: int = POINTS) -> Page:
    """Returns the page that shows `runs`, with at most so many points per line."""
    groups = _grouped(runs)
    for group, colour in zip(groups, assign([group.runs[0].optimizer for group in groups]), strict=True):
        group.colour = colour
    if len(runs) > 1:
        points = max(FEWEST_POINTS, min(points, POINTS_OF_ALL // len(runs)))
    longest = max(len(series) for run in runs for series in run.series.values())
    bucket = math.ceil(max(run.steps for run in runs) / points) if longest > points else 1
    sections = []
    for section in SECTIONS:
        charts = (
            _single(panel, runs[0], bucket) if len(runs) == 1 else _compared(panel, groups, bucket)
            for panel in section.panels
        )
        found = [chart for of_panel in charts for chart in of_panel if chart.lines]
        if found:
            sections.append((section.title, section.open, found))
    labels = [group.label for group in groups]
    title = ", ".join(labels) if len(labels) <= NAMED else f"{len(labels)} settings"
    title = runs[0].name if len(runs) == 1 else title
    ready = _line("ready", 0, runs[0].series.get("emo/stop_share", Series()), bucket) if len(runs) == 1 else None
    return Page(title, groups, sections, bucket, ready)


def _grouped(runs: list[RecordedRun]) -> list[Group]:
    """Groups in the order of first appearance, labelled by what tells them apart."""
    optimizers: dict[str, set[str]] = {}
    for run in runs:
        optimizers.setdefault(run.group, set()).add(run.optimizer)
    names = [run.group if len(optimizers[run.group]) == 1 else f"{run.group}/{run.optimizer}" for run in runs]
    seeds = Counter((name, run.seed) for name, run in zip(names, runs, strict=True))
    doubtful = {name for (name, _), times in seeds.items() if times > 1}  # such runs differ in more than the seed
    groups: dict[str, list[RecordedRun]] = {}
    for name, run in zip(names, runs, strict=True):
        if name in doubtful:
            name = run.path.resolve().as_posix()
        groups.setdefault(name.strip("/"), []).append(run)
    common = posixpath.commonpath(groups)
    if common in groups:
        common = posixpath.dirname(common)
    return [Group(posixpath.relpath(name, common) if common else name, members) for name, members in groups.items()]


def _single(panel: Panel, run: RecordedRun, bucket: int) -> list[Chart]:
    keys = panel.found(run.series)
    if len(keys) == 1 and _repeats(keys[0], [run]):
        return []
    lines = [_line(key, place, run.series[key], bucket) for place, key in enumerate(keys)]
    if keys and keys[0] == panel.keys[0]:
        low, high = (run.series.get(key, run.series[keys[0]]) for key in panel.band or (keys[0], keys[0]))
        (of_low, least), (of_high, greatest) = _reduced(low, bucket, np.minimum), _reduced(high, bucket, np.maximum)
        if of_low == of_high == lines[0].x:
            lines[0].low, lines[0].high = least, greatest
        if keys[0] == STEP_SIZE:
            lines += _bounds(run, lines[0], bucket)
    return [Chart(panel.title, tuple(map(find, keys)), panel.zero_line, lines)]


def _bounds(run: RecordedRun, used: Curve, bucket: int) -> list[Curve]:
    """Returns the bounds of the pulse of `run`, multiplied as the schedule multiplied what was `used`."""
    x, pulse = _reduced(run.series.get("emo/pulse", Series()), bucket)
    if x != used.x or "emo/factor" in run.series:  # a factor that changes at every step hides the bounds
        return []
    schedule = [size / other if size and other else None for size, other in zip(used.y, pulse, strict=True)]
    sizes = [size for size in pulse if size]
    lines = []
    for name, bound in run.bounds.items() if sizes else ():
        kind = "bound" if min(sizes) / NEAR <= bound <= max(sizes) * NEAR else "far"
        lines.append(Curve(name, 0, x, [share and bound * share for share in schedule], kind=kind))
    return lines


def _repeats(key: str, runs: list[RecordedRun]) -> bool:
    """Whether a metric has the values of another one that is shown before it, to the digits that are shown."""
    first = REPEATS.get(key)
    having = [run for run in runs if key in run.series]
    return first is not None and all(
        first in run.series
        and np.array_equal(run.series[key].x, run.series[first].x)
        and np.allclose(run.series[key].y, run.series[first].y, rtol=CLOSE, equal_nan=True)
        for run in having
    )


def _compared(panel: Panel, groups: list[Group], bucket: int) -> list[Chart]:
    charts = []
    recorded = dict.fromkeys(key for group in groups for run in group.runs for key in run.series)
    runs = [run for group in groups for run in group.runs]
    keys = [key for key in panel.found(recorded) if key not in AVERAGES and not _repeats(key, runs)]
    for key in keys:
        lines = [line for group in groups for line in _lines_of(group, key, bucket)]
        if any(len(line.x) > 1 for line in lines) or max(run.steps for run in runs) == 1:  # else the table tells it
            charts.append(Chart(_title(panel, key, keys), (find(key),), panel.zero_line, lines))
    return charts


def _title(panel: Panel, key: str, keys: list[str]) -> str:
    """Returns the title of the chart of one metric of a panel, in words."""
    kind, _, of_set = key.removesuffix("_loss").partition("/")
    if kind in LOSSES and key.endswith("loss"):
        return LOSSES[kind] + (f" of {of_set}" if of_set != "loss" else "")
    return panel.title if len(keys) == 1 else f"{panel.title}: {find(key).name.replace('_', ' ')}"


def _lines_of(group: Group, key: str, bucket: int) -> list[Curve]:
    found = [_line(group.label, group.colour, run.series[key], bucket) for run in group.runs if key in run.series]
    if len(found) < 2:
        return found
    for line in found:
        line.kind = "seed"
    shared = [{x: y for x, y in zip(line.x, line.y, strict=True) if y is not None} for line in found]
    # only where every run goes on: a mean over the survivors would hide those that broke off
    x = [step for step in found[0].x if all(step in points for points in shared)]
    mean: list[Point] = [statistics.fmean(points[step] for points in shared) for step in x]
    return [*found, Curve(group.label, group.colour, x, mean)]


def _line(name: str, colour: int, series: Series, bucket: int) -> Curve:
    return Curve(name, colour, *_reduced(series, bucket))


def _reduced(series: Series, bucket: int, of: np.ufunc | None = None) -> tuple[list[int], list[Point]]:
    """Returns one x and one y per bucket of steps: `of` its finite values, or their mean."""
    x, y = -(-series.x // bucket) * bucket, series.y
    places = np.unique(x)
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    starts = np.flatnonzero(np.diff(x, prepend=-1))
    if not len(starts):
        return places.tolist(), [None] * len(places)
    values = (of or np.add).reduceat(y, starts)
    if of is None:
        values = values / np.diff(starts, append=len(y))
    by_place = dict(zip(x[starts].tolist(), values.tolist(), strict=True))
    return places.tolist(), [by_place.get(place) for place in places.tolist()]


def smoothed(values: list[Point]) -> list[Point]:
    """Returns the running mean over a thirtieth of a line, as page.js draws it."""
    reach = len(values) // 60
    parts = ([v for v in values[max(at - reach, 0) : at + reach + 1] if v is not None] for at in range(len(values)))
    return [None if value is None else statistics.fmean(part) for value, part in zip(values, parts, strict=True)]
