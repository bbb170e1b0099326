"""Reporters other than W&B. Their rows go into the run that Trainer's own callback has opened, at the optimizer step.

`Recorder` makes a sink when the training begins and drops it when it fails. x is ``step`` itself where the reporter
has such an axis; trackio, where Trainer counts its logs instead, also gets ``train/global_step``.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emo_hf.dashboards.window import LogRow
from emo_hf.errors import DashboardError
from emo_hf.signals import PREFIX

STEP = "train/global_step"  # the x axis of everything that Trainer reports


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the rows come from.

    Attributes:
        path: ``emo_signals.jsonl`` of the run.
        config: flat settings that tell runs apart.
        writer: TensorBoard's open SummaryWriter, None if there is none.
        guard: the `emo_hf.dashboards.wandb.Guard` of Trainer's W&B callback, None if there is none.
        trainer_counts: Trainer's W&B callback logs beside us without a guard, and so moves W&B's counter.
        total_steps: of the training, 0 if that is not known.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    writer: Any = None
    guard: Any = None
    trainer_counts: bool = False
    total_steps: int = 0


class Sink:
    """One reporter. Whatever a method raises, the training goes on without the sink."""

    name: str
    slow = False  # more than a millisecond per row: gets a row per 10 steps at most

    def write(self, row: LogRow) -> None:
        """Reports one row."""
        raise NotImplementedError

    def note(self, found: dict[str, Any]) -> None:
        """Adds to the settings of the run what was found in it."""

    def check(self) -> None:
        """Fails if the reporter's run is dead."""

    def close(self, summary: dict[str, float]) -> None:
        """Reports the numbers that sum up the training; the run stays open, it is Trainer's."""


class TrackioSink(Sink):
    """trackio: Hugging Face's local dashboard."""

    name = "trackio"

    def __init__(self, origin: Origin) -> None:
        from trackio import context_vars

        self._run = _opened(context_vars.current_run.get(), "trackio.init(project=...)")
        self._run.config.update(origin.config)

    def note(self, found: dict[str, Any]) -> None:
        self._run.config.update(found)

    def write(self, row: LogRow) -> None:
        self._run.log({**values(row), STEP: row["step"]}, step=row["step"])


class TensorBoardSink(Sink):
    """TensorBoard, through the writer of Trainer's callback."""

    name, slow = "TensorBoard", True

    def __init__(self, origin: Origin) -> None:
        self._writer = _opened(origin.writer, "EmoTrainer, attach(trainer) or the wrap, which know Trainer's writer")

    def write(self, row: LogRow) -> None:
        for key, value in values(row).items():
            self._writer.add_scalar(key, value, row["step"])


class MlflowSink(Sink):
    """MLflow. Settings become tags, since a parameter cannot be set twice."""

    name, slow = "MLflow", True

    def __init__(self, origin: Origin) -> None:
        import mlflow

        self._id = _opened(mlflow.active_run(), "mlflow.start_run()").info.run_id
        self._log, self._client = mlflow.log_metrics, mlflow.MlflowClient()
        mlflow.set_tags(origin.config)

    def note(self, found: dict[str, Any]) -> None:
        for name, value in found.items():
            self._client.set_tag(self._id, name, value)

    def write(self, row: LogRow) -> None:
        self._log(values(row), step=row["step"], run_id=self._id, synchronous=False)

    def close(self, summary: dict[str, float]) -> None:
        self._log(summary, run_id=self._id, synchronous=False)


class CometSink(Sink):
    """Comet."""

    name, slow = "Comet", True

    def __init__(self, origin: Origin) -> None:
        import comet_ml

        self._experiment = _opened(comet_ml.get_running_experiment(), "comet_ml.start()")
        self._experiment.log_parameters(origin.config)

    def note(self, found: dict[str, Any]) -> None:
        self._experiment.log_parameters(found)

    def write(self, row: LogRow) -> None:
        self._experiment.log_metrics(values(row), step=row["step"])

    def close(self, summary: dict[str, float]) -> None:
        self._experiment.log_metrics(summary)


def values(row: LogRow) -> dict[str, float]:
    """Returns the metrics of a row, without its step and the names of what was not finite."""
    return {key: value for key, value in row.items() if key.startswith(PREFIX)}


def _opened(run: Any, how: str) -> Any:
    if run is None:
        raise DashboardError(f"there is no open run; before the training begins it needs {how}")
    return run
