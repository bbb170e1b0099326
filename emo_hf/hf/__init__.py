"""Hugging Face: the ``optim`` strings, the loss feed, and Trainers that use and record them."""

import os

from emo_hf.hf import optim, schedule, trainer
from emo_hf.hf.arguments import EmoArgumentsMixin, EmoTrainingArguments
from emo_hf.hf.callback import EmotionCallback
from emo_hf.hf.feed import LossFeed
from emo_hf.hf.trainer import EmoTrainer, EmoTrainerMixin, attach

__all__ = [
    "EmoArgumentsMixin",
    "EmoTrainer",
    "EmoTrainerMixin",
    "EmoTrainingArguments",
    "EmotionCallback",
    "LossFeed",
    "attach",
    "register",
    "unregister",
]


def register() -> None:
    """Registers the ``optim`` and scheduler names and wraps ``Trainer.create_optimizer``; ``import emo_hf`` calls it.

    Environment: ``EMO_HF_PATCH=0`` leaves ``Trainer.create_optimizer`` alone (use `EmoTrainer`, `attach` or
    `EmotionCallback`); ``EMO_HF_REGISTER=0`` leaves the names out.
    """
    if os.environ.get("EMO_HF_REGISTER") != "0":
        optim.register()
        schedule.register()
    if os.environ.get("EMO_HF_PATCH") != "0":
        trainer.install_wrap()


def unregister() -> None:
    """Leaves transformers and accelerate as they were before `register`; `EmoTrainer` and `attach` still work.

    What another package has wrapped since stays in place. Calling it again changes nothing.
    """
    trainer.remove_wrap()
    schedule.unregister()
    optim.unregister()
