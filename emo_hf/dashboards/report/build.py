"""From a page to one HTML file that needs nothing else: no network, no server, no account.

The tables are HTML; the charts are drawn by page.js with uPlot from JSON in the file. A strict content security
policy lets nothing else run or load.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterator
from html import escape
from importlib import resources
from string import Template
from typing import Any

from emo_hf.dashboards.metrics import Metric
from emo_hf.dashboards.report import tables
from emo_hf.dashboards.report.page import Chart, Curve, Page, arrange
from emo_hf.dashboards.report.runs import RecordedRun

FILES = resources.files(__package__)


def html(runs: list[RecordedRun]) -> str:
    """Returns the report of `runs` as one HTML file."""
    page = arrange(runs)
    style = _file("uplot/uPlot.min.css") + _file("page.css")
    script = _file("uplot/uPlot.iife.min.js") + "\n" + _file("page.js")
    return Template(_file("template.html")).substitute(
        title=escape(page.title),
        smooth="smooth" if page.is_comparison else "",
        smooth_pressed=str(page.is_comparison).lower(),
        subtitle=escape(_subtitle(page)),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        licence=_file("uplot/LICENSE").replace("--", "- -"),
        findings=tables.findings(page),
        summary=tables.summary(page),
        ready=" Shaded: ready to stop." if page.ready and any(page.ready.y) else "",
        sections="".join(_sections(page)),
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
        content = {"axis": first.axis, "range": bounds, "zero": chart.zero_line, "noisy": _is_noisy(chart)}
        return {"title": chart.title, **content, "lines": [line(each) for each in chart.lines]}

    charts = [chart(each) for _, _, found in page.sections for each in found]
    ready = line(page.ready) if page.ready else None
    return {"steps": page.steps, "ready": ready, "charts": charts, "grids": list(grids)}


def _is_noisy(chart: Chart) -> bool:
    """Whether the chart may be smoothed: losses differ from batch to batch, the step size is what it is."""
    return chart.metrics[0].key in ("train/loss", "emo/loss")


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


def _sections(page: Page) -> Iterator[str]:
    number = 0
    for title, is_open, charts in page.sections:
        figures = []
        for chart in charts:
            figures.append(_figure(chart, number))
            number += 1
        yield (
            f"<details{' open' if is_open else ''}><summary><h2>{escape(title)}</h2></summary>"
            f'<div class="charts">{"".join(figures)}</div></details>'
        )


def _figure(chart: Chart, number: int) -> str:
    title, unit = escape(chart.title), escape(chart.metrics[0].unit)
    noisy = " data-noisy" if _is_noisy(chart) else ""
    shared = {line.name: line for line in chart.lines}  # a group's lines have one entry
    legend = "".join(
        f'<li><button type="button" aria-pressed="true" data-name="{escape(name)}">'
        f"{tables.swatch(line.colour)}{escape(name)} <output></output></button></li>"
        for name, line in shared.items()
    )
    return f"""<figure data-chart="{number}"{noisy}>
<figcaption><h3>{title}</h3><span class="unit">{unit}</span>
<button type="button" class="log" aria-label="{title}: logarithmic axis">log</button></figcaption>
<div class="plot" tabindex="0" role="application" aria-label="{title}, line chart" aria-describedby="keys"></div>
<ul class="legend">{legend}</ul>
<details class="how"><summary>How to read it</summary><dl>{"".join(map(_reading, chart.metrics))}</dl></details>
</figure>"""


def _reading(metric: Metric) -> str:
    facts = [
        f"{metric.meaning[:1].upper()}{metric.meaning[1:]} ({metric.range_text}).",
        f"Healthy: {metric.healthy}." if metric.healthy else "",
        f"Act: {metric.act}." if metric.act else "",
    ]
    return f"<dt>{escape(metric.key)}</dt>" + "".join(f"<dd>{escape(fact)}</dd>" for fact in facts if fact)
