"""`StepAxis` against W&B's rule: a row for a step before the counter is dropped, one for the counter's is joined."""

from types import SimpleNamespace
from typing import Any

import pytest

from emo_hf.dashboards.sinks import STEP
from emo_hf.dashboards.step_axis import StepAxis
from emo_hf.dashboards.window import merged

Row = dict[str, Any]


class Run:
    """The counter of a W&B run; `rows` holds what it has recorded."""

    def __init__(self) -> None:
        self.step = 0
        self.rows: dict[int, Row] = {}
        self.dropped = 0
        self.settings = SimpleNamespace(mode="offline")

    def log(self, row: Row, step: int | None = None, commit: bool | None = None) -> None:
        if step is not None and step < self.step:
            self.dropped += 1
            return
        self.step = self.step if step is None else step
        self.rows.setdefault(self.step, {}).update(row)
        self.step += commit if commit is not None else step is None

    def of(self, key: str) -> list[tuple[int, Any]]:
        """Where on the axis of the optimizer a key is, with its values."""
        return [(row[STEP], row[key]) for row in self.rows.values() if key in row]


def ours(step: int, value: float | None = None) -> Row:
    value = float(step) if value is None else value
    return {"step": step, "emo/lr": value, "emo/lr_min": value, "emo/lr_max": value, "emo/stop_count": step}


def train(
    run: Run,
    axis: StepAxis,
    steps: int = 12,
    every: int = 1,
    logging: int = 4,
    guarded: bool = True,
    evaluates: bool = True,
    user: Any = lambda run, step: None,
) -> None:
    """Does what happens in a training; `user` may log at the end of every step."""

    def trainers(row: Row, step: int) -> None:
        axis.log({**row, STEP: step}, step) if guarded else run.log({**row, STEP: step})

    for step in range(1, steps + 1):
        if step % every == 0:
            axis.add(ours(step))
        if step % logging == 0:
            trainers({"train/loss": 1.0}, step)
        user(run, step)
        if step % logging == 0 and evaluates:
            trainers({"eval/a_loss": 1.0}, step)
            trainers({"eval/b_loss": 1.0}, step)
            user(run, step)
    axis.close()


def at_step(run: Run, step: int) -> None:
    run.log({"mine": step}, step=step)


@pytest.mark.parametrize("logging", [1, 4, 5])
def test_what_belongs_to_a_step_is_one_row_of_that_step(logging: int) -> None:
    run = Run()
    train(run, StepAxis(run), logging=logging, user=at_step)
    assert run.dropped == 0
    assert run.of("mine") == run.of("emo/lr") == [(step, step) for step in range(1, 13)]
    assert [step for step, _ in run.of("train/loss")] == [step for step, _ in run.of("eval/b_loss")]
    assert [step for step, _ in run.of("train/loss")] == list(range(logging, 13, logging))
    assert set(run.rows) == set(range(1, 13))


@pytest.mark.parametrize("odd", [2, 3, 5])
def test_rows_of_the_user_at_some_steps(odd: int) -> None:
    run = Run()
    train(run, StepAxis(run), user=lambda run, step: None if step % odd else at_step(run, step))
    assert run.dropped == 0
    assert run.of("mine") == [(step, step) for step in range(odd, 13, odd)]
    assert len(run.of("emo/lr")) == 12


def test_rows_of_the_user_without_a_step_cost_neither_side_a_row() -> None:
    run = Run()
    train(run, StepAxis(run), user=lambda run, step: run.log({"mine": step}))
    assert run.of("emo/lr") == [(step, step) for step in range(1, 13)]
    assert sum("mine" in row for row in run.rows.values()) == 12 + 3


def test_a_counter_that_is_ahead_is_caught_up_with() -> None:
    run = Run()

    def user(run: Run, step: int) -> None:
        if step == 5:
            for _ in range(3):
                run.log({"note": 1})
        if step > 8:
            at_step(run, step)

    train(run, StepAxis(run), user=user, logging=20)
    assert run.dropped == 0
    assert run.of("mine") == [(step, step) for step in range(9, 13)]
    rows = [(row[STEP], row["emo/lr_min"], row["emo/lr_max"]) for row in run.rows.values() if "emo/lr" in row]
    assert rows[:5] == [(step, step, step) for step in range(1, 6)]
    assert rows[5:] == [(6, 6, 6), (9, 7, 9), (10, 10, 10), (11, 11, 11), (12, 12, 12)]


@pytest.mark.parametrize("guarded", [True, False])
def test_rows_of_windows_share_none_with_later_steps(guarded: bool) -> None:
    run = Run()
    axis = StepAxis(run, total_steps=12_000, lag=0 if guarded else 1)
    train(run, axis, every=3, guarded=guarded, evaluates=guarded)
    assert run.of("emo/lr") == [(step, step) for step in (3, 6, 9, 12)]
    assert [step for step, _ in run.of("train/loss")] == [4, 8, 12]


def test_rows_of_windows_leave_the_users() -> None:
    run = Run()
    train(run, StepAxis(run, total_steps=12_000), every=3, user=at_step)
    assert run.dropped == 0
    assert {place: row["mine"] for place, row in run.rows.items() if "mine" in row} == {n: n for n in range(1, 13)}
    assert [value for _, value in run.of("emo/lr")] == [3, 6, 9, 12]


def test_beside_trainers_own_logs_ours_stay_one_behind() -> None:
    run = Run()

    def user(run: Run, step: int) -> None:
        if step % 4 == 0 and "eval/b_loss" not in run.rows.get(run.step - 1, {}):  # on_log, not on_evaluate
            at_step(run, step)

    train(run, StepAxis(run, lag=1), guarded=False, user=user)
    assert run.dropped == 0
    assert len([row for row in run.rows.values() if "mine" in row]) == 3
    assert [step for step, _ in run.of("train/loss")] == [4, 8, 12]


def test_a_second_evaluation_of_other_weights_has_a_row_of_its_own() -> None:
    run = Run()
    axis = StepAxis(run)
    axis.log({"eval/loss": 1.0, "eval/runtime": 0.1, STEP: 4}, 4)
    axis.log({"eval/loss": 1.0, "eval/runtime": 0.2, STEP: 4}, 4)
    assert run.step == 4  # the same
    axis.log({"eval/loss": 2.0, "eval/runtime": 0.1, STEP: 4}, 4)
    assert run.of("eval/loss") == [(4, 1.0), (4, 2.0)]
    axis.log({"test/accuracy": 1.0}, None)  # Trainer.predict() tells no step
    assert run.rows[run.step]["test/accuracy"] == 1.0


def test_a_second_training_in_the_same_run_follows_the_first() -> None:
    run = Run()
    train(run, StepAxis(run, total_steps=12))
    train(run, StepAxis(run, total_steps=12))
    assert run.of("emo/lr") == 2 * [(step, step) for step in range(1, 13)]


def test_merged_rows_are_those_of_a_longer_window() -> None:
    row = merged(
        [{**ours(1), "emo/loss": 2.0, "emo/drift": 1.0}, {**ours(2), "emo/drift": 3.0, "nonfinite": ["emo/loss"]}]
    )
    assert row == {
        "step": 2,
        "emo/lr": 1.5,
        "emo/lr_min": 1.0,
        "emo/lr_max": 2.0,
        "emo/stop_count": 2,
        "emo/drift": 2.0,
        "nonfinite": ["emo/loss"],
    }
