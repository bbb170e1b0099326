"""`EmoTrainingArguments`: TrainingArguments with the options of the emotion, typed, for code, command line and files.

    EmoTrainingArguments("out", emo_stopcoef=0.3, emo_branch="quieter")
    --optim emocats --emo_version 3.8 --emo_stop save        HfArgumentParser, TrlParser; the same names in YAML, JSON

    @dataclass
    class EmoSFTConfig(EmoArgumentsMixin, SFTConfig): ...    the same options in the arguments of another Trainer

A field stands here if it is worth knowing in most versions. What one version or an experiment has (``fftmode``,
``moments``, ``decoupled_weight_decay``, ``lynx_beta1``) remains in ``optim_args``, as do all options in a plain
TrainingArguments. An option set here and in ``optim_args``, or one that the optimizer does not have, is an error as
soon as the arguments are built.
"""

import operator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from transformers import TrainingArguments
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from emo_hf.emotion import Branch
from emo_hf.errors import OptionError
from emo_hf.hf.optim import check
from emo_hf.spec import OnNonfiniteLoss

OnReady = Literal["log", "save", "stop"]


if TYPE_CHECKING:
    _Arguments = TrainingArguments  # which the subclass is, too
else:
    _Arguments = object


@dataclass(repr=False)  # transformers' own repr hides tokens
class EmoArgumentsMixin(_Arguments):
    """The options of the emotion, for any subclass of TrainingArguments. The subclass must be a dataclass as well.

    Defaults that differ from TrainingArguments:

        optim               "emosens" instead of "adamw_torch_fused" (before torch 2.8: "adamw_torch")
        lr_scheduler_type   "constant" instead of "linear": the step size is left to the emotion alone

    ``learning_rate``, ``adam_beta1``, ``adam_beta2`` and ``adam_epsilon`` keep their defaults, which stand for those
    of the optimizer: 5e-5 becomes the multiplier 1.0 of emosens. Anything else is used as it is.

    Args:
        emo_version: Version of the optimizer, such as "3.8"; None is the newest, or that of ``optim="emosens-3.8"``.
        emo_use_shadow: Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory.
        emo_stopcoef: Loss below which the stop signal may come up, in units of the loss (3.9).
        emo_branch: Which average of the loss decides: "rounding" (as released), "quieter" (as documented) or "long".
        emo_on_nonfinite_loss: At a NaN or infinite loss "raise" ends the training, "skip" leaves the step out, "auto"
            leaves it out if every gradient is finite (all labels masked) and else ends the training.
        emo_stop: What to do when the stop signal comes up: "log" it, "save" a checkpoint, or "stop" the training.
        emo_stop_patience: Number of steps in a row with the signal up that ``emo_stop`` waits for, at least 1.

    None stands for the optimizer's own default.

    Raises:
        OptionError: an option is out of range, set twice, or without effect.
    """

    optim: OptimizerNames | str = field(
        default="emosens", metadata={"help": "The optimizer, at its newest version or pinned as in 'emosens-3.8'."}
    )
    lr_scheduler_type: SchedulerType | str = field(
        default="constant", metadata={"help": "The schedule that multiplies the emotion-driven step size."}
    )
    emo_version: str | None = field(
        default=None, metadata={"help": "Version of the optimizer, by default the newest."}
    )
    emo_use_shadow: bool | None = field(
        default=None, metadata={"help": "Mix a slow copy of the weights back on shocks: one more copy of memory."}
    )
    emo_stopcoef: float | None = field(
        default=None, metadata={"help": "Loss below which the stop signal of 3.9 may come up."}
    )
    emo_branch: Branch | None = field(
        default=None, metadata={"help": "Which average of the loss decides, from 3.6 on."}
    )
    emo_on_nonfinite_loss: OnNonfiniteLoss | None = field(
        default=None,
        metadata={"help": "At a NaN or infinite loss: raise, skip the step, or (auto) look at the gradients first."},
    )
    emo_stop: OnReady = field(
        default="log", metadata={"help": "What to do when the stop signal comes up: log it, save a checkpoint, stop."}
    )
    emo_stop_patience: int = field(
        default=1, metadata={"help": "Number of steps in a row with the stop signal up that emo_stop waits for."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.emo_version is not None:
            self.emo_version = str(self.emo_version)  # YAML reads 3.9 as a number
        if self.emo_stop not in get_args(OnReady):  # files are not checked by the parsers
            raise OptionError(f"emo_stop: got {self.emo_stop!r}, expected one of {', '.join(get_args(OnReady))}.")
        patience = self.emo_stop_patience
        self.emo_stop_patience = operator.index(patience) if hasattr(patience, "__index__") else 0  # numpy's, too
        if self.emo_stop_patience < 1:
            raise OptionError(f"emo_stop_patience: got {patience!r}, expected a number of steps >= 1.")
        check(self)

    def set_optimizer(
        self,
        name: str | OptimizerNames | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        beta1: float | None = None,
        beta2: float | None = None,
        epsilon: float | None = None,
        args: str | None = None,
    ) -> "EmoArgumentsMixin":
        """Sets everything about the optimizer but the ``emo_*`` options. What is not given is this class's default.

        (TrainingArguments' method would set 5e-5, which counts as chosen in a class with another default.)

        Raises:
            OptionError: as when the arguments are built.
        """
        given = {
            "optim": None if name is None else OptimizerNames(name),
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "adam_beta1": beta1,
            "adam_beta2": beta2,
            "adam_epsilon": epsilon,
            "optim_args": args,
        }
        for each in fields(self):
            if each.name in given:
                value = given[each.name]
                setattr(self, each.name, each.default if value is None else value)
        self.optim = OptimizerNames(self.optim)
        check(self)
        return self


@dataclass(repr=False)
class EmoTrainingArguments(EmoArgumentsMixin, TrainingArguments):
    """TrainingArguments for emotion-driven optimizers: see `EmoArgumentsMixin` for its options and defaults."""


def callback_options(args: TrainingArguments) -> dict[str, Any]:
    """Returns the options of `EmotionCallback` that ``args`` set: none, if it is a plain TrainingArguments."""
    options = {"on_ready": "emo_stop", "patience": "emo_stop_patience"}
    return {
        option: getattr(args, name)
        for option, name in options.items()
        if getattr(args, name, None) not in (None, getattr(EmoArgumentsMixin, name))  # its default is the callback's
    }
