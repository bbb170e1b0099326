"""What an optimizer of the family is made of: one frozen spec of choices."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch

from emo_hf.emotion import BRANCHES
from emo_hf.errors import OptionError, did_you_mean
from emo_hf.geometry import Geometry
from emo_hf.kernels import IMPLEMENTATIONS
from emo_hf.loss import LossOverRanks
from emo_hf.mechanism import Mechanism
from emo_hf.shadow import Shadow
from emo_hf.updates import Update

GROUP_OPTIONS = ("lr", "betas", "eps", "weight_decay", "lynx_betas")  # may differ between parameter groups
OnNonfiniteLoss = Literal["auto", "raise", "skip"]
UseOfMoments = Literal["off", "log", "drive"]
Compensation = Literal["off", "kahan"]
CHOICES: dict[str, tuple[str, ...]] = {
    "branch": BRANCHES,
    "on_nonfinite_loss": get_args(OnNonfiniteLoss),
    "moments": get_args(UseOfMoments),
    "implementation": IMPLEMENTATIONS,
    "compensation": get_args(Compensation),
    "loss_over_ranks": get_args(LossOverRanks),
}
ALWAYS = {
    "on_nonfinite_loss": "auto",
    "moments": "off",
    "implementation": "auto",
    "compensation": "off",
    "loss_over_ranks": "mean",
}


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """One optimizer at one version.

    Attributes:
        name: the string users type, e.g. "emosens".
        version: upstream's, e.g. "3.9".
        mechanism, update, shadow, geometry: what it computes.
        defaults: upstream's constructor defaults of the arguments that act.
        dead: upstream's arguments that have no effect. `resolve` refuses them; the constructor warns of them instead.
        recommended_lr: the author's advice, in words.
        trainer_lr: what takes the place of Trainer's own default; None: the constructor's default.
        source: repository@commit; "emo_hf" for what is ours.
        quirks: what this version does that its user would not expect, a sentence each.
    """

    name: str
    version: str
    mechanism: Mechanism
    update: Update
    shadow: Shadow
    defaults: Mapping[str, Any]
    source: str
    recommended_lr: str
    geometry: Geometry | None = None
    trainer_lr: float | None = None
    dead: tuple[str, ...] = ()
    quirks: tuple[str, ...] = field(default=(), repr=False)

    @property
    def key(self) -> str:
        """Name and version, e.g. "emosens-3.9"."""
        return f"{self.name}-{self.version}"

    @property
    def is_ours(self) -> bool:
        """True: an optimizer of this project, not of the authors."""
        return self.source == "emo_hf"

    @property
    def lr_is_multiplier(self) -> bool:
        """True: `lr` multiplies the pulse and is around 1.0. False: `lr` is the base rate of the dampers."""
        return self.mechanism.multiplies

    @property
    def elementwise(self) -> bool:
        """True: any slice of the weights may be updated alone, as DeepSpeed ZeRO and FSDP1 do."""
        return self.update.elementwise and self.geometry is None and not self.mechanism.measures

    @property
    def options(self) -> dict[str, Any]:
        """Every option that acts, with its default."""
        options = dict(self.defaults)
        if self.mechanism.branch:
            options["branch"] = self.mechanism.branch
        if self.mechanism.can_hold:
            options["hold_pulse"] = False
        return {**ALWAYS, **options}

    @property
    def state_ratio(self) -> float:
        """State bytes per parameter byte of a 768 x 768 matrix, without shadow."""
        param = torch.empty(768, 768, device="meta")
        return sum(t.numel() for t in self.update.init(param).values()) / param.numel()

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns `options` with `given` on top, checked.

        Raises:
            OptionError: an unknown, dead or out-of-range option; every problem is listed.
        """
        problems = []
        options, given = self.options, {name: plain(value) for name, value in given.items()}
        for name, value in given.items():
            if name in self.dead:
                problems.append(f"{name} has no effect in {self.key}: remove it")
            elif name not in options:
                near = did_you_mean(name, options)
                problems.append(f"unknown option {name!r}" + (f".{near}" if near else ""))
            elif problem := flaw_of_option(self, name, value):
                problems.append(f"{name}: got {value!r:.60}, expected {problem}")
        if problems:
            text = "; ".join(problems)
            end = "" if text.endswith("?") else "."
            raise OptionError(f"{self.key}: {text}{end} Valid options: {', '.join(sorted(options))}.")
        return {**options, **given}


def plain(value: Any) -> Any:
    """Returns a number of numpy or a tensor of one element as Python's own; anything else as it is."""
    if isinstance(value, tuple | list):
        return type(value)(map(plain, value))
    return value.item() if hasattr(value, "item") and math.prod(getattr(value, "shape", ())) == 1 else value


def is_number(value: Any) -> bool:
    """True for what a finite float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def flaw_of_option(spec: OptimizerSpec, name: str, value: Any) -> str:
    """Returns what was expected of an option, or an empty string if `value` is that."""
    number = is_number(value)
    match name:
        case "lr":
            if spec.lr_is_multiplier:
                return "" if number and value > 0 else "a multiplier > 0, around 1.0"
            return "" if number and value >= 0 else "a learning rate >= 0"
        case "eps" | "weight_decay" | "stopcoef":
            return "" if number and value >= 0 else "a number >= 0"
        case "betas" | "lynx_betas":
            pair = isinstance(value, tuple | list) and len(value) == 2
            return "" if pair and all(isinstance(b, int | float) and 0 <= b < 1 for b in value) else "two in [0, 1)"
        case "total_steps":
            return "" if value is None or (type(value) is int and value > 0) else "a number of steps, or None"
        case _ if name in CHOICES:
            return "" if value in CHOICES[name] else f"one of {', '.join(CHOICES[name])}"
        case _:
            return "" if isinstance(value, bool) else "true or false"
