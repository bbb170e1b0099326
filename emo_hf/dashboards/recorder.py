"""`Recorder`: from the signals of a step to a row in every sink.

    recorder = Recorder(output_dir, total_steps, report_to=["wandb"])
    recorder.write(step, optimizer.signals())       after each optimizer step
    recorder.close()                                at the end: the last partial window, and the summary

`REMOTE` holds the reporters that ``report_to`` can name; other names are left to Trainer. Failures are logged, never
raised: a record must not cost a training.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from emo_hf.dashboards import jsonl
from emo_hf.dashboards.health import Health, Plan
from emo_hf.dashboards.sinks import CometSink, MlflowSink, Origin, Sink, TensorBoardSink, TrackioSink
from emo_hf.dashboards.wandb import WandbSink
from emo_hf.dashboards.window import LogRow, Window, summarize, window_size
from emo_hf.errors import RecordError
from emo_hf.signals import Signals

logger = logging.getLogger(__name__)

REMOTE: dict[str, Callable[[Origin], Sink]] = {
    "comet_ml": CometSink,
    "mlflow": MlflowSink,
    "tensorboard": TensorBoardSink,
    "trackio": TrackioSink,
    "wandb": WandbSink,
}
SLOW_WINDOW = 10  # least steps per row of a slow sink


class Recorder:
    """Records the signals of one training. Only the main process of a distributed training should have one."""

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        total_steps: int,
        report_to: Iterable[str] = (),
        start_step: int = 0,
        config: dict[str, Any] | None = None,
        resume: bool = False,
        writer: Any = None,
        warmup_steps: int = 0,
        guard: Any = None,
        trainer_counts: bool = False,
    ) -> None:
        """Opens ``<output_dir>/emo_signals.jsonl`` and the sinks named in ``report_to``.

        Args:
            output_dir: Folder of the run; created if missing.
            total_steps: Optimizer steps of the whole training; a row holds ``ceil(total_steps / 5000)`` of them.
            report_to: As in TrainingArguments.
            start_step: Step of the checkpoint from which the training goes on.
            config: Flat settings: those that tell runs apart (``emo_optimizer``, ``emo_version``, ``seed``), and the
                options that train. Numbers may be numpy's.
            resume: Go on with the file that is there, rewound to ``start_step``, instead of moving it aside.
            writer: TensorBoard's SummaryWriter, open until `close`.
            warmup_steps: Steps in which the schedule may be far below its base.
            guard, trainer_counts: how Trainer's W&B callback logs beside the recorder; see
                `emo_hf.dashboards.sinks.Origin`.
        """
        total_steps, start_step = int(total_steps), int(start_step)
        config = json.loads(json.dumps(config or {}, default=_plain))
        self.path = Path(output_dir) / jsonl.FILE_NAME
        self._file: jsonl.JsonlSink | None = None
        self._failing = False
        last: LogRow = {}
        self._settings = {**config, "total_steps": total_steps}
        try:
            last = self._open_file(start_step, resume)
            jsonl.describe(self.path, self._settings)
        except OSError as error:
            logger.error("The signals cannot be recorded in %s: %s. The training goes on.", self.path, error)
        origin = Origin(self.path, config, writer, guard, trainer_counts, total_steps)
        self._remotes = self._open_remotes(set(report_to), origin)
        self._health = Health(origin.config, Plan(start_step, total_steps, warmup_steps))
        stop_count = int(last.get("emo/stop_count") or 0)
        size = window_size(total_steps)
        self._window, self._slow_window = Window(size, stop_count), Window(max(size, SLOW_WINDOW), stop_count)

    def write(self, step: int, signals: Signals) -> None:
        """Records one optimizer step, and logs what is wrong with it."""
        self._send(self._window.add(step, signals), self._slow_window.add(step, signals))
        self._health.observe(step, signals)

    def note(self, found: dict[str, Any]) -> None:
        """Adds to the settings of the run what its optimizer has found: ``emo_found_lr`` and the like."""
        self._settings |= found
        try:
            jsonl.describe(self.path, self._settings)
        except OSError as error:
            logger.error("What was found cannot be recorded in %s: %s. The training goes on.", self.path, error)
        for sink in tuple(self._remotes):
            self._try(sink, sink.note, found)

    def check(self) -> None:
        """Drops reporters whose run has died, before Trainer's own callbacks report to it."""
        for sink in tuple(self._remotes):
            self._try(sink, sink.check)

    def flush(self) -> None:
        """Writes the steps of a window that is not full: a training resumed from a checkpoint made now misses none."""
        self._send(self._window.row(), self._slow_window.row())

    def close(self) -> None:
        """Writes the last partial window and the summary; runs of vendors stay open."""
        self.flush()
        summary: dict[str, float] = {}
        if self._file is not None:
            try:
                self._file.close()
                # what was recorded before a resume counts as well
                summary = summarize(jsonl.iterate(self.path), self._settings)
            except (OSError, RecordError) as error:
                logger.error("The signals in %s cannot be summarized: %s.", self.path, error)
        for sink in tuple(self._remotes):
            self._try(sink, sink.close, summary)
        self._file, self._remotes = None, []

    def _open_file(self, start_step: int, resume: bool) -> LogRow:
        """Returns the last row that stays in the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        last: LogRow = {}
        if resume:
            last = jsonl.rewind(self.path, start_step)
        else:
            jsonl.start_afresh(self.path)
        self._file = jsonl.JsonlSink(self.path)
        return last

    def _open_remotes(self, names: set[str], origin: Origin) -> list[Sink]:
        sinks = []
        for name in REMOTE.keys() & names:
            try:
                sinks.append(REMOTE[name](origin))
            except Exception as error:  # a vendor may raise anything
                logger.error("The signals are not reported to %s: %s. The training goes on.", name, error)
        return sinks

    def _send(self, row: LogRow | None, slow_row: LogRow | None) -> None:
        if row is not None and self._file is not None:
            self._append(self._file, row)
        for sink in tuple(self._remotes):
            of_sink = slow_row if sink.slow else row
            if of_sink is not None:
                self._try(sink, sink.write, of_sink)

    def _append(self, file: jsonl.JsonlSink, row: LogRow) -> None:
        """Tries every row, since a full disk may be cleared; says once that it fails."""
        try:
            file.write(row)
            self._failing = False
        except OSError as error:
            if not self._failing:
                logger.error(
                    "Step %d cannot be recorded in %s: %s. The rows before it are intact, the next ones are tried; "
                    "the training goes on.",
                    row["step"],
                    self.path,
                    error,
                )
            self._failing = True

    def _try(self, sink: Sink, action: Callable[..., None], *arguments: Any) -> None:
        """Drops a remote sink that fails."""
        try:
            action(*arguments)
        except Exception as error:  # a vendor may raise anything
            self._remotes.remove(sink)
            logger.error(
                "%s failed and gets no more signals: %s: %s. They are still recorded in %s; the training goes on.",
                sink.name,
                type(error).__name__,
                error,
                self.path,
            )


def _plain(value: Any) -> Any:
    """Returns a number of numpy or torch as Python's own, anything else as text: what JSON can hold."""
    return value.item() if hasattr(value, "item") else str(value)
