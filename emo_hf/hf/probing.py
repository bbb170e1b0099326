"""`find_lr`: what EmoFree's ramp finds for a Trainer, in seconds, without training its model.

    found = emo_hf.find_lr(trainer)      some steps on a copy of the model; the Trainer is as it was
    found.lr                             a learning rate for AdamW
    found.draw("ramp.svg")               agreement over step size; a notebook shows it by itself

The ramp takes the steps that EmoFree would take under that Trainer: its batches, its loss, its precision, clipping and
accumulation, and the length of its training, which sets the pace. It runs under a constant schedule, with the betas,
eps and weight decay of the arguments, in parameter groups of Trainer's own kind, and without callbacks of the user.
"""

import copy
import os
import random
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType

from emo_hf.dashboards import report
from emo_hf.dashboards.jsonl import FILE_NAME
from emo_hf.dashboards.report import ramp
from emo_hf.dashboards.report.ramp import Ramp
from emo_hf.errors import OptionError, RampError
from emo_hf.free import Found, Free
from emo_hf.hf import accumulation
from emo_hf.hf.callback import EmotionCallback, is_policy_gradient
from emo_hf.hf.feed import find_optimizer
from emo_hf.hf.trainer import attach
from emo_hf.optimizer import EmoOptimizer
from emo_hf.registry import optimizer_class

PICTURE = "ramp.svg"  # beside the record
TO_START = 10  # steps in which there must have been a gradient
FEWEST = 20  # steps of a training into which its ramp fits in any case
OF_TRAINER = ("create_optimizer", "create_scheduler")  # methods of Trainer in place of the user's


