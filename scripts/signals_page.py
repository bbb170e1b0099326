"""Writes the page of all metrics, from their declarations.

    python -m scripts.signals_page docs/signals.md

A test compares the generated page with the one on record.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from emo_hf.dashboards.diagnosis import RULES, WHERE
from emo_hf.dashboards.health import WHEN
from emo_hf.dashboards.metrics import METRICS, SECTIONS, SUMMARY, Metric

INTRO = """\
# Signals

What an emotion-driven optimizer saw and decided at every step, under the names that every dashboard uses. The x axis
is the optimizer step: `step` in `emo_signals.jsonl`, `train/global_step` in W&B and trackio. A row holds one step, or
the mean over a window of steps in trainings of more than 5,000; `_min` and `_max` are the extremes of the window, and
shares count its steps. A generation has the signals that it computes; the others are absent. Values that are not
finite are left out of a row and named in its `nonfinite`.

How to open them: [dashboards](dashboards.md). What they are made of:
[how the loss becomes a step](how-the-loss-becomes-a-step.md)."""

SAID = "It logs a warning, with advice, once for each of these:"


def page() -> str:
    """Returns the page as Markdown."""
    shown = {key: section.title for section in SECTIONS for panel in section.panels for key in panel.metrics}
    lines = [INTRO]
    for section in SECTIONS:
        lines += ["", f"## {section.title}", "", *_table(METRICS[key] for key in shown if shown[key] == section.title)]
    lines += ["", "## On no panel", "", *_table(metric for key, metric in METRICS.items() if key not in shown)]
    lines += ["", "## At the end of a run", "", "| summary | meaning |", "|---|---|"]
    lines += [f"| `{key}` | {meaning} |" for key, meaning in SUMMARY.items()]
    lines += [
        "",
        "## What a training says by itself",
        "",
        SAID,
        "",
        *(f"* {when};" for when in WHEN[:-1]),
        f"* {WHEN[-1]}.",
        "",
        "## The diagnosis line",
        "",
        WHERE,
        "",
        *(f"{place}. {rule.when}" + (";" if rule is not RULES[-1] else ".") for place, rule in enumerate(RULES, 1)),
    ]
    return "\n".join([*lines, ""])


def _table(metrics: Iterable[Metric]) -> list[str]:
    rows = ["| metric | range | axis | meaning | healthy | act |", "|---|---|---|---|---|---|"]
    for metric in metrics:
        span = ", ".join(filter(None, (metric.range_text, metric.unit)))
        cells = (f"`{metric.key}`", span, metric.axis, metric.meaning, metric.healthy, metric.act)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return rows


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
