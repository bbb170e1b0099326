"""How a run that broke off goes on from its newest whole checkpoint.

    checkpoint-40/trainer_state.json    written last
    checkpoint-40/                      every file of it is looked at before it is used
    torn-checkpoint-60/                 one that is not whole, when the run went on from another
    history.jsonl                       cut after step 40; one more row holds the seconds of the training so far

A checkpoint's step is always logged before it is saved. So the rows before and after it together are those of an
uninterrupted run. Two checkpoints are kept, as the newer one can be torn by a loss of power.
"""

import json
import logging
import math
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState, TrainerState

from emo_hf.dashboards.jsonl import LogRow, read_signals, write_whole
from emo_hf.errors import RecordError
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.run_folder import STATE, RunFolder

logger = logging.getLogger(__name__)

WEIGHTS = ("*.safetensors", "*.bin")  # of the model, whole, in parts, or of an adapter
TORN = "torn-"
# what reading a damaged file raises
DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, LookupError, AttributeError, TypeError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, SafetensorError),
)


def newest(run_config: RunConfig, folder: RunFolder) -> Path | None:
    """Returns the newest whole checkpoint in `folder`, None if `run_config` cannot go on from one.

    Those that are not whole are told. A handover and a trajectory remember more than a checkpoint holds.
    """
    if run_config.arm.handover or "trajectory" in run_config.measure:
        return None
    for checkpoint in sorted(folder.checkpoints(), key=_step, reverse=True):
        flaw = next(_flaws(checkpoint, folder, run_config.processes), None)
        if flaw is None:
            return checkpoint
        logger.warning("%s is not whole (%s): looking for one before it.", checkpoint, flaw)
    return None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _flaws(checkpoint: Path, folder: RunFolder, processes: int | None) -> Iterator[str]:
    """Yields what keeps a run from going on from `checkpoint`."""
    yield from _flaws_of_state(checkpoint)
    random = [f"rng_state_{rank}.pth" for rank in range(processes)] if processes else ["rng_state.pth"]
    for name in ("optimizer.pt", "scheduler.pt", *random):
        if not (checkpoint / name).is_file():
            yield f"{name} is missing"
    if not any(path.name != "training_args.bin" for kind in WEIGHTS for path in checkpoint.glob(kind)):
        yield "the weights are missing"
    for path in sorted(checkpoint.iterdir()):
        if path.is_file() and (flaw := _flaw_of_file(path)):
            yield f"{path.name}: {flaw}"
    try:
        logged = [row["step"] for row in read_signals(folder.history)]
    except (OSError, RecordError) as error:
        yield str(error)
    else:
        if _step(checkpoint) not in logged:
            yield f"{folder.history.name} does not reach it"


def _flaws_of_state(checkpoint: Path) -> Iterator[str]:
    try:
        TrainerState.load_from_json(str(checkpoint / STATE))
        content = _state(checkpoint)
        if content["global_step"] != _step(checkpoint) or not isinstance(content["log_history"], list):
            yield f"{STATE} is of another step"
        if not math.isfinite(_seconds(content)):
            yield f"{STATE} has no time"
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        yield f"{STATE}: {str(error) or type(error).__name__}"


def _flaw_of_file(path: Path) -> str:
    """Returns what is wrong with a file, from its end or its checksums; nothing in it is run."""
    try:
        match path.suffix:
            case ".safetensors":
                with safe_open(path, "np"):
                    return ""
            case ".pt" | ".pth" | ".bin":
                with zipfile.ZipFile(path) as file:
                    bad = file.testzip()
                return f"{bad} is damaged" if bad else ""
            case ".json":
                content = json.loads(path.read_text(encoding="utf-8"))
                parts = set(content["weight_map"].values()) if path.name.endswith(".index.json") else ()
                if lacking := [part for part in sorted(parts) if not path.with_name(part).is_file()]:
                    return f"{lacking[0]} is missing"
    except DAMAGE as error:
        return str(error) or type(error).__name__
    return ""


def _state(checkpoint: Path) -> Any:
    return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))


def _seconds(state: Any) -> float:
    return state["stateful_callbacks"][Clock.__name__]["attributes"]["seconds"]


def rewind(folder: RunFolder, checkpoint: Path) -> None:
    """Takes the history in `folder` back to `checkpoint`. The recorder does the same with the signals.

    Newer checkpoints, which are torn, are moved aside.
    """
    step = _step(checkpoint)
    rows = [row for row in read_signals(folder.history) if row["step"] <= step and "train_runtime" not in row]
    rows.append({"step": step, "train_runtime": _seconds(_state(checkpoint))})
    write_whole(folder.history, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())
    for other in folder.checkpoints():
        if _step(other) > step:
            aside = _free(other)
            other.rename(aside)
            logger.warning(
                "The run in %s goes on from %s; %s is now %s.", folder, checkpoint.name, other.name, aside.name
            )


def _free(checkpoint: Path) -> Path:
    number, aside = 1, checkpoint.with_name(TORN + checkpoint.name)
    while aside.exists():
        number += 1
        aside = checkpoint.with_name(f"{TORN}{checkpoint.name}.{number}")
    return aside


def remove(folder: RunFolder) -> None:
    """Removes the checkpoints of a finished run, also those that were moved aside."""
    for checkpoint in (*folder.checkpoints(), *folder.path.glob(f"{TORN}checkpoint-*")):
        if not checkpoint.is_symlink():
            shutil.rmtree(checkpoint)


def saving(steps: int | None, logging_steps: int) -> dict[str, Any]:
    """Returns the arguments of a Trainer that saves about every `steps`, always at a step that is logged."""
    if steps is None:
        return {"save_strategy": "no"}
    return {
        "save_strategy": "steps",
        "save_steps": math.ceil(steps / logging_steps) * logging_steps,
        "save_total_limit": 2,
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
