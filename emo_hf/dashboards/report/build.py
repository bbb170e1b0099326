"""From a page to one HTML file that needs nothing else: no network, no server, no account.

The tables are HTML; the charts are drawn by page.js with uPlot from JSON in the file. A strict content security
policy lets nothing else run or load.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterator
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from emo_hf.dashboards import colours
from emo_hf.dashboards.metrics import Metric
from emo_hf.dashboards.report import ramp, tables
from emo_hf.dashboards.report.page import BOUNDS, Chart, Curve, Page, arrange
from emo_hf.dashboards.report.ramp import Ramp
from emo_hf.dashboards.report.runs import RecordedRun

FILES = resources.files(__package__)


def html(runs: list[RecordedRun]) -> str:
    """Returns the report of `runs` as one HTML file. Its template escapes every value but those marked as safe."""
    page = arrange(runs)
    style = _file("uplot/uPlot.min.css") + _file("page.css") + colours.style() + ramp.style()
    script = _file("uplot/uPlot.iife.min.js") + "\n" + _file("page.js")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_file("template.html"))
    return template.render(
        title=page.title,
        colours=len(colours.PALETTE),
        smooth=page.is_comparison,
        subtitle=_subtitle(page),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        licence=_file("uplot/LICENSE").replace("--", "- -"),
        findings=tables.findings(page),
        tiles=tables.tiles(page),
        summary=tables.summary(page),
        ready=bool(page.ready and any(page.ready.y)),
        sections=list(_sections(page)),
        ramps=_ramps(page),
        numbers=tables.runs(page) if page.is_comparison else tables.ranges(page.runs[0]),
        data=_json(_data(page)),
    )


def _file(name: str) -> str:
    return FILES.joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _json(content: Any) -> str:
    """Returns JSON that no part of it can break out of a script element."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _data(page: Page) -> dict[str, Any]:
    """Returns what page.js draws. Lines refer to their x values by number, since most lines share them."""
    grids: dict[tuple[int, ...], int] = {}

    def line(line: Curve) -> dict[str, Any]:
        band = {"low": _short(line.low), "high": _short(line.high)} if line.low != line.high else {}
        grid = grids.setdefault(tuple(line.x), len(grids))
        return {"name": line.name, "kind": line.kind, "colour": line.colour, "grid": grid, "y": _short(line.y), **band}

    def chart(chart: Chart) -> dict[str, Any]:
        first = chart.metrics[0]
        bounds = [bound if math.isfinite(bound) else None for bound in first.range]
        content = {"axis": first.axis, "range": bounds, "zero": chart.zero_line, "noisy": chart.metrics[0].is_noisy}
        return {"title": chart.title, **content, "lines": [line(each) for each in chart.lines]}

    charts = [chart(each) for _, _, found in page.sections for each in found]
    ready = line(page.ready) if page.ready else None
    palette = len(colours.PALETTE)
    return {"steps": page.steps, "palette": palette, "ready": ready, "charts": charts, "grids": list(grids)}


def _short(values: list[float | None]) -> list[float | None]:
    """Five digits are more than a screen shows."""
    rounded = (None if value is None else float(f"{value:.5g}") for value in values)
    return [int(value) if value is not None and value.is_integer() else value for value in rounded]


def _subtitle(page: Page) -> str:
    steps = f"{page.steps:,} steps"
    if page.bucket > 1:
        steps += f", {page.bucket} to a point"
    if page.is_comparison:
        return f"{len(page.runs)} runs of {len(page.groups)} settings, {steps}"
    run = page.runs[0]
    return " · ".join(part for part in (run.optimizer, steps, str(run.path)) if part)


def _ramps(page: Page) -> dict[str, Any] | None:
    """Returns the drawing of the ramps of all runs of EmoFree, None if there are none."""
    ramps = [each for run in page.runs if (each := Ramp.of(run)) is not None]
    return {"open": len(ramps) <= ramp.COLUMNS, "svg": ramp.svg(ramps), "reading": ramp.READING} if ramps else None


def _sections(page: Page) -> Iterator[tuple[str, bool, list[tuple[int, dict[str, Any]]]]]:
    """Yields the title of each section, whether it is open, and its charts with their numbers."""
    number = 0
    for title, is_open, charts in page.sections:
        yield title, is_open, [(number + place, _figure(chart)) for place, chart in enumerate(charts)]
        number += len(charts)


def _figure(chart: Chart) -> dict[str, Any]:
    return {
        "title": chart.title,
        "unit": chart.metrics[0].unit,
        "noisy": chart.metrics[0].is_noisy,
        # a group's lines have one entry
        "legend": [(name, *look) for name, look in {line.name: _look(line) for line in chart.lines}.items()],
        "reading": [(metric.key, list(_reading(metric))) for metric in chart.metrics],
    }


def _look(line: Curve) -> tuple[int, bool]:
    return line.colour, line.kind in BOUNDS


def _reading(metric: Metric) -> Iterator[str]:
    yield f"{metric.meaning[:1].upper()}{metric.meaning[1:]} ({metric.range_text})."
    if metric.healthy:
        yield f"Healthy: {metric.healthy}."
    if metric.act:
        yield f"Act: {metric.act}."
