"""Three ways to a Trainer that feeds and records:

    trainer = EmoTrainer(...)                     a subclass; `EmoTrainerMixin` makes one of any other Trainer
    attach(trainer)                               an existing Trainer of any class
    Trainer(args=...optim="emosens")              the wrap of Trainer.create_optimizer that importing emo_hf installs

(The fourth, `EmotionCallback` alone, needs no access to the Trainer.) Each acts where the optimizer is created, and
only if it is one of ours or ``lr_scheduler_type="emopulse"`` drives it: any other Trainer behaves as if this package
were not there. They may be combined.
"""

import functools
import logging
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from transformers import Trainer
from transformers.integrations.integration_utils import TensorBoardCallback, WandbCallback
from transformers.training_args import OptimizerNames

from emo_hf import registry
from emo_hf.dashboards import report
from emo_hf.dashboards.jsonl import FILE_NAME
from emo_hf.errors import EmoError
from emo_hf.hf import accumulation, card, local_sgd, loops
from emo_hf.hf.arguments import callback_options
from emo_hf.hf.callback import EmotionCallback, lr_used
from emo_hf.hf.feed import LossFeed, find_listener, find_optimizer, keeps_own_loss
from emo_hf.hf.progress import find_progress
from emo_hf.hf.registration import connecting
from emo_hf.hf.settings import settings_of
from emo_hf.hf.stopping import folder_of, stop_reason
from emo_hf.scheduler import NAME, find_pulse

logger = logging.getLogger(__name__)


def attach(trainer: Trainer | Accelerator) -> None:
    """Makes ``trainer`` feed and record; call it before ``trainer.train()``. Calling it again changes nothing.

    An Accelerator feeds what it has prepared; `emo_hf.LoopRecord` records.

    Raises:
        EmoError: an Accelerator that has prepared nothing of ours.
    """
    if isinstance(trainer, Accelerator):
        if not loops.feed(trainer):
            raise EmoError(
                "attach() got an Accelerator that has prepared no emo optimizer and no EmoPulse. Call"
                " accelerator.prepare(optimizer) first."
            )
        return
    if "create_optimizer" not in vars(trainer):
        its: Any = trainer  # a method may be replaced
        its.create_optimizer = types.MethodType(connecting(type(trainer).create_optimizer), trainer)
    expect_optimizer(trainer)
    attach_feed(trainer)


if TYPE_CHECKING:
    _Trainer = Trainer  # which the subclass is, too
else:
    _Trainer = object


