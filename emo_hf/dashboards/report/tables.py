"""The parts of the HTML report that are text: what stands out, what sums up, and every metric in numbers."""

import math
import statistics
from html import escape

from emo_hf.dashboards.metrics import METRICS, find, of_sets
from emo_hf.dashboards.report import numbers
from emo_hf.dashboards.report.numbers import Number
from emo_hf.dashboards.report.page import COLOURS, Group, Page
from emo_hf.dashboards.report.runs import RecordedRun

NONE = "-"


def findings(page: Page) -> str:
    """Returns a list of what stands out, empty if nothing does."""
    found = []
    for group in page.groups:
        for run in group.runs:
            of = f"<b>{escape(_name(group, run))}</b>: " if page.is_comparison else ""
            found += [f"<li>{of}{escape(text)}</li>" for text in numbers.findings(run)]
    return f'<ul class="findings" aria-label="What stands out">{"".join(found)}</ul>' if found else ""


def summary(page: Page) -> str:
    """Returns tiles for one run; a table with a row per group for several."""
    names, rows = _summed(page)
    if not page.is_comparison:
        tiles = (f"<div><dt>{name}</dt><dd>{_stat([rows[0][0][name]])}</dd></div>" for name in names)
        return f'<dl class="tiles">{"".join(tiles)}</dl>'
    body = []
    for place, (group, found) in enumerate(zip(page.groups, rows, strict=True)):
        stats = [_stat([row.get(name) for row in found]) for name in names]
        body.append([swatch(place) + escape(group.label), str(len(found)), *stats])
    return _table("Mean ± standard deviation over the runs of each", ["", "runs", *names], body)


def runs(page: Page) -> str:
    """Returns the table of all runs of a comparison."""
    names, rows = _summed(page)
    body = [
        [swatch(place) + escape(_name(group, run)), *(_stat([row.get(name)]) for name in names), escape(str(run.path))]
        for place, (group, found) in enumerate(zip(page.groups, rows, strict=True))
        for run, row in zip(group.runs, found, strict=True)
    ]
    return _table("Every run", ["", *names, "from"], body, "words")


def ranges(run: RecordedRun) -> str:
    """Returns the table of all metrics of a run."""
    body = []
    for key in (*METRICS, *of_sets(run.series)):
        if key in run.series:
            body.append([escape(key), *map(_text, numbers.ranges(run.series[key])), escape(find(key).meaning)])
    return _table("Every metric", ["", "first", "least", "median", "greatest", "last", "meaning"], body, "words")


def _summed(page: Page) -> tuple[list[str], list[list[dict[str, Number]]]]:
    """Returns the names of the numbers that some run has, and for each group those of its runs."""
    rows = [[numbers.summary(run) for run in group.runs] for group in page.groups]
    everyone = [row for found in rows for row in found]
    names = dict.fromkeys(name for row in everyone for name, value in row.items() if value is not None)
    return list(names), rows


def _name(group: Group, run: RecordedRun) -> str:
    return group.label if run.seed is None else f"{group.label} seed {run.seed}"


def swatch(colour: int) -> str:
    """Returns the mark of a line's colour."""
    return f'<i class="swatch c{colour % COLOURS}{" more" if colour >= COLOURS else ""}"></i>'


def _stat(values: list[Number]) -> str:
    """Returns mean and standard deviation; a mean with a missing value is missing."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return NONE
    if len(numbers) == 1 or not all(map(math.isfinite, numbers)):
        return _text(statistics.fmean(numbers))
    spread = statistics.stdev(numbers)
    return _text(statistics.fmean(numbers)) + (f" <small>± {float(f'{spread:.2g}'):g}</small>" if spread else "")


def _text(value: Number) -> str:
    if value is None:
        return NONE
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"


def _table(caption: str, head: list[str], rows: list[list[str]], kind: str = "") -> str:
    """Returns a table; the cells are HTML, the first of each row is its heading. `kind` "words": so is the last."""
    top = "".join(f'<th scope="col">{text}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f'<table class="{kind}"><caption>{caption}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
