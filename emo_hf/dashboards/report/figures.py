"""One picture of a run or a comparison: the first section of the report, for model cards and papers.

By matplotlib and not by a browser: on a cluster it is one ``pip install`` away, and pictures are the same everywhere.
"""

import math
import textwrap
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from emo_hf.dashboards.colours import look
from emo_hf.dashboards.jsonl import write_whole
from emo_hf.dashboards.report.page import BOUNDS, Chart, Curve, Page, arrange, smoothed
from emo_hf.dashboards.report.runs import RecordedRun

READY, MUTED = "#2f9e6e", "#5a6675"
COLUMNS = 3
POINTS = 200  # per line: a chart is four inches wide


def draw(runs: list[RecordedRun], path: Path) -> None:
    """Draws `runs` into the file `path`."""
    page = arrange(runs, POINTS)
    charts = page.sections[0][2]
    columns = min(COLUMNS, len(charts))
    rows = math.ceil(len(charts) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.3 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, chart in zip(grid.flat, charts, strict=False):
        _draw_chart(axes, chart, page)
    for axes in grid.flat[len(charts) :]:
        axes.set_axis_off()
    figure.suptitle("\n".join(textwrap.wrap(page.title, 38 * columns)), fontsize=13, weight="bold")
    if page.is_comparison:  # one legend for all
        labelled = [axes.get_legend_handles_labels() for axes in grid.flat]
        named = {name: line for lines, names in labelled for line, name in zip(lines, names, strict=True)}
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=2 * columns, frameon=False)
    picture = BytesIO()
    figure.savefig(picture, dpi=110)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, picture.getvalue())


def _draw_chart(axes: Axes, chart: Chart, page: Page) -> None:
    has_mean = {line.name for line in chart.lines if line.kind == "seed"}
    for line in chart.lines:
        if page.is_comparison and chart.metrics[0].is_noisy and line.kind == "main":
            _draw_line(axes, replace(line, kind="seed"), thick=False)
            line = replace(line, y=smoothed(line.y))
        _draw_line(axes, line, thick=line.name in has_mean)
    if page.ready:
        shares = [share or 0.0 for share in page.ready.y]
        style: dict[str, Any] = {"color": READY, "alpha": 0.3, "linewidth": 0}
        axes.fill_between(page.ready.x, 0, shares, step="pre", transform=axes.get_xaxis_transform(), **style)
    _scale(axes, chart)
    axes.set(xlabel="step", ylabel=chart.metrics[0].unit, xlim=(0, 1.02 * page.steps))
    smooth = ", smoothed" if page.is_comparison and chart.metrics[0].is_noisy else ""
    axes.set_title(f"{chart.title}{smooth}", fontsize=10.5)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if not page.is_comparison:
        axes.legend(frameon=False, fontsize=8.5)


def _draw_line(axes: Axes, line: Curve, thick: bool) -> None:
    y = _gapped(line.y)
    if line.kind in BOUNDS:
        if line.kind == "bound":
            axes.plot(line.x, y, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), label=line.name)
        return
    colour, dashed = look(line.colour)
    style: dict[str, Any] = {
        "color": colour,
        "linestyle": "--" if dashed else "-",
        "marker": "o" if len(line.x) == 1 else None,
    }
    if line.kind == "seed":
        axes.plot(line.x, y, alpha=0.3, linewidth=0.8, markersize=3, **style)
        return
    axes.plot(line.x, y, label=line.name, linewidth=1.8 if thick else 1.2, markersize=5, **style)
    if line.low != line.high:
        axes.fill_between(line.x, _gapped(line.low), _gapped(line.high), color=style["color"], alpha=0.2, linewidth=0)


def _gapped(values: list[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _scale(axes: Axes, chart: Chart) -> None:
    metric = chart.metrics[0]
    values = [value for line in chart.lines for value in line.y if value is not None]
    if metric.axis == "log" and values and min(values) > 0:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 10 * low else MaxNLocator(5))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    elif metric.axis == "fixed":
        low, high = metric.range
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    if chart.zero_line:
        axes.axhline(0.0, color="black", linewidth=0.8)
