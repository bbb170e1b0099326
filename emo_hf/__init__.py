"""Emotion-driven optimizers for the Hugging Face Trainer. Importing this package registers their names.

TrainingArguments(optim="emosens")      with Trainer, EmoTrainer or any Trainer after `attach(trainer)`
EmoTrainingArguments(emo_stopcoef=0.3)  the same with typed options
TrainingArguments(lr_scheduler_type="emopulse")                   the emotion drives any other optimizer, as EmoPulse
EmoSens(model.parameters())             in a loop of your own: ``optimizer.step(loss=loss)``

The import itself loads neither torch nor transformers: a name loads what it needs when it is first used, and
transformers learns the names when it is imported, before this package or after it (`emo_hf.hf.registration`).
"""

from typing import TYPE_CHECKING

from emo_hf import lazy
from emo_hf.errors import EmoError
from emo_hf.hf import register

if TYPE_CHECKING:
    from emo_hf import registry as registry
    from emo_hf.families import (
        EmoAiry,
        EmoCats,
        EmoClan,
        EmoFact,
        EmoFree,
        EmoLynx,
        EmoNavi,
        EmoNeco,
        EmoSens,
        EmoTion,
        EmoVoid,
        EmoZeal,
    )
    from emo_hf.hf import (
        EmoArgumentsMixin,
        EmotionCallback,
        EmoTrainer,
        EmoTrainerMixin,
        EmoTrainingArguments,
        LoopRecord,
        attach,
        find_lr,
    )
    from emo_hf.optimizer import EmoOptimizer
    from emo_hf.scheduler import EmoPulse
    from emo_hf.signals import Signals
else:
    __getattr__, __dir__ = lazy.names(
        __name__,
        {
            "emo_hf.families": [
                "EmoAiry",
                "EmoCats",
                "EmoClan",
                "EmoFact",
                "EmoFree",
                "EmoLynx",
                "EmoNavi",
                "EmoNeco",
                "EmoSens",
                "EmoTion",
                "EmoVoid",
                "EmoZeal",
            ],
            "emo_hf.hf": [
                "EmoArgumentsMixin",
                "EmoTrainer",
                "EmoTrainerMixin",
                "EmoTrainingArguments",
                "EmotionCallback",
                "LoopRecord",
                "attach",
                "find_lr",
            ],
            "emo_hf.optimizer": ["EmoOptimizer"],
            "emo_hf.registry": ["registry"],
            "emo_hf.scheduler": ["EmoPulse"],
            "emo_hf.signals": ["Signals"],
        },
    )

__all__ = [
    "EmoAiry",
    "EmoArgumentsMixin",
    "EmoCats",
    "EmoClan",
    "EmoError",
    "EmoFact",
    "EmoFree",
    "EmoLynx",
    "EmoNavi",
    "EmoNeco",
    "EmoOptimizer",
    "EmoPulse",
    "EmoSens",
    "EmoTion",
    "EmoTrainer",
    "EmoTrainerMixin",
    "EmoTrainingArguments",
    "EmoVoid",
    "EmoZeal",
    "EmotionCallback",
    "LoopRecord",
    "Signals",
    "attach",
    "find_lr",
]
__version__ = "0.1.0"

register()
