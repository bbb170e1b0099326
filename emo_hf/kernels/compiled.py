"""The rules by torch.compile: one pass over memory, after some seconds of compilation at the first step.

What changes from step to step enters as tensors of no dimension, so that nothing is compiled again. On a CPU every
large tensor is taken alone, as a flat one of any length; on a GPU all of them are one graph. Small tensors and the
rules that are not elementwise go the way of `emo_hf.kernels.fused`.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from emo_hf.kernels import foreach, fused
from emo_hf.updates import Hyper, Rule, TensorState, Update

CHANGING = ("step", "decay", "lion_decay", "scalar", "freshness")


@functools.cache
def _compiled(rule: Rule, any_length: bool) -> Callable[..., None]:
    def step(params: list[Tensor], grads: list[Tensor], states: list[TensorState], h: Hyper) -> None:
        foreach.apply(rule, params, grads, states, h)

    return torch.compile(step, dynamic=any_length, fullgraph=True)


def run(update: Update, params: list[Tensor], grads: list[Tensor], states: list[TensorState], h: Hyper) -> None:
    """Applies `update` to contiguous tensors of one device, dtype and number of dimensions."""
    on_cpu = params[0].device.type == "cpu"
    if not update.elementwise or update.apply in fused.WHOLE:
        return fused.run(update, params, grads, states, h)
    dtype = torch.promote_types(params[0].dtype, torch.float32)
    changing: dict[str, Any] = {name: torch.tensor(getattr(h, name), dtype=dtype) for name in CHANGING}
    h = h._replace(**changing)
    if not on_cpu:
        return _compiled(update.apply, False)(params, grads, states, h)
    small = [i for i, param in enumerate(params) if param.numel() < fused.SMALL]
    if small:
        fused.run(update, [params[i] for i in small], [grads[i] for i in small], [states[i] for i in small], h)
    for param, grad, state in zip(params, grads, states, strict=True):
        if param.numel() >= fused.SMALL:
            flat = {name: tensor.view(-1) for name, tensor in state.items()}
            _compiled(update.apply, True)([param.view(-1)], [grad.view(-1)], [flat], h)
