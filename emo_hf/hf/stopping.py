"""What a training does when its optimizer is ready to stop, and the record of it.

The stop signal (``emo/stop_share``) flickers from 3.8 on. A cluster counts, a hysteresis of ``patience`` steps:

    begins    when the signal was up at ``patience`` optimizer steps in a row
    ends      when it was down at ``patience`` optimizer steps in a row

Once per cluster, at its beginning, `Reaction` logs, saves or stops. The record of it, a dictionary inside
``state.stateful_callbacks``, goes into every ``trainer_state.json`` and comes back on resume: a training that is
resumed where it was stopped goes on until the next cluster. The signal is made of the loss of all ranks, so that every
rank decides the same; under local SGD, where it is not, only "log" is allowed.
"""

import logging
import shutil
from pathlib import Path
from typing import Any, cast

from accelerate import PartialState
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy, SaveStrategy

from emo_hf.errors import OptionError
from emo_hf.signals import Signals

logger = logging.getLogger(__name__)

CHOICES = ("log", "save", "stop")
RECORD = "EmotionCallback"  # key in state.stateful_callbacks
KEPT = "ready"  # prefix of the folder of a checkpoint that save_total_limit does not delete


class Reaction:
    """Turns the stop signal of a training into what `EmotionCallback` was asked to do."""

    def __init__(self, on_ready: str, patience: int) -> None:
        """
        Raises:
            OptionError: `on_ready` is none of `CHOICES`, or `patience` no whole number of at least 1.
        """
        whole = hasattr(patience, "__index__") and not isinstance(patience, bool)  # numpy's, too
        if on_ready not in CHOICES or not whole or patience < 1:
            raise OptionError(
                f"EmotionCallback got {on_ready=}, {patience=}; expected on_ready to be one of {', '.join(CHOICES)},"
                " and patience a number of optimizer steps: a whole number of at least 1."
            )
        self.on_ready, self.patience = on_ready, int(patience)
        self._saving = False  # from the beginning of a cluster until its checkpoint is there
        self._record: dict[str, Any] = {}

    def refuse_own_signals(self) -> None:
        """Raises `OptionError` unless ranks with a signal of their own only log: else one would wait for ever."""
        if self.on_ready != "log":
            raise OptionError(
                f"on_ready={self.on_ready!r} got local_sgd_steps, with which every rank has a stop signal of its own;"
                " expected one signal for all, or they would not end together. Use on_ready='log', or leave out"
                " local_sgd_steps."
            )

    def begin(self, state: TrainerState) -> None:
        """Goes on with the record of the checkpoint inside ``state``, or puts a new one there."""
        self._saving = False
        saved = _records(state).get(RECORD, {}).get("attributes", {})
        ready = saved.get("ready", {})
        self._record = {"in_cluster": False, "contrary_steps": 0, "clusters": 0, "latest": None, **ready}
        # The form of an ExportableState. It is none: Trainer cannot save a callback that `attach_feed` added.
        options = {"on_ready": self.on_ready, "patience": self.patience}
        _records(state)[RECORD] = {"args": options, "attributes": {**saved, "ready": self._record}}

    def observe(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, signals: Signals, optimizer: str
    ) -> None:
        """Looks at the signals of one step of ``optimizer`` and sets the switches of ``control``."""
        record, up = self._record, signals.ready > 0
        record["contrary_steps"] = record["contrary_steps"] + 1 if up != record["in_cluster"] else 0
        if record["contrary_steps"] >= self.patience:
            record |= {"in_cluster": up, "contrary_steps": 0}
            if up:
                self._act(args, state, control, _reason(optimizer, self.patience, signals))
        if self._saving:  # also at later steps: save_strategy="best" overrules it where it evaluates
            control.should_save = True

    def _act(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, reason: str) -> None:
        record = self._record
        record["clusters"] += 1
        record["latest"] = {"step": state.global_step, "action": self.on_ready, "reason": reason}
        self._saving = self.on_ready == "save"
        if self.on_ready == "stop":
            _stop(args, state, control)
        if state.is_world_process_zero and (self.on_ready != "log" or record["clusters"] == 1):
            then = {"log": "goes on (on_ready='stop' would end it)", "save": "saves a checkpoint", "stop": "ends"}
            logger.warning("Step %d: %s. The training %s.", state.global_step, reason, then[self.on_ready])

    def after_save(self, args: TrainingArguments, state: TrainerState) -> None:
        """Copies the checkpoint of a cluster, if Trainer is going to delete it (``save_total_limit``)."""
        saving, self._saving = self._saving, False
        if not (saving and args.save_total_limit):
            return
        PartialState().wait_for_everyone()  # every rank has written its part
        if args.should_save:
            try:
                kept = _copy(folder_of(args), state.global_step)
                logger.warning("save_total_limit=%d does not delete %s.", args.save_total_limit, kept)
            except OSError as error:
                logger.error("The checkpoint of step %d cannot be kept: %s", state.global_step, error)


