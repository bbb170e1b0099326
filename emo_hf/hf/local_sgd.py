"""Local SGD: every rank trains by itself, and the weights are averaged now and then.

    its own batches -> its own loss -> its own emotion -> its own step         no gradient crosses from rank to rank
    every K steps, before an evaluation or a checkpoint, and at the end        weights = mean of the ranks' weights

accelerate's `LocalSGD` averages and keeps DDP from reducing gradients; this decides when, for a Trainer. What an
optimizer remembers (moments, emotion, shadow) is never averaged: a checkpoint holds it for every rank.

    checkpoint-100/model.safetensors      the average
    checkpoint-100/optimizer.pt           of rank 0, as in any checkpoint
    checkpoint-100/optimizer_rank1.pt     of rank 1: optimizer and schedule
"""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from accelerate.local_sgd import LocalSGD
from accelerate.utils import DistributedType
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from emo_hf.errors import CheckpointError, OptionError
from emo_hf.hf.feed import keep_own_loss

logger = logging.getLogger(__name__)

REPLICATED = {kind for kind in DistributedType if kind.startswith("MULTI_")}  # DDP: the whole model on every rank
RANK_STATE = "optimizer_rank{}.pt"


def check_steps(steps: int) -> None:
    """Raises `OptionError` unless `steps` is a number of steps."""
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise OptionError(
            f"local_sgd_steps={steps!r}: expected the number of optimizer steps between two averagings, an integer of"
            " at least 1. Leave it out to train synchronously."
        )


def install(trainer: Trainer, steps: int) -> "Averaging | None":
    """Makes ``trainer`` train without synchronisation; returns None, with a warning, where there is one process.

    It turns ``average_tokens_across_devices`` off, which would make each loss depend on the other ranks' batches.

    Args:
        trainer: before its training.
        steps: optimizer steps between two averagings.

    Raises:
        OptionError: the model is sharded (FSDP, DeepSpeed) or parallel in another way than DDP.
    """
    kind = trainer.accelerator.distributed_type
    if trainer.accelerator.num_processes == 1:
        logger.warning(
            "local_sgd_steps=%d has no effect: one process has nothing to average. Start several, for example by"
            " torchrun --nproc-per-node 2.",
            steps,
        )
        return None
    if kind not in REPLICATED or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise _not_ddp(steps, kind.value)
    trainer.args.average_tokens_across_devices = False
    keep_own_loss(trainer.accelerator)
    averaging = Averaging(trainer, steps)
    trainer.add_callback(averaging)
    return averaging


def _not_ddp(steps: int, got: str) -> OptionError:
    return OptionError(
        f"local_sgd_steps={steps} got {got}; expected plain DDP, where every rank has the whole model. Leave out what"
        " splits the model over the ranks (FSDP, DeepSpeed, tensor parallelism), or leave out local_sgd_steps."
    )


class Averaging(TrainerCallback):
    """Averages the weights of the ranks at their time, and saves and loads what each rank has for itself."""

    def __init__(self, trainer: Trainer, steps: int) -> None:
        self._steps = steps
        self._trainer: Any = trainer  # whose optimizer and schedule are None until it trains
        self._sgd: LocalSGD | None = None  # during a training
        self._averaged = True  # since the last step

    def average(self) -> None:
        """Averages the weights, unless no step was made since the last time. Every rank must call it."""
        if self._sgd is not None and not self._averaged:
            self._sgd.__exit__(None, None, None)  # LocalSGD averages on leaving
            self._sgd.__enter__()
            self._averaged = True

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        model = self._trainer.model_wrapped
        if not hasattr(model, "no_sync"):  # loaded in parts by transformers itself
            raise _not_ddp(self._steps, f"a {type(model).__name__} that is not wrapped in DDP")
        self._averaged = self._sgd is None  # else a training was interrupted between two averagings
        self._sgd = LocalSGD(self._trainer.accelerator, model, self._steps)
        self._sgd.num_steps = state.global_step  # so that a resumed training averages at the same steps
        self._sgd.__enter__()
        self.average()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert self._sgd is not None  # since on_train_begin
        self._sgd.step()
        self._averaged = self._sgd.num_steps % self._steps == 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if "train_runtime" in (logs or {}):  # the last log: at on_train_end, other callbacks save the model
            self._end()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._end()

    def _end(self) -> None:
        sgd, self._sgd = self._sgd, None
        if sgd is not None:
            sgd.__exit__(None, None, None)

    def save_state(self, folder: str) -> None:
        """Adds the optimizer and the schedule of this rank to a checkpoint; rank 0 has them in Trainer's own files.

        Returns when every rank has saved: what Trainer writes last, ``trainer_state.json``, stands for all of them.
        """
        args = self._trainer.args
        if args.process_index:
            os.makedirs(folder, exist_ok=True)  # rank 0 may not have come so far
            state = {
                "ranks": args.world_size,
                "optimizer": self._trainer.optimizer.state_dict(),
                "scheduler": self._trainer.lr_scheduler.state_dict(),
            }
            torch.save(state, Path(folder, RANK_STATE.format(args.process_index)))
        self._trainer.accelerator.wait_for_everyone()

    def load_state(self, folder: str | None) -> None:
        """Loads what `save_state` saved, after Trainer has loaded the state of rank 0 on every rank.

        In the checkpoint of a synchronous training that one state is right for all.

        Raises:
            CheckpointError: the checkpoint was made by another number of processes.
        """
        args = self._trainer.args
        if folder is None or not args.process_index or not list(Path(folder).glob(RANK_STATE.format("*"))):
            return
        path = Path(folder, RANK_STATE.format(args.process_index))
        device = args.device if args.device.type != "cpu" else "cpu"
        state = torch.load(path, map_location=device, weights_only=True) if path.exists() else {}
        if state.get("ranks") != args.world_size:
            raise CheckpointError(
                f"{folder} was saved by {state.get('ranks', 'fewer')} processes with local_sgd_steps, each with an"
                f" optimizer state of its own; now there are {args.world_size}. Resume with as many, or delete its"
                " optimizer*.pt and scheduler.pt to start the optimizers anew from the averaged weights."
            )
        self._trainer.optimizer.load_state_dict(state["optimizer"])
        self._trainer.lr_scheduler.load_state_dict(state["scheduler"])
