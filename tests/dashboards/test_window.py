import math

import pytest

from emo_hf.dashboards.window import ROWS, Window, summarize, window_size


@pytest.mark.parametrize(
    ("steps", "size"), [(-1, 1), (0, 1), (1, 1), (5000, 1), (5001, 2), (10_000, 2), (10_001, 3), (1_000_000, 200)]
)
def test_size_keeps_the_rows_within_5000(steps: int, size: int) -> None:
    assert window_size(steps) == size
    assert math.ceil(steps / size) <= ROWS


def test_a_window_of_one_holds_the_exact_values(make) -> None:
    signals = make(lr=0.1 + 0.2, at_ceiling=1.0, ready=1.0, shadow_mix=None)
    row = Window(1).add(7, signals)
    log = signals.log()
    assert row.pop("step") == 7
    assert row.pop("emo/step_seconds") > 0
    assert row.pop("emo/lr_min") == row.pop("emo/lr_max") == log["emo/lr"] == 0.1 + 0.2
    assert row.pop("emo/scalar_min") == row.pop("emo/scalar_max") == log["emo/scalar"]
    assert row["emo/lr_at_ceiling"] == row["emo/stop_share"] == row.pop("emo/stop_count") == 1.0
    assert row["emo/lr_at_floor"] == 0.0
    assert row == log  # nothing else, and no shadow_mix


def test_means_extremes_and_shares(make) -> None:
    window = Window(4)
    steps = [
        make(loss=1.0, lr=1.0, scalar=-0.5, at_ceiling=1.0, ready=1.0),
        make(loss=2.0, lr=4.0, scalar=0.5, at_ceiling=1.0),
        make(loss=3.0, lr=2.0, scalar=0.25, at_ceiling=1.0, ready=1.0),
        make(loss=6.0, lr=1.0, scalar=-0.25, at_floor=1.0),
    ]
    assert [window.add(step, signals) for step, signals in enumerate(steps[:3], start=1)] == [None] * 3
    row = window.add(4, steps[3])
    assert row["step"] == 4
    assert row["emo/loss"] == 3.0
    assert (row["emo/lr"], row["emo/lr_min"], row["emo/lr_max"]) == (2.0, 1.0, 4.0)
    assert (row["emo/scalar"], row["emo/scalar_min"], row["emo/scalar_max"]) == (0.0, -0.5, 0.5)
    assert (row["emo/lr_at_ceiling"], row["emo/lr_at_floor"]) == (0.75, 0.25)
    assert (row["emo/stop_share"], row["emo/stop_count"]) == (0.5, 2)


def test_the_count_of_ready_steps_goes_on(make) -> None:
    window = Window(2, stop_count=10)
    counts = [row["emo/stop_count"] for step in range(6) if (row := window.add(step, make(ready=float(step < 3))))]
    assert counts == [12, 13, 13]


def test_the_last_window_may_be_partial(make) -> None:
    window = Window(10)
    for step in (1, 2, 3):
        assert window.add(step, make(loss=float(step))) is None
    row = window.row()
    assert (row["step"], row["emo/loss"]) == (3, 2.0)
    assert window.row() is None  # and it is not written twice


def test_seconds_are_the_mean_since_the_last_row(make, monkeypatch) -> None:
    clock = iter([100.0, 106.0, 108.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    window = Window(3)
    rows = [row for step in range(6) if (row := window.add(step, make()))]
    assert [row["emo/step_seconds"] for row in rows] == [2.0, pytest.approx(2 / 3)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_left_out_and_named(make, bad: float) -> None:
    window = Window(2)
    window.add(1, make(loss=bad, lr=1.0))
    row = window.add(2, make(lr=bad))
    assert row["nonfinite"] == ["emo/loss", "emo/lr", "emo/lr_min", "emo/lr_max"]
    assert not row.keys() & set(row["nonfinite"])
    assert row["emo/scalar"] == 0.25
    assert "nonfinite" not in (window.add(3, make()) or window.row())


def test_a_generation_without_a_pulse(make) -> None:
    row = Window(1).add(1, make(pulse=None, at_ceiling=None, at_floor=None, factor=0.5))
    assert row["emo/factor"] == 0.5
    assert not row.keys() & {"emo/pulse", "emo/lr_at_ceiling", "emo/lr_at_floor", "emo/at_ceiling"}


def test_summary() -> None:
    rows = [
        {"step": 2, "emo/lr": 1.0, "emo/lr_at_ceiling": 1.0, "emo/stop_share": 0.0},
        {"step": 4, "emo/lr": 5.0, "emo/lr_at_ceiling": 0.5, "emo/stop_share": 0.5},
        {"step": 6, "emo/lr_at_ceiling": 0.0, "emo/stop_share": 1.0, "nonfinite": ["emo/lr"]},
        {"step": 8, "emo/lr": 2.0, "emo/lr_at_ceiling": 0.5, "emo/stop_share": 0.0},
    ]
    assert summarize(rows) == {"emo/lr_median": 2.0, "emo/lr_ceiling_share": 0.5, "emo/first_stop_step": 4}
    assert "emo/first_stop_step" not in summarize(rows[:1])
    assert summarize([]) == {}
