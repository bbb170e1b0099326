"""The rules over many tensors at once: `Tensors` is a list that computes like a tensor.

    m.mul_(0.9).add_(grad, alpha=0.1)        one torch._foreach call for all tensors, then another

so that a rule of `emo_hf.updates`, written for one tensor, runs unchanged. An operation that torch has no list form of
is applied to one after the other.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from emo_hf.updates import Hyper, TensorState, Update


class Tensors:
    """Tensors of one device, dtype and number of dimensions, as one operand of the operations that the rules use."""

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[Tensor]):
        self.parts = list(parts)

    def dim(self) -> int:
        return self.parts[0].dim()


def _one_by_one(
    function: Callable[..., Any], tensors: Tensors, others: Sequence[Any], kwargs: dict[str, Any]
) -> Tensors:
    columns = [other.parts if isinstance(other, Tensors) else [other] * len(tensors.parts) for other in others]
    return Tensors([function(part, *rest, **kwargs) for part, *rest in zip(tensors.parts, *columns, strict=True)])


def _operation(function: Callable[..., Any], foreach: Callable[..., Any] | None = None) -> Callable[..., Tensors]:
    def call(self: Tensors, *others: Any, **kwargs: Any) -> Tensors:
        for key in ("alpha", "value"):
            if isinstance(kwargs.get(key), Tensor):  # under torch.compile; no list form takes a tensor here
                others = (others[0].mul(kwargs.pop(key)), *others[1:])
        if foreach is None:
            return _one_by_one(function, self, others, kwargs)
        result = foreach(
            self.parts, *(other.parts if isinstance(other, Tensors) else other for other in others), **kwargs
        )
        return self if result is None else Tensors(result)

    return call


OPERATIONS = [
    "abs",
    "add",
    "add_",
    "addcmul_",
    "div",
    "ge",
    "mean",
    "mul",
    "mul_",
    "norm",
    "pow",
    "sign",
    "sign_",
    "sqrt",
    "sqrt_",
]
for _name in OPERATIONS:
    setattr(Tensors, _name, _operation(getattr(Tensor, _name), getattr(torch, f"_foreach_{_name}", None)))
for _symbol, _name in (("add", "add"), ("radd", "add"), ("mul", "mul"), ("truediv", "div")):
    setattr(Tensors, f"__{_symbol}__", getattr(Tensors, _name))
setattr(Tensors, "__eq__", _operation(operator.eq))  # noqa: B010


class _States:
    """The states of many tensors: ``state["exp_avg"]`` is all their first moments."""

    def __init__(self, states: Sequence[TensorState]):
        self._states = states

    def __getitem__(self, name: str) -> Tensors:
        return Tensors([state[name] for state in self._states])


def apply(
    rule: Callable[..., None], params: list[Tensor], grads: list[Tensor], states: list[TensorState], h: Hyper
) -> None:
    """Applies ``rule``, of `emo_hf.updates`, to tensors of one device and number of dimensions."""
    rule(Tensors(params), Tensors(grads), _States(states), h)


def direction(form: Callable[[TensorState, Hyper], Tensor], states: Sequence[TensorState], h: Hyper) -> list[Tensor]:
    """Returns the directions that ``form``, of an `Update`, makes of the states of tensors of one device."""
    found: Any = form(_States(states), h)  # type: ignore[arg-type]
    return found.parts


def run(update: Update, params: list[Tensor], grads: list[Tensor], states: list[TensorState], h: Hyper) -> None:
    """Applies ``update`` to tensors of one device, dtype and number of dimensions."""
    apply(update.apply, params, grads, states, h)
