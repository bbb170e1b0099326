"""A small problem for any spec of the registry: parameters, gradients and losses that are the same in every run."""

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch

from emo_hf import registry

SHAPES = ((6, 4), (5,), (3, 2, 2), (4, 3), ())
LOSSES = (2.0, 1.9, 1.5, 3.5, 1.2, 0.4, 0.39, 20.0, 0.1, 0.1, 0.12, 0.3)  # calm stretches, falls and shocks
STEPS = range(len(LOSSES))
every_row = pytest.mark.parametrize("spec", registry.specs(), ids=lambda spec: spec.key)
by_parts = pytest.mark.parametrize(  # those that a part of the weights does not tell from the whole
    "spec", [spec for spec in registry.specs() if not spec.mechanism.measures], ids=lambda spec: spec.key
)
released = pytest.mark.parametrize("spec", registry.SPECS, ids=lambda spec: spec.key)
without_16_bit_warning = pytest.mark.filterwarnings("ignore:.*without compensation:UserWarning")
without_3_1_warning = pytest.mark.filterwarnings("ignore:.*shrinks the weights:UserWarning")


def make_params(shapes: Iterable[tuple] = SHAPES, dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    """Returns the same parameters at every call."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [torch.nn.Parameter(tensor.to(dtype)) for tensor in tensors]


def give_gradients(params: Iterable[torch.nn.Parameter], t: int) -> None:
    """Sets the gradients of step `t`; a fifth of their entries are exactly 0."""
    generator = torch.Generator().manual_seed(t + 1)
    for param in params:
        grad = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        param.grad = torch.where(grad.abs() < 0.25, 0.0, grad).to(param.dtype)


def build(spec: Any, params: Iterable, *, shadow: bool = False, **options: Any) -> torch.optim.Optimizer:
    """Builds the optimizer of `spec`; `shadow` switches the shadow on where there is a switch."""
    switch = {"use_shadow": True} if shadow and "use_shadow" in spec.options else {}
    return registry.build(spec.key, params, **switch, **options)


def run(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], steps: Iterable[int]) -> None:
    """Takes the steps with their gradients and losses."""
    for t in steps:
        give_gradients(params, t)
        optimizer.step(loss=LOSSES[t])


def values(params: Iterable[torch.nn.Parameter]) -> list[torch.Tensor]:
    """Returns copies."""
    return [param.detach().clone() for param in params]


def trained(spec: Any, params: list[torch.nn.Parameter] | None = None, **options: Any) -> list[torch.Tensor]:
    """Returns the parameters (by default those of `make_params`) after all steps."""
    params = make_params() if params is None else params
    run(build(spec, params, **options), params, STEPS)
    return values(params)


class Writer:
    """A TensorBoard-like writer: `scalars` holds the values by step and tag."""

    def __init__(self) -> None:
        self.scalars: dict[int, dict[str, float]] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.setdefault(step, {})[tag] = value


def snapshot(optimizer: torch.optim.Optimizer, params: Iterable[torch.nn.Parameter]) -> Any:
    """Returns a copy of all that a step can change."""
    return copy.deepcopy(([param.detach() for param in params], optimizer.state_dict()))


def same(a: Any, b: Any) -> bool:
    """Bitwise equality of nested containers of tensors and plain values; nan equals nan."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))
