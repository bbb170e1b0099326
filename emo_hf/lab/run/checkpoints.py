"""How a run that broke off goes on from its newest checkpoint.

    checkpoint-40/trainer_state.json    written last, so a checkpoint without a readable one is torn
    history.jsonl                       cut after step 40; one more row holds the seconds of the training so far

A checkpoint's step is always logged before it is saved. So the rows before and after it together are those of an
uninterrupted run.
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
    """Returns the newest whole checkpoint in `folder`, None if `run_config` cannot go on from one.

    A handover and a trajectory remember more than a checkpoint holds.
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


def _state(checkpoint: Path) -> Any:
    return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))


def rewind(folder: RunFolder, checkpoint: Path) -> None:
    """Takes the history in `folder` back to `checkpoint`. The recorder does the same with the signals."""
    step = _step(checkpoint)
    rows = [row for row in read_signals(folder.history) if row["step"] <= step and "train_runtime" not in row]
    seconds = _state(checkpoint)["stateful_callbacks"][Clock.__name__]["attributes"]["seconds"]
    rows.append({"step": step, "train_runtime": seconds})
    write_whole(folder.history, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())
    remove(folder, but=checkpoint)


def remove(folder: RunFolder, but: Path | None = None) -> None:
    """Removes the checkpoints of a run, all `but` one."""
    for checkpoint in folder.checkpoints():
        if checkpoint != but:
            shutil.rmtree(checkpoint)


def saving(steps: int | None, logging_steps: int) -> dict[str, Any]:
    """Returns the arguments of a Trainer that saves about every `steps`, always at a step that is logged."""
    if steps is None:
        return {"save_strategy": "no"}
    return {
        "save_strategy": "steps",
        "save_steps": math.ceil(steps / logging_steps) * logging_steps,
        "save_total_limit": 1,
    }


class Clock(TrainerCallback, ExportableState):
    """Writes the seconds of the training into every checkpoint.

    Args:
        rows: the history up to the checkpoint, after `rewind`; empty in a training that did not break off.
    """

    def __init__(self, rows: list[LogRow]) -> None:
        self._before = sum(row.get("train_runtime", 0.0) for row in rows)
        self._begun = time.monotonic()

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._begun = time.monotonic()

    def state(self) -> LogRow:
        return {"args": {}, "attributes": {"seconds": self._before + time.monotonic() - self._begun}}


def whole_train_loss(rows: list[LogRow], trainer: Trainer) -> dict[str, float | None]:
    """Returns the mean training loss of all steps. A resumed Trainer only gives that of its own steps.

    Args:
        rows: the history up to the checkpoint.
        trainer: after its training.
    """
    total, logged = 0.0, 0
    for row in rows:
        if "loss" in row:
            total += math.nan if row["loss"] is None else row["loss"] * (row["step"] - logged)
            logged = row["step"]
    own = trainer.state.global_step - rows[-1]["step"]
    return {"train_loss": (total + trainer._total_loss_scalar) / (logged + own)}
