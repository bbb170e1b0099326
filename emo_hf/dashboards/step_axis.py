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
from emo_hf.dashboards.window import LogRow, merged

PLAIN = (bool, int, float, str)


class StepAxis:
    """Logs to one run. `log` and `add` may raise whatever W&B raises."""

    def __init__(self, run: Any, total_steps: int = 0, lag: int = 0) -> None:
        """
        Args:
            run: an open run of W&B.
            total_steps: length of the training. A counter that is past it (an earlier training in the same run) is
                taken as the zero of this one.
            lag: by how many rows to stay behind the step, where Trainer's own logs move the counter.
        """
        self._run = run
        counter = run.step
        self._offset = counter if 0 < total_steps <= counter else 0
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
        place, is_behind = self._find_place(row["step"], {})
        if is_behind:
            self._write({}, row["step"], place)

    def log(self, row: LogRow, step: int | None) -> None:
        """Logs a row of Trainer; without a step it belongs to the last one."""
        step = self._step if step is None else step
        place, _ = self._find_place(step, row)
        self._write(row, step, place)

    def flush(self, step: int) -> None:
        """Closes the row of an earlier step than this, which Trainer is about to log by itself."""
        if self._lag and 0 <= self._step < step and self._place == self._run.step:
            self._run.log({}, commit=True)

    def close(self) -> None:
        """Writes what still waits."""
        if self._waiting:
            step = self._waiting[-1]["step"]
            self._write({}, step, self._find_place(step, {})[0])

    def _find_place(self, step: int, row: LogRow) -> tuple[int, bool]:
        """Returns W&B's row for a step, and whether it takes the counter no further than the step."""
        goal, counter = step + self._offset - self._lag, self._run.step
        place = max(goal, counter)
        if place == self._place and (step != self._step or self._clashes(row)):
            place += 1
        return place, place <= max(goal, counter)

    def _clashes(self, row: LogRow) -> bool:
        """Whether a value of the open row would be lost: a second evaluation at the same step."""
        return any(
            key in self._open and not (isinstance(value, PLAIN) and self._open[key] == value)
            for key, value in row.items()
        )

    def _write(self, row: LogRow, step: int, place: int) -> None:
        if self._waiting and self._waiting[-1]["step"] <= step:
            row = {**values(merged(self._waiting)), STEP: step, **row}
            self._waiting = []
        self._run.log(row, step=place)
        kept = self._open if place == self._place else {}
        self._place, self._step, self._open = place, step, {**kept, **row}
