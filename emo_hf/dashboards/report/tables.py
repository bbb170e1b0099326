"""The parts of the HTML report that are text: what stands out, what sums up, and every metric in numbers.

They are data here; template.html makes elements of them, and escapes whatever it prints.
"""

import math
import re
import statistics
from typing import NamedTuple

from emo_hf.dashboards.diagnosis import Finding, diagnose
from emo_hf.dashboards.metrics import METRICS, find, of_sets
from emo_hf.dashboards.report import numbers
from emo_hf.dashboards.report.numbers import Number
from emo_hf.dashboards.report.page import Group, Page
from emo_hf.dashboards.report.runs import RecordedRun

NONE = "-"
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?%?(?!\w)")  # by itself, not within a name


class Cell(NamedTuple):
    """A number as text, and the spread behind it."""

    text: str
    spread: str = ""


class Row(NamedTuple):
    """A row of a table: its heading, with the mark of a line's colour, and its cells."""

    name: str
    cells: list[Cell]
    colour: int | None = None


class Table(NamedTuple):
    """A table. `kind` "words": the last cell of each row is text, not a number."""

    caption: str
    head: list[str]
    rows: list[Row]
    kind: str = ""


def findings(page: Page) -> list[tuple[str, Finding]]:
    """Returns the diagnosis of every run, then what else stands out, each with the names of its runs in a comparison.

    Runs of which the same is said share a line, named by their group where they are all of it. Within a group it may
    differ in its numbers: the line gives their ranges.
    """
    said: dict[tuple[bool, int, str], list[tuple[RecordedRun, Finding]]] = {}  # by diagnosis or not, group, and words
    for place, group in enumerate(page.groups):
        for run in group.runs:
            for number, finding in enumerate(diagnose(run)):
                said.setdefault((number > 0, place, NUMBER.sub("", finding.text)), []).append((run, finding))
    lines: dict[tuple[bool, Finding], dict[int, list[RecordedRun]]] = {}
    for (others, place, _), found in said.items():
        finding = found[0][1]._replace(text=_with_ranges([finding.text for _, finding in found]))
        lines.setdefault((others, finding), {})[place] = [run for run, _ in found]
    ordered = sorted(lines.items(), key=lambda item: item[0][0])
    return [(_names(page, found) if page.is_comparison else "", finding) for (_, finding), found in ordered]


def _with_ranges(texts: list[str]) -> str:
    """Returns the text, which differs only in its numbers from all others, with "least to greatest" in their place."""
    ranges = []
    for differing in zip(*map(NUMBER.findall, texts), strict=True):
        ordered = sorted(differing, key=lambda number: float(number.strip("%").replace(",", "")))
        ranges.append(" to ".join(dict.fromkeys((ordered[0], ordered[-1]))))
    found = iter(ranges)
    return NUMBER.sub(lambda _: next(found), texts[0])


def _names(page: Page, found: dict[int, list[RecordedRun]]) -> str:
    groups = ((page.groups[place], runs) for place, runs in found.items())
    names = ([g.label] if len(runs) == len(g.runs) else [_name(g, run) for run in runs] for g, runs in groups)
    return ", ".join(name for each in names for name in each)


def tiles(page: Page) -> list[tuple[str, Cell]]:
    """Returns the numbers that sum up the only run, by name; none of a comparison."""
    if page.is_comparison:
        return []
    names, rows = _summed(page)
    return [(name, _stat([rows[0][0][name]])) for name in names]


def summary(page: Page) -> Table:
    """Returns the table with a row per group."""
    names, rows = _summed(page)
    body = []
    for group, found in zip(page.groups, rows, strict=True):
        stats = [_stat([row.get(name) for row in found]) for name in names]
        body.append(Row(group.label, [Cell(str(len(found))), *stats], group.colour))
    return Table("Mean ± standard deviation over the runs of each", ["", "runs", *names], body)


def runs(page: Page) -> Table:
    """Returns the table of all runs of a comparison."""
    names, rows = _summed(page)
    body = [
        Row(_name(group, run), [*(_stat([row.get(name)]) for name in names), Cell(str(run.path))], group.colour)
        for group, found in zip(page.groups, rows, strict=True)
        for run, row in zip(group.runs, found, strict=True)
    ]
    return Table("Every run", ["", *names, "from"], body, "words")


def ranges(run: RecordedRun) -> Table:
    """Returns the table of all metrics of a run."""
    body = [
        Row(key, [*(Cell(_text(value)) for value in numbers.ranges(run.series[key])), Cell(find(key).meaning)])
        for key in (*METRICS, *of_sets(run.series))
        if key in run.series
    ]
    return Table("Every metric", ["", "first", "least", "median", "greatest", "last", "meaning"], body, "words")


def _summed(page: Page) -> tuple[list[str], list[list[dict[str, Number]]]]:
    """Returns the names of the numbers that some run has, and for each group those of its runs."""
    rows = [[numbers.summary(run) for run in group.runs] for group in page.groups]
    everyone = [row for found in rows for row in found]
    names = dict.fromkeys(name for row in everyone for name, value in row.items() if value is not None)
    return list(names), rows


def _name(group: Group, run: RecordedRun) -> str:
    return group.label if run.seed is None else f"{group.label} seed {run.seed}"


def _stat(values: list[Number]) -> Cell:
    """Returns mean and standard deviation; a mean with a missing value is missing."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return Cell(NONE)
    if len(numbers) == 1 or not all(map(math.isfinite, numbers)):
        return Cell(_text(statistics.fmean(numbers)))
    spread = statistics.stdev(numbers)
    return Cell(_text(statistics.fmean(numbers)), f"{float(f'{spread:.2g}'):g}" if spread else "")


def _text(value: Number) -> str:
    if value is None:
        return NONE
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"
