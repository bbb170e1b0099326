"""Optimizers of other packages that an arm may name. A recipe names no module, so a table does.

The table holds the options that make a class what its paper describes; an arm's own options come on top. The extra
``baselines`` installs the packages.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import nn

from emo_hf.errors import MissingLossError, RecipeError


def hidden_matrices_apart(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns parameter groups for Muon: `use_muon` is set for the matrices between embeddings and head.

    Its AdamW gets the rest (embeddings, head, biases, gains), as github.com/KellerJordan/Muon advises. Vectors do not
    decay, as in Trainer.

    Args:
        model: one of transformers, or PEFT over one. Whatever lies outside its ``base_model`` is the head. The first
            convolution of an image model counts as hidden.
        weight_decay: of the matrices.
    """
    wrapped: Any = model
    whole = wrapped.get_base_model() if hasattr(model, "get_base_model") else wrapped  # PEFT wraps head and all
    inner = set(whole.base_model.parameters())
    inner -= {weight for part in model.modules() if isinstance(part, nn.Embedding) for weight in part.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for weight in model.parameters():
        if weight.requires_grad:
            groups.setdefault((weight.ndim > 1 and weight in inner, weight.ndim > 1), []).append(weight)
    return [
        {"params": weights, "use_muon": hidden, "weight_decay": weight_decay if decays else 0.0}
        for (hidden, decays), weights in groups.items()
    ]


def without_empty(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns Trainer's two parameter groups, without one that is empty, as that of LoRA's vectors is.

    Args:
        model: its trainable parameters are grouped.
        weight_decay: of the matrices; vectors do not decay.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    decaying, others = [each for each in weights if each.ndim > 1], [each for each in weights if each.ndim < 2]
    groups = [{"params": decaying, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


@dataclass(frozen=True, slots=True)
class Alias:
    """Where an optimizer lies, and the options that make it the one of `source`."""

    package: str
    name: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    hears_loss: bool = False  # its ``step`` takes ``loss=``
    rates: tuple[str, ...] = ("lr",)  # the arguments that get the learning rate
    groups: Callable[[nn.Module, float], list[dict[str, Any]]] | None = None  # instead of Trainer's two
    idle: tuple[str, ...] = ()  # options that `groups` decides


ALIASES: dict[str, Alias] = {
    "ademamix": Alias("pytorch_optimizer", "AdEMAMix", "arXiv:2409.03137", {"weight_decouple": True}),
    "aggmo": Alias("pytorch_optimizer", "AggMo", "arXiv:1804.00325"),
    "dadapt-adam": Alias("pytorch_optimizer", "DAdaptAdam", "arXiv:2301.07733"),
    "lion": Alias("pytorch_optimizer", "Lion", "arXiv:2302.06675"),
    "momo-adam": Alias("momo", "MomoAdam", "arXiv:2305.07583", hears_loss=True),
    "muon": Alias(  # with steps of AdamW's size, so that one rate serves all weights
        "pytorch_optimizer",
        "Muon",
        "arXiv:2502.16982",
        {"use_adjusted_lr": True},
        rates=("lr", "adamw_lr"),
        groups=hidden_matrices_apart,
        idle=("adamw_wd",),
    ),
    "prodigy": Alias("prodigyopt", "Prodigy", "arXiv:2306.06101"),
    "prodigy-plus-schedulefree": Alias(
        "prodigyplus",
        "ProdigyPlusScheduleFree",
        "github.com/LoganBooker/prodigy-plus-schedule-free",
        groups=without_empty,
    ),
    # with their own defaults these two are SGD and Adam
    "qhadam": Alias("pytorch_optimizer", "QHAdam", "arXiv:1810.06801", {"betas": (0.995, 0.999), "nus": (0.7, 1.0)}),
    "qhm": Alias("pytorch_optimizer", "QHM", "arXiv:1810.06801", {"momentum": 0.999, "nu": 0.7}),
    "schedulefree-adamw": Alias("schedulefree", "AdamWScheduleFree", "arXiv:2405.15682"),
    "sgd-momentum": Alias("torch.optim", "SGD", "torch", {"momentum": 0.9}),
    "tiger": Alias("pytorch_optimizer", "Tiger", "github.com/bojone/tiger"),
}


def load(name: str) -> type[torch.optim.Optimizer]:
    """Returns the class of an alias.

    Raises:
        RecipeError: its package is not installed.
    """
    alias = ALIASES[name]
    try:
        return getattr(importlib.import_module(alias.package), alias.name)
    except (ImportError, AttributeError) as error:  # no package, or a version without the class
        raise RecipeError(
            f"The optimizer {name} is {alias.package}.{alias.name}, which is not installed ({error}):"
            " pip install 'emo-hf[baselines]'."
        ) from None


def check(name: str, options: Mapping[str, Any]) -> None:
    """Refuses options that the class of an alias does not know. Without its package, all options pass.

    Raises:
        ValueError: an unknown option.
    """
    try:
        known = inspect.signature(load(name)).parameters
    except RecipeError:
        return
    # the first one is for the parameters to train; **kwargs is no name
    parameters, idle = list(known.items())[1:], ALIASES[name].idle
    names = [key for key, each in parameters if each.kind is not each.VAR_KEYWORD and key not in idle]
    if unknown := options.keys() - set(names):
        raise ValueError(f"{name} has no option {', '.join(sorted(unknown))}, only {', '.join(names)}")


def keywords(name: str, lr: float, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of the class without the parameters. Sequences become tuples, as in torch."""
    alias = ALIASES[name]
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return {**dict.fromkeys(alias.rates, lr), **alias.options, **given}


class Hearing:
    """Hands Trainer's loss to an optimizer whose ``step`` takes ``loss=``.

    Args:
        optimizer: gets a new ``step``, without an argument.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._key = type(optimizer).__name__
        self._loss: Any = None
        step_with: Callable[..., Any] = optimizer.step

        def step(optimizer: torch.optim.Optimizer, closure: None = None) -> Any:
            return step_with(loss=torch.tensor(self._taken()))

        optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]  # schedulers rebind a method

    def observe(self, loss: Any) -> None:
        """Takes the loss of the next step, which calls its ``item()``."""
        self._loss = loss

    @property
    def observed(self) -> Any:
        """The loss of the next step, None once the step has taken it."""
        return self._loss

    def _taken(self) -> float:
        if self._loss is None:
            raise MissingLossError(f"{self._key}.step() got no loss. It needs one for every step: call observe(loss).")
        loss, self._loss = self._loss, None
        return loss.item()
