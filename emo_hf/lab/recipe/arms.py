"""An arm of a recipe: one optimizer setting, and how it was chosen. A key without effect is an error."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from transformers.training_args import OptimizerNames

from emo_hf import registry
from emo_hf.errors import OptionError, did_you_mean
from emo_hf.lab.recipe import baselines
from emo_hf.lab.recipe.baselines import ALIASES
from emo_hf.lab.recipe.fields import (
    LARGEST_COUNT,
    Count,
    Finite,
    Name,
    NonNegative,
    Positive,
    Share,
    StrictModel,
    Text,
    Value,
    changed,
    renamed,
)


def _named(value: Any) -> Any:
    """``tuning: untuned`` is short for ``tuning: {how: untuned}``."""
    return {"how": value} if isinstance(value, str) else value


class Tuning(StrictModel):
    """How an arm came to its settings; every report repeats it.

    Attributes:
        how: nobody tried others, the optimizer's authors advise them, or they were the best of a grid.
        grid: option -> the values that were run.
        chosen_by: what decided, and on which data.
    """

    how: Literal["untuned", "authors' default", "grid"]
    grid: dict[Text, list[Value]] | None = None
    chosen_by: Text | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Tuning":
        if (self.how == "grid") != bool(self.grid and self.chosen_by):
            raise ValueError("how: grid, grid and chosen_by go together")
        return self

    def __str__(self) -> str:
        if self.grid is None:
            return self.how
        return "grid: " + "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in self.grid.items())


def _known_optimizer(name: str) -> str:
    known = {member.value for member in OptimizerNames} | ALIASES.keys()  # the emo names are among them
    if name not in known:
        raise ValueError(f"unknown optimizer {name!r}.{did_you_mean(name, known)} `emo-hf ls` lists the emo family")
    return name


class LossTransform(StrictModel):
    """The optimizer hears ``scale * loss + offset`` instead of the loss. The gradient stays as it is.

    Attributes:
        scale: multiplies the loss.
        offset: is added.
    """

    scale: Positive = 1.0
    offset: Finite = 0.0

    _something = changed("scale", "offset")


class Replay(StrictModel):
    """The step sizes come from an earlier run.

    Attributes:
        of: the arm of that run.
        other_seed: that run has the recipe's next seed, not the same one.
        order: as recorded; shuffled in time; all equal to their mean; or a cosine to 0 with the same sum.
    """

    of: Name
    other_seed: bool = False
    order: Literal["recorded", "shuffled", "constant", "cosine"] = "recorded"


class Condition(StrictModel):
    """What happens to the training data of this arm.

    Attributes:
        label_noise: the share of training labels that are replaced by another class. All arms get the same ones.
        corrupted_every: with k, the labels of every k-th batch are shuffled.
        train_examples: the number of training examples that are used, from the first on.
    """

    label_noise: Share = 0.0
    corrupted_every: Annotated[int, Field(ge=2, le=LARGEST_COUNT)] | None = None
    train_examples: Count | None = None

    _something = changed("label_noise", "corrupted_every", "train_examples")


class Handover(StrictModel):
    """A checkpoint cuts the training in two.

    Attributes:
        at: the share of the steps before the cut.
        optimizer: the second part keeps the optimizer's state, or starts with a fresh optimizer.
        data: both parts see the same examples, or each part sees half of the classes.
    """

    at: Annotated[float, Field(gt=0, lt=1)] = 0.5
    optimizer: Literal["kept", "fresh"]
    data: Literal["same", "halves"] = "same"


class Arm(StrictModel):
    """One optimizer setting.

    Attributes:
        optim: a spec of the registry ("emosens", "emosens-3.9"), an ``optim`` of transformers ("adamw_torch"), or one
            of `emo_hf.lab.recipe.baselines` ("lion").
        lr: learning rate; a multiplier around 1.0 for emo optimizers from 3.7 on.
        options: further options; ``emo-hf show NAME`` lists those of an emo optimizer.
        weight_decay: for all parameters but biases and norms, as in Trainer.
        schedule: transformers' name of the learning rate schedule.
        warmup: share of the steps over which the schedule rises from 0.
        max_grad_norm: the norm at which gradients are clipped, 1.0 as in Trainer; 0 does not clip.
        withhold_loss: the optimizer or emopulse hears 0.0 at each step, as in the authors' runs.
        loss_transform: the optimizer or emopulse hears a changed loss.
        driven_by: emopulse sets the rate of another optimizer by the loss; `lr` stands for the pulse's base of 1e-4.
        replay: the step sizes come from another run; for optimizers from 3.7 on.
        weights: the dtype of model and optimizer.
        condition: what happens to the training data.
        handover: a cut in the training.
        local_sgd_steps: the processes train alone and average their weights after this many steps. None: they train
            synchronously.
        tuning: how the arm came to its settings; one word, as in ``untuned``, is short for ``{how: untuned}``.
        family: the sweep that this arm comes from. In a recipe, ``sweep: [0.1, 1]`` instead of ``lr`` makes one arm
            per rate, with names like "emosens-lr-0.1".
    """

    _former = renamed(withhold_loss="feed", loss_transform="heard")
    optim: Annotated[str, AfterValidator(_known_optimizer)]
    lr: Positive
    options: dict[Text, Value] = {}
    weight_decay: NonNegative = 0.0
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant"
    warmup: Share = 0.0
    max_grad_norm: NonNegative = 1.0
    withhold_loss: bool = False
    loss_transform: LossTransform | None = None
    driven_by: Literal["emopulse"] | None = None
    replay: Replay | None = None
    weights: Literal["float32", "bfloat16"] = "float32"
    condition: Condition | None = None
    handover: Handover | None = None
    local_sgd_steps: Count | None = None
    tuning: Annotated[Tuning, BeforeValidator(_named)]
    family: Name | None = None

    @property
    def is_emo(self) -> bool:
        return self.optim in registry.names()

    @property
    def has_emotion(self) -> bool:
        """Whether it hears the loss as emotion: an emo optimizer, or another one driven by emopulse."""
        return self.is_emo or self.driven_by is not None

    @property
    def logs_moments(self) -> bool:
        """Whether its signals hold the moments of the gradient."""
        return self.is_emo and registry.find(self.optim).resolve(self.options)["moments"] != "off"

    @property
    def optimizer(self) -> str:
        """`optim` with its version, e.g. "emosens-3.9", where it has one."""
        return registry.find(self.optim).key if self.is_emo else self.optim

    @property
    def has_pulse(self) -> bool:
        """Whether its step size can be held: emo optimizers from 3.7 on."""
        return self.is_emo and "hold_pulse" in registry.find(self.optim).options

    # Fields are checked in the order above. Those that failed are not in info.data.

    @field_validator("options")
    @classmethod
    def _reach_the_optimizer(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        optim = info.data.get("optim")
        if own := {"lr", "weight_decay"} & options.keys():
            raise ValueError(f"{' and '.join(sorted(own))}: write it beside options, not into them")
        if optim in registry.names():
            try:
                registry.find(optim).resolve(options)
            except OptionError as error:
                raise ValueError(str(error)) from None
        elif optim in ALIASES:
            baselines.check(optim, options)
        elif optim and options:
            raise ValueError(f"{optim!r} is of transformers, whose optimizers take no options here")
        return options

    @field_validator("weight_decay")
    @classmethod
    def _decays(cls, weight_decay: float, info: ValidationInfo) -> float:
        optim = info.data.get("optim")
        if weight_decay and optim in registry.names() and "weight_decay" not in registry.find(optim).options:
            raise ValueError(f"{optim} has no weight decay")
        return weight_decay

    @field_validator("warmup")
    @classmethod
    def _warms_up(cls, warmup: float, info: ValidationInfo) -> float:
        if warmup and info.data.get("schedule") == "constant":
            raise ValueError("schedule constant has none: use constant_with_warmup")
        return warmup

    @model_validator(mode="after")
    def _has_effect(self) -> "Arm":
        problems = []
        if not self.has_emotion and (self.withhold_loss or self.loss_transform):
            problems.append(
                f"withhold_loss and loss_transform are for emo optimizers and driven_by, and {self.optim!r} is neither"
            )
        if self.withhold_loss and self.loss_transform:
            problems.append("withhold_loss and loss_transform exclude each other")
        if self.driven_by and (self.is_emo or self.schedule != "constant"):
            problems.append("driven_by is for other optimizers than the emo ones, with the schedule constant")
        if self.replay and not (self.has_pulse and self.schedule == "constant"):
            problems.append("replay is for emo optimizers from 3.7 on, with the schedule constant")
        if self.handover and (self.local_sgd_steps or self.replay):
            problems.append("handover goes neither with local_sgd_steps nor with replay")
        if self.handover and self.handover.optimizer == "fresh" and self.schedule != "constant":
            problems.append("a handover to a fresh optimizer needs the schedule constant: any other would start over")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Change(StrictModel):
    """What a size changes in an arm.

    Attributes:
        lr: its learning rate at this size.
        tuning: how that one was chosen.
    """

    lr: Positive
    tuning: Annotated[Tuning, BeforeValidator(_named)]
