"""Hugging Face: the ``optim`` strings, the loss feed, and Trainers that use and record them.

Only what needs transformers imports it: the names below do so when they are first used.
"""

from typing import TYPE_CHECKING

from emo_hf import lazy
from emo_hf.hf.registration import register, unregister

if TYPE_CHECKING:
    from emo_hf.hf.arguments import EmoArgumentsMixin, EmoTrainingArguments
    from emo_hf.hf.callback import EmotionCallback
    from emo_hf.hf.feed import LossFeed
    from emo_hf.hf.loops import LoopRecord
    from emo_hf.hf.probing import find_lr
    from emo_hf.hf.trainer import EmoTrainer, EmoTrainerMixin, attach
else:
    __getattr__, __dir__ = lazy.names(
        __name__,
        {
            "emo_hf.hf.arguments": ["EmoArgumentsMixin", "EmoTrainingArguments"],
            "emo_hf.hf.callback": ["EmotionCallback"],
            "emo_hf.hf.feed": ["LossFeed"],
            "emo_hf.hf.loops": ["LoopRecord"],
            "emo_hf.hf.probing": ["find_lr"],
            "emo_hf.hf.trainer": ["EmoTrainer", "EmoTrainerMixin", "attach"],
        },
    )

__all__ = [
    "EmoArgumentsMixin",
    "EmoTrainer",
    "EmoTrainerMixin",
    "EmoTrainingArguments",
    "EmotionCallback",
    "LoopRecord",
    "LossFeed",
    "attach",
    "find_lr",
    "register",
    "unregister",
]
