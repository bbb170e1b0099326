"""A run that broke off, and goes on from its newest checkpoint.

    checkpoint-40/trainer_state.json    written last, so a checkpoint without a readable one is torn
    history.jsonl                       cut after step 40; a row says how long the training took up to there

The checkpoint's own step is logged before it is saved, and never in the middle of a window of logged losses: so the
rows before and after it together are those of an uninterrupted run.
"""

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from emo_hf.dashboards.jsonl import LogRow, read_signals, write_whole
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.run_folder import STATE, RunFolder


def newest(run_config: RunConfig, folder: RunFolder) -> Path | None:
    """Returns the newest checkpoint in `folder` that is whole; None if there is none that `run_config` can go on from.

    A training cut in two by its arm, or whose trajectory is measured, has more to remember than a checkpoint does.
    """
    if run_config.arm.handover or "trajectory" in run_config.measure:
        return None
    whole = [path for path in folder.checkpoints() if _is_whole(path, run_config.processes)]
    return max(whole, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_whole(checkpoint: Path, processes: int | None) -> bool:
    try:
        _state(checkpoint)
    except (OSError, ValueError):
        return False
    random = [f"rng_state_{rank}.pth" for rank in range(processes)] if processes else ["rng_state.pth"]
    return all((checkpoint / name).exists() for name in random)


def _state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))


def rewind(folder: RunFolder, checkpoint: Path) -> None:
    """Brings `folder` back to where `checkpoint` was saved. The signals are cut by the one that records them."""
    step = _step(checkpoint)
    rows = [row for row in read_signals(folder.history) if row["step"] <= step and "train_runtime" not in row]
    seconds = _state(checkpoint)["stateful_callbacks"][Clock.__name__]["attributes"]["seconds"]
    rows.append({"step": step, "train_runtime": seconds})
    write_whole(folder.history, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())
    for other in folder.checkpoints():
        if other != checkpoint:
            shutil.rmtree(other)


def remove(folder: RunFolder) -> None:
    """Removes the checkpoints of a finished run."""
    for checkpoint in folder.checkpoints():
        shutil.rmtree(checkpoint)


def every(steps: int | None, logging_steps: int) -> dict[str, Any]:
    """Returns the arguments of a Trainer that saves every so many steps, rounded up to those that are logged."""
    if steps is None:
        return {"save_strategy": "no"}
    return {
        "save_strategy": "steps",
        "save_steps": math.ceil(steps / logging_steps) * logging_steps,
        "save_total_limit": 1,
    }


class Clock(TrainerCallback, ExportableState):
    """Has every checkpoint say how many seconds the training took up to it.

    Args:
        rows: of the history up to the checkpoint, after `rewind`; empty in a training that did not break off.
    """

    def __init__(self, rows: list[LogRow]) -> None:
        self._before = sum(row.get("train_runtime", 0.0) for row in rows)
        self._begun = time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs: Any) -> None:
        self._begun = time.monotonic()

    def state(self) -> LogRow:
        return {"args": {}, "attributes": {"seconds": self._before + time.monotonic() - self._begun}}


def of_whole(rows: list[LogRow], trainer: Trainer) -> dict[str, float | None]:
    """Returns the mean training loss of all steps; a resumed Trainer gives that of its own.

    Args:
        rows: of the history up to the checkpoint.
        trainer: after its training.
    """
    total, logged = 0.0, 0
    for row in rows:
        if "loss" in row:
            total += math.nan if row["loss"] is None else row["loss"] * (row["step"] - logged)
            logged = row["step"]
    own = trainer.state.global_step - rows[-1]["step"]
    return {"train_loss": (total + trainer._total_loss_scalar) / (logged + own)}
