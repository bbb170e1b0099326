"""An arm of a recipe: one optimizer setting, and how it was chosen. Nothing in it may be silently without effect."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, field_validator, model_validator
from transformers.training_args import OptimizerNames

from emo_hf import catalog
from emo_hf.errors import OptionError, did_you_mean
from emo_hf.hf.optim import names
from emo_hf.lab.strict import Count, NonNegative, Positive, Share, Strict, Text


def _named(value: Any) -> Any:
    """``tuning: untuned`` is short for ``tuning: {how: untuned}``."""
    return {"how": value} if isinstance(value, str) else value


class Tuning(Strict):
    """How an arm came to its settings; every report repeats it.

    Attributes:
        how: nobody tried others; the authors of the optimizer advise them; or the best of a grid.
        grid: option -> the values that were run.
        chosen_by: what decided, and on which data.
    """

    how: Literal["untuned", "authors' default", "grid"]
    grid: dict[Text, list[Any]] | None = None
    chosen_by: Text | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Tuning":
        if (self.how == "grid") != bool(self.grid and self.chosen_by):
            raise ValueError("how: grid, grid and chosen_by go together")
        return self

    def __str__(self) -> str:
        if self.how != "grid":
            return self.how
        return "grid: " + "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in self.grid.items())


def _known_optimizer(name: str) -> str:
    known = {member.value for member in OptimizerNames}  # the emo names are among them
    if name not in known:
        raise ValueError(f"unknown optimizer {name!r}.{did_you_mean(name, known)} `emo-hf ls` lists the emo family")
    return name


class Arm(Strict):
    """One optimizer setting.

    Attributes:
        optim: a row of the catalog ("emosens", "emosens-3.9") or an ``optim`` of transformers ("adamw_torch").
        lr: learning rate; a multiplier around 1.0 for emo optimizers from 3.7 on.
        options: further options of an emo optimizer; ``emo-hf show NAME`` lists them.
        weight_decay: of all parameters but biases and norms, as Trainer does it.
        schedule: transformers' name of the learning rate schedule.
        warmup: share of the steps over which the schedule rises from 0.
        local_sgd_steps: each process of the recipe trains by itself, and their weights are averaged every so many
            steps; without it they train synchronously.
    """

    optim: Annotated[str, AfterValidator(_known_optimizer)]
    lr: Positive
    options: dict[Text, Any] = {}
    weight_decay: NonNegative = 0.0
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant"
    warmup: Share = 0.0
    local_sgd_steps: Count | None = None
    tuning: Annotated[Tuning, BeforeValidator(_named)]

    @property
    def is_emo(self) -> bool:
        return self.optim in names()

    @property
    def optimizer(self) -> str:
        """`optim` with its version, e.g. "emosens-3.9", where it has one."""
        return catalog.find(self.optim).key if self.is_emo else self.optim

    # fields are checked in the order above; those that failed are not in info.data

    @field_validator("options")
    @classmethod
    def _reach_the_optimizer(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        optim = info.data.get("optim")
        if own := {"lr", "weight_decay"} & options.keys():
            raise ValueError(f"{' and '.join(sorted(own))}: write it beside options, not into them")
        if optim in names():
            try:
                catalog.find(optim).resolve(options)
            except OptionError as error:
                raise ValueError(str(error)) from None
        elif optim and options:
            raise ValueError(f"only emo optimizers take options, and {optim!r} is none")
        return options

    @field_validator("weight_decay")
    @classmethod
    def _decays(cls, weight_decay: float, info: ValidationInfo) -> float:
        optim = info.data.get("optim")
        if weight_decay and optim in names() and "weight_decay" not in catalog.find(optim).options:
            raise ValueError(f"{optim} has no weight decay")
        return weight_decay

    @field_validator("warmup")
    @classmethod
    def _warms_up(cls, warmup: float, info: ValidationInfo) -> float:
        if warmup and info.data.get("schedule") == "constant":
            raise ValueError("schedule constant has none: use constant_with_warmup")
        return warmup


class Change(Strict):
    """What a size changes in an arm."""

    lr: Positive
    tuning: Annotated[Tuning, BeforeValidator(_named)]
