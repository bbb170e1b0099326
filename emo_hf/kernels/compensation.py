"""Compensated summation for parameters of 16 bits: a second tensor keeps what rounding cuts off.

    w = p + c;  rule on w, in float32;  p = round(w);  c = round(w - p)

A step far below the spacing of bfloat16 is otherwise lost, always. `c` has the dtype of `p`, so the pair holds about
16 significant bits in 4 bytes. Kahan summation (doi 10.1145/363707.363723), as low-precision optimizers use it.
"""

import torch
from torch import Tensor

from emo_hf.kernels import foreach, fused
from emo_hf.updates import Hyper, TensorState, Update

KEY = "compensation"


def applies_to(param: Tensor) -> bool:
    """Tells whether a parameter is too coarse for small steps."""
    return param.dtype in (torch.bfloat16, torch.float16)


def run(update: Update, params: list[Tensor], grads: list[Tensor], states: list[TensorState], h: Hyper) -> None:
    """Applies `update` to tensors of one device, dtype and number of dimensions, whose states hold `KEY`."""
    if update.elementwise and all(tensor.is_contiguous() for tensor in (*params, *grads)):
        for portion in fused.portions(params, grads, states):
            _apply(update, *portion, h)
    else:
        for param, grad, state in zip(params, grads, states, strict=True):
            _apply(update, [param], [grad], [state], h)


def _apply(update: Update, params: list[Tensor], grads: list[Tensor], states: list[TensorState], h: Hyper) -> None:
    lost = [state[KEY] for state in states]
    wide = [param.float().add_(c) for param, c in zip(params, lost, strict=True)]
    foreach.run(update, wide, grads, states, h)
    _store(wide, params, lost)


def scale_(params: list[Tensor], states: list[TensorState], scale: float) -> None:
    """Multiplies parameters by `scale`, together with what rounding cut off of those whose states hold `KEY`."""
    plain = [param for param, state in zip(params, states, strict=True) if KEY not in state]
    if plain:
        torch._foreach_mul_(plain, scale)
    for param, state in zip(params, states, strict=True):
        if KEY in state:
            _store([param.float().add_(state[KEY]).mul_(scale)], [param], [state[KEY]])


def _store(wide: list[Tensor], params: list[Tensor], lost: list[Tensor]) -> None:
    torch._foreach_copy_(params, wide)
    torch._foreach_sub_(wide, params)
    torch._foreach_copy_(lost, wide)