@dataclass(frozen=True, slots=True)
class FoundLr:
    """What a ramp has found; ``str()`` says it in words.

    Attributes:
        lr: a learning rate for AdamW: the step size at which the agreement was spent, halved.
        found: how the ramp ended.
        ramp: agreement over step size.
    """

    lr: float
    found: Found
    ramp: Ramp

    def __str__(self) -> str:
        return str(self.found)

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Writes the picture, agreement over step size, as an SVG file."""
        ramp.write([self.ramp], Path(path))

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        return ramp.picture([self.ramp])


def find_lr(trainer: Trainer, output_dir: str | os.PathLike[str] | None = None) -> FoundLr:
    """Runs EmoFree's ramp on a copy of the model of `trainer`, and returns what it has found.

    Model, optimizer, arguments, state and random generators are afterwards what they were, so that a training that
    follows is the same as without. It needs the memory of the copy, and of its gradients and Adam's moments.

    Args:
        trainer: any Trainer, before or after its training, with any optimizer. One of several processes: call it in
            all of them.
        output_dir: a folder for the record of the ramp (``emo_signals.jsonl``, ``emo_run.json``) and its picture,
            ``ramp.svg``. None keeps nothing.

    Raises:
        OptionError: `trainer` shards its model (FSDP, DeepSpeed), its loss is that of a policy gradient, or
            `output_dir` holds a record already.
        RampError: the ramp did not end: the training is too short, or its gradients or its loss are 0.
        NonFiniteLossError: the loss is NaN or infinite.
    """
    _refuse(trainer)
    if output_dir and any(Path(output_dir, name).exists() for name in (FILE_NAME, PICTURE)):
        raise OptionError(
            f"find_lr() got output_dir={os.fspath(output_dir)!r}, which holds a record: give another one."
        )
    with tempfile.TemporaryDirectory() as scratch, _same_random_numbers():
        folder = Path(output_dir or scratch)
        probe = _probe(trainer, folder)
        attach(probe)
        probe.train()
        optimizer = find_optimizer(probe.optimizer)
        assert optimizer is not None
        if optimizer.found is None:
            raise _not_ended(optimizer, probe.state)
        (run,) = report.read([folder])
    if not output_dir:
        run.name = type(trainer.model).__name__
    drawn = Ramp.of(run)
    assert drawn is not None  # a ramp that has ended has measured
    found = FoundLr(optimizer.found.size, optimizer.found, drawn)
    if output_dir:
        found.draw(folder / PICTURE)
    return found


def _refuse(trainer: Trainer) -> None:
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise OptionError(
            "find_lr() got a Trainer with FSDP or DeepSpeed; expected every process to hold the whole model, which it"
            " copies. Call it with a smaller model or batch in one process, or train with optim='emofree' under FSDP2."
        )
    if is_policy_gradient(trainer.args):
        raise OptionError(
            f"find_lr() got a {type(trainer).__name__}, whose loss hovers around 0 and measures no progress; expected"
            " a loss that falls as the model learns. Choose the learning rate by the reward."
        )


def _probe(trainer: Trainer, folder: Path) -> Trainer:
    """Returns a Trainer that shares nothing with `trainer` that a training would change."""
    probe = copy.copy(trainer)
    its: dict[str, Any] = vars(probe)
    for name, value in vars(trainer).items():
        if isinstance(value, types.MethodType) and value.__self__ is trainer:
            its[name] = types.MethodType(value.__func__, probe)
        elif "dataset" not in name:
            its[name] = _own(value)
    model = copy.deepcopy(trainer.model)
    its |= {
        "args": _arguments(trainer.args, folder),
        "model": model,
        "model_wrapped": model,
        "model_init": None,
        "optimizer": None,
        "lr_scheduler": None,
        "optimizer_cls_and_kwargs": (optimizer_class("emofree"), _options(trainer.args)),
        "state": TrainerState(),
        "control": TrainerControl(),
        "_averaging": None,  # of local SGD
        **{name: types.MethodType(getattr(Trainer, name), probe) for name in OF_TRAINER},
    }
    accumulation.unwatch(probe)
    its.pop("_get_learning_rate", None)  # bound to `trainer`; `attach` binds its own
    callbacks = [DefaultFlowCallback(), EmotionCallback(), _EndOfRamp()]
    probe.callback_handler = CallbackHandler(callbacks, model, probe.processing_class, None, None)
    probe.create_accelerator_and_postprocess()
    return probe


def _own(value: Any) -> Any:
    """Returns containers anew, within each other too, with what they contain: Trainers gather metrics in them."""
    if isinstance(value, dict):
        found = copy.copy(value)  # of its own kind: a defaultdict stays one
        for key in found:
            found[key] = _own(value[key])
        return found
    return [_own(each) for each in value] if type(value) is list else value


def _arguments(args: TrainingArguments, folder: Path) -> TrainingArguments:
    """Returns arguments of the same training that logs, evaluates, saves and uploads nothing."""
    changed: Any = copy.copy(args)
    changes: dict[str, Any] = {
        "output_dir": str(folder),
        "lr_scheduler_type": SchedulerType.CONSTANT,
        "lr_scheduler_kwargs": None,
        "report_to": [],
        "logging_strategy": IntervalStrategy.NO,
        "logging_first_step": False,
        "eval_strategy": IntervalStrategy.NO,
        "eval_on_start": False,
        "save_strategy": SaveStrategy.NO,
        "load_best_model_at_end": False,
        "push_to_hub": False,
        "warmup_steps": 0,
    }
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def _options(args: TrainingArguments) -> dict[str, Any]:
    return {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon, "compensation": "kahan"}


class _EndOfRamp(TrainerCallback):
    """Ends the training when the step size is found, or never will be."""

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        optimizer = find_optimizer(kwargs["optimizer"])
        assert optimizer is not None
        cannot_start = optimizer.effective_lr == 0 and state.global_step >= TO_START
        if optimizer.found is not None or cannot_start or state.global_step >= 2 * _longest(optimizer):
            control.should_training_stop = True


def _longest(optimizer: EmoOptimizer) -> int:
    assert isinstance(optimizer.mechanism, Free)
    return optimizer.mechanism.longest_ramp


def _not_ended(optimizer: EmoOptimizer, state: TrainerState) -> RampError:
    signals, steps = optimizer.signals(), state.global_step
    if signals is None or signals.lr == 0:
        return RampError(
            f"find_lr() got no gradient, or a loss of 0, in {steps} steps; expected both, or there is no step size to"
            " find. See that the model has parameters that require gradients, and what its loss is."
        )
    return RampError(
        f"EmoFree's ramp did not end within the {steps} steps of this training: agreement {signals.agreement:.2f} at"
        f" a step size of {signals.lr:.2g}; expected it below {signals.agreement_end:.2f} in"
        f" {_longest(optimizer)} steps or fewer. Give the Trainer a training of {FEWEST} steps or more (max_steps,"
        " num_train_epochs)."
    )


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Leaves the random generators of Python, numpy and torch as they were."""
    state, of_numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(of_numpy)
