"""Every metric is declared once, and what is declared holds."""

import math
import random

import pytest

from emo_hf import registry
from emo_hf.dashboards.metrics import METRICS, OF_ROWS, OF_TRAINER, SECTIONS, SUMMARY, Metric
from emo_hf.dashboards.window import Window, summarize
from emo_hf.signals import KEYS, PREFIX
from scripts import signals_page
from tests import ROOT

PANELS = [panel for section in SECTIONS for panel in section.panels]


def test_rows_hold_the_declared_metrics_and_no_others(make) -> None:
    every_signal = make(**dict.fromkeys(KEYS, 0.5))
    row = Window(1).add(1, every_signal)
    row.pop("step")
    assert list(row) == [metric.key for metric in OF_ROWS]
    assert list(METRICS) == [*row, *(metric.key for metric in OF_TRAINER)]


def test_the_summary_holds_the_declared_numbers() -> None:
    row = {"step": 1, "emo/lr": 1.0, "emo/lr_at_ceiling": 0.0, "emo/stop_share": 1.0}
    settings = {"emo_found_lr": 1e-3, "emo_found_after": 9}
    assert {*summarize([row], settings), "best/eval_loss"} == SUMMARY.keys()  # the latter comes with the evaluations


def test_all_but_the_raw_trust_are_on_a_panel() -> None:
    on_panels = [key for panel in PANELS for key in panel.metrics]
    assert METRICS.keys() - set(on_panels) == {"emo/trust"}
    assert len(on_panels) == len(set(on_panels))
    assert METRICS.keys() >= set(on_panels)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_the_lines_of_a_panel_share_an_axis(panel) -> None:
    metrics = [METRICS[key] for key in panel.metrics]
    assert len({metric.axis for metric in metrics}) == 1
    if panel.band:
        assert panel.band == tuple(f"{panel.keys[0]}_{end}" for end in ("min", "max"))
    assert not (panel.zero_line and panel.first.axis == "log")


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.key)
def test_a_metric_says_what_it_is_and_what_is_healthy(metric: Metric) -> None:
    assert metric.meaning
    assert metric.healthy
    low, high = metric.range
    assert low < high
    assert (metric.axis == "fixed") <= (math.isfinite(low) and math.isfinite(high))
    assert metric.axis != "log" or low == 0
    for text in (metric.meaning, metric.healthy, metric.act):
        assert text == text.strip()
        assert not text.endswith(".")


@pytest.mark.parametrize(
    ("axis", "limits", "text"),
    [
        ("linear", (-math.inf, math.inf), "any"),
        ("log", (0, math.inf), "> 0"),
        ("linear", (0, math.inf), ">= 0"),
        ("fixed", (-1, 1), "[-1, 1]"),
    ],
)
def test_the_range_in_words(axis, limits, text: str) -> None:
    assert Metric("key", axis, limits, "", "", "").range_text == text


def losses() -> list[float]:
    """Falls, jumps, stands still, rises: every zone of every mechanism."""
    draw = random.Random(0)
    falling = [3 * math.exp(-i / 60) + 0.2 + draw.gauss(0, 0.02) for i in range(200)]
    jumping = [draw.choice((0.1, 0.5, 4.0)) for _ in range(100)]
    return [*falling, *jumping, *([0.02] * 100), *(0.02 * 1.1**i for i in range(60))]


@pytest.mark.parametrize("row", registry.specs(), ids=lambda row: row.key)
def test_signals_stay_within_their_ranges(row) -> None:
    mechanism = row.mechanism
    state = mechanism.start()
    lr = row.options["lr"]
    limits = {metric.name: metric.range for metric in OF_ROWS}
    for loss in losses():
        mechanism.advance(state, loss)
        signals = mechanism.signals(state, loss, mechanism.rate(state, lr, lr))
        values = Window(1).add(1, signals)
        for key in values.keys() - {"step", "nonfinite"}:
            low, high = limits[key.removeprefix(PREFIX)]
            assert low <= values[key] <= high, (key, values[key], loss)


def test_the_page_is_the_generated_one() -> None:
    committed = (ROOT / "docs" / "signals.md").read_text(encoding="utf-8")
    assert committed == signals_page.page(), "run: python -m scripts.signals_page docs/signals.md"
    for key in (*METRICS, *SUMMARY):
        assert f"| `{key}` |" in committed