class EmoTrainerMixin(_Trainer):
    """Feeds the loss and records the signals: ``class MyTrainer(EmoTrainerMixin, SFTTrainer): ...``.

    Args:
        local_sgd_steps: train without synchronisation (`emo_hf.hf.local_sgd`), with any optimizer: each rank lives by
            its own loss and emotion, and the weights are averaged every so many optimizer steps, before evaluations
            and checkpoints, and at the end. None: synchronously.
        normalize_accumulation: the objective of a step is the mean over its micro-batches of their mean losses, also
            of a model that takes ``num_items_in_batch`` and does not use it, whose losses Trainer would add up.

    Raises:
        OptionError: `local_sgd_steps` is below 1, or given with FSDP or DeepSpeed; `normalize_accumulation` is given
            with a ``compute_loss_func``, which gets the number and has to divide by it.
    """

    _averaging: local_sgd.Averaging | None = None

    def __init__(
        self, *args: Any, local_sgd_steps: int | None = None, normalize_accumulation: bool = False, **kwargs: Any
    ) -> None:
        if local_sgd_steps is not None:
            local_sgd.check_steps(local_sgd_steps)
        super().__init__(*args, **kwargs)
        if local_sgd_steps is not None:
            self._averaging = local_sgd.install(self, local_sgd_steps)
        if normalize_accumulation:
            accumulation.normalize(self)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        expect_optimizer(self)
        return super().train(*args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args, **kwargs)
        attach_feed(self)
        return optimizer

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        self._average()
        return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        self._average()
        return super().predict(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._average()
        super()._save_checkpoint(*args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._averaging is not None:
            self._averaging.save_state(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._averaging is not None:
            self._averaging.load_state(checkpoint)

    def _average(self) -> None:
        if self._averaging is not None:
            self._averaging.average()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Adds to the card of the parent what the model was trained with, and why the training was stopped."""
        super().create_model_card(*args, **kwargs)
        listener, path = find_listener(self.optimizer, self.lr_scheduler), _correct_card(self)
        if listener is None or path is None:
            return
        parts = [f"Trained with `{listener.key}` of emo_hf. {stop_reason(self.state)}".rstrip(), card.ONE_TRAINING]
        if (spec := getattr(listener, "spec", None)) is not None:
            parts.append(card.section(spec, found=getattr(listener, "found", None)))
        if picture := _draw_signals(path.parent):
            parts.append(f"![Loss, step size and emotion of the training]({picture})")
        with path.open("a", encoding="utf-8") as file:
            file.write("\n## Optimizer\n\n" + "\n\n".join(parts) + "\n")
        card.add_tags(path, (card.TAG, listener.key.partition("-")[0]))


def _draw_signals(folder: Path) -> str | None:
    """Draws what was recorded in `folder` beside it; returns the picture's name, None if there is none."""
    if not (folder / FILE_NAME).exists():
        return None
    picture = (folder / FILE_NAME).with_suffix(".png")
    try:
        report.write_png(report.read([folder]), picture)
    except (EmoError, OSError) as error:  # no matplotlib, no step yet, no space left
        logger.info("The model card has no picture of the signals: %s", error)
        return None
    return picture.name


class EmoTrainer(EmoTrainerMixin, Trainer):
    """``transformers.Trainer`` that feeds the loss to an emotion-driven optimizer and records its signals."""


def attach_feed(trainer: Trainer) -> None:
    """Gives the optimizer or `EmoPulse` of ``trainer``, if it has one, its loss, true learning rates and a record.

    It runs each time Trainer asks for its optimizer, also for one that exists: a sum of losses that an interrupted
    training left unfinished is dropped.
    """
    optimizer = find_optimizer(trainer.optimizer)
    if optimizer is not None:
        LossFeed.install(trainer.accelerator, optimizer).of_trainer = True
        its: Any = trainer  # a method may be replaced
        its._get_learning_rate = functools.partial(_get_learning_rate, trainer)
    elif trainer.args.lr_scheduler_type != NAME and find_pulse(trainer.lr_scheduler) is None:
        return  # an EmoPulse is created after the optimizer: it gets its loss from the callback
    accumulation.watch(trainer)
    if not isinstance(trainer, EmoTrainerMixin):
        vars(trainer)["create_model_card"] = functools.partial(_create_model_card, trainer)
    if hasattr(trainer, "callback_handler"):
        _connect_callback(trainer)
    else:
        logger.warning(
            "%s builds its optimizer before its callbacks: the loss arrives, and callbacks=[emo_hf.EmotionCallback()]"
            " would record it.",
            type(trainer).__name__,
        )


def expect_optimizer(trainer: Trainer) -> None:
    """Connects the callback of a training that is about to begin, if it will have something to hear.

    The training fails at its beginning if another optimizer takes the place of the one that ``args.optim`` names: a
    DeepSpeed config can do that, or a ``create_optimizer`` of the Trainer's own. It would train at a multiplier.
    """
    by_name = OptimizerNames(trainer.args.optim).value in registry.names()
    heard = find_listener(trainer.optimizer, trainer.lr_scheduler) is not None
    if by_name or heard or trainer.args.lr_scheduler_type == NAME:
        callback = _connect_callback(trainer)
        # What an earlier training of this Trainer has built by name is there again
        built = trainer.optimizer is None or (callback.by_name and find_optimizer(trainer.optimizer) is not None)
        callback.by_name = built and trainer.optimizer_cls_and_kwargs is None


def _connect_callback(trainer: Trainer) -> EmotionCallback:
    """Returns the `EmotionCallback` of ``trainer``, which is given one, after telling it what only a Trainer knows."""
    callbacks = trainer.callback_handler.callbacks
    callback = next((each for each in callbacks if isinstance(each, EmotionCallback)), None)
    if callback is None:
        callback = EmotionCallback(**callback_options(trainer.args))
        trainer.add_callback(callback)
    callback.every_rank = keeps_own_loss(trainer.accelerator)
    callback.tensorboard = next((each for each in callbacks if isinstance(each, TensorBoardCallback)), None)
    callback.schedule = _schedule(trainer)
    callback.progress = find_progress(callbacks)
    callback.prepare(trainer.args, next((each for each in callbacks if isinstance(each, WandbCallback)), None))
    return callback


def _schedule(trainer: Trainer) -> str:
    """Returns the name of what makes the learning rates of `trainer`: by its arguments, or by the user."""
    deepspeed = getattr(trainer.args, "hf_deepspeed_config", None)
    if deepspeed is not None and "scheduler" in deepspeed.config:
        return "of the DeepSpeed config"
    if trainer.lr_scheduler is None or getattr(trainer, "_created_lr_scheduler", False):
        return str(getattr(trainer.args.lr_scheduler_type, "value", trainer.args.lr_scheduler_type))
    return type(trainer.lr_scheduler).__name__


def _create_model_card(trainer: Trainer, *args: Any, **kwargs: Any) -> None:
    """Trainer's own method knows the arguments alone."""
    type(trainer).create_model_card(trainer, *args, **kwargs)
    _correct_card(trainer)


def _correct_card(trainer: Trainer) -> Path | None:
    """Makes the card that Trainer wrote say what trained; returns it, None if there is none or nothing of ours."""
    listener, path = find_listener(trainer.optimizer, trainer.lr_scheduler), folder_of(trainer.args) / "README.md"
    if listener is None or not trainer.is_world_process_zero() or not path.exists():
        return None
    card.correct(path, settings_of(listener))
    return path


def _get_learning_rate(trainer: Trainer) -> float:
    """Trainer's own method reads the scheduler, which knows only the multiplier."""
    optimizer = find_optimizer(trainer.optimizer)
    return type(trainer)._get_learning_rate(trainer) if optimizer is None else lr_used(optimizer)
