"""W&B's own counter of rows, kept at the optimizer step.

W&B drops a row that is logged for a step (``wandb.log(..., step=trainer.state.global_step)``, as many people do) once
its counter is past that step. A log without a step moves the counter by one, and Trainer's callback logs so. With one
row of ours per step the counter would soon be ahead, and the user's rows would be lost. Hence, where it can be:

    row of step n, ours or Trainer's    joins W&B's row n, which stays open for what the user logs at step n
    the counter is past n already       ours wait and go with a later step, as the row of a window of steps

So the counter is never moved past the optimizer step by a row of ours, and what belongs to a step is one row of W&B.
"""

from typing import Any

from emo_hf.dashboards.sinks import STEP, values
from emo_hf.dashboards.window import LogRow, merged, window_size
from emo_hf.errors import DashboardError

COST = ("runtime", "_per_second")  # differ each time
PLAIN = (bool, int, float, str)


class StepAxis:
    """Logs to one run. What W&B raises is not caught, and `DashboardError` is raised where its service has ended."""

    def __init__(self, run: Any, total_steps: int = 0, lag: int = 0) -> None:
        """
        Args:
            run: an open run of W&B.
            total_steps: length of the training. A counter that is past it (an earlier training in the same run) is
                taken as the zero of this one.
            lag: by how many rows ours stay behind the step, where Trainer's own logs move the counter.
        """
        self._run = run
        counter = self._counter()
        self._offset = counter if 0 < total_steps <= counter else 0
        self._closing = window_size(total_steps) > 1  # a row of Trainer's own logs may come between two of ours
        self._lag = lag
        self._place, self._step = -1, -1  # W&B's row that is open, and the optimizer step that it belongs to
        self._open: LogRow = {}
        self._waiting: list[LogRow] = []

    @staticmethod
    def fits(run: Any) -> bool:
        """Whether the steps of a run can be set: not in a run that several processes or TensorBoard write."""
        import wandb

        return not (run.settings.mode == "shared" or wandb.patched["tensorboard"])

    def add(self, row: LogRow) -> None:
        """Logs a row of ours, or lets it wait for a place."""
        self._waiting.append(row)
        at = row["step"] + self._offset
        place, counter = self._find_place(at - 1 if self._closing else at - self._lag, row["step"], {})
        if place <= max(at - self._lag, counter):  # no push past the step
            self._write({}, row["step"], place, close=self._closing and place < at)

    def log(self, row: LogRow, step: int | None) -> None:
        """Logs a row of Trainer; without a step it belongs to the last one."""
        step = self._step if step is None else step
        self._write(row, step, self._find_place(step + self._offset, step, row)[0])

    def close(self) -> None:
        """Writes what still waits."""
        if self._waiting:
            self.log({}, self._waiting[-1]["step"])

    def _counter(self) -> int:
        try:
            counter: int = self._run.step
        except Exception as error:  # without a word, if the service is gone
            raise DashboardError(f"its service process does not answer ({type(error).__name__})") from error
        return counter

    def _find_place(self, goal: int, step: int, row: LogRow) -> tuple[int, int]:
        """Returns W&B's row for a row of ours or Trainer's, `goal` or a later one, and where the counter is now."""
        counter = self._counter()
        place = max(goal, counter)
        if place == self._place and (step != self._step or self._clashes(row)):
            place += 1
        return place, counter

    def _clashes(self, row: LogRow) -> bool:
        """Whether a value of the open row would be lost: in a second evaluation at the same step, of other weights."""
        kept = {key: value for key, value in self._open.items() if key in row and not key.endswith(COST)}
        return any(not isinstance(value, PLAIN) or value != row[key] for key, value in kept.items())

    def _write(self, row: LogRow, step: int, place: int, close: bool = False) -> None:
        if self._waiting and self._waiting[-1]["step"] <= step:
            row = {**values(merged(self._waiting)), STEP: step, **row}
            self._waiting = []
        self._run.log(row, step=place, commit=close or None)
        kept = self._open if place == self._place else {}
        self._place, self._step, self._open = -1 if close else place, step, {**kept, **row}