def stop_reason(state: TrainerState) -> str:
    """Returns a sentence: why the training of ``state`` ended. Empty if it was not the signal that stopped it."""
    record = _records(state).get(RECORD, {}).get("attributes", {}).get("ready", {})
    latest = record.get("latest") or {}
    ended = latest.get("action") == "stop" and latest.get("step") == state.global_step
    return f"Stopped at step {latest['step']}: {latest['reason']}." if ended else ""


def stop_settings(state: TrainerState, patience: int) -> dict[str, int]:
    """Returns ``emo_stopped_at`` and ``emo_stopped_after`` where the signal has just stopped the training."""
    return {"emo_stopped_at": state.global_step, "emo_stopped_after": patience} if stop_reason(state) else {}


def attributes_of(state: TrainerState) -> dict[str, Any]:
    """Returns what is on record inside ``state``, and so in every checkpoint: plain values by name, to be changed."""
    attributes: dict[str, Any] = _records(state).setdefault(RECORD, {}).setdefault("attributes", {})
    return attributes


def folder_of(args: TrainingArguments) -> Path:
    """Returns the folder of a training."""
    return Path(cast("str", args.output_dir))  # None only before __post_init__


def _records(state: TrainerState) -> dict[str, Any]:
    """The states of callbacks by name. transformers declares the list that a TrainerState makes them from."""
    return cast("dict[str, Any]", state.stateful_callbacks)


def _stop(args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
    """Ends the training as Trainer does at its last step. What goes by epochs follows at the end of the epoch."""
    control.should_training_stop = True
    if args.logging_strategy == IntervalStrategy.STEPS:
        control.should_log = True
    if args.eval_strategy == IntervalStrategy.STEPS and args.eval_delay <= state.global_step:
        control.should_evaluate = True
    if args.save_strategy == SaveStrategy.STEPS:
        control.should_save = True


def _reason(optimizer: str, patience: int, signals: Signals) -> str:
    steps = "1 step" if patience == 1 else f"{patience} steps in a row"
    why = f"scalar {signals.scalar:+.3g}, loss average {signals.ema_medium:.3g}"
    margin, distance, noise = signals.stop_margin_loss, signals.distance, signals.noise
    if margin is not None and distance is not None and noise is not None:  # 3.9
        why = (
            f"distance - noise = {distance - noise:.3g} >= 0.3, "
            f"loss average {signals.ema_medium:.3g} <= stopcoef = {margin + signals.ema_medium:.3g}"
        )
    return f"{optimizer} was ready to stop at {steps}: {why}"


def _copy(folder: Path, step: int) -> Path:
    # A copy, because hard links would change when a later training in this folder overwrites the checkpoint.
    part, kept = folder / f"{KEPT}-{step}.part", folder / f"{KEPT}-{step}"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(folder / f"{PREFIX_CHECKPOINT_DIR}-{step}", part)
    shutil.rmtree(kept, ignore_errors=True)
    return part.rename(kept)
