"""The rules by torch's fused kernels, which read and write every tensor once.

    adam_                          torch._fused_adamw_, told that it is so late that its bias corrections are 1
    corrected_adam_                as adam_, the corrections in the step size and in eps
    sign_, lion_, momentum_sign_   the direction of a portion, then torch._fused_sgd_ on it
    factored_ and its like         matrices in two passes over blocks of rows; vectors by the rule
    others that are elementwise    the rule, portion by portion

A portion is all small tensors together, or a piece of a large one that stays in the cache of a CPU: no temporary is
larger. Sums round differently from the rule's; the golden traces hold every kernel to it. The fused kernels take
weight decay as a share of the step size.
"""

import functools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from emo_hf import updates
from emo_hf.kernels import foreach
from emo_hf.updates import Hyper, Rule, TensorState, Update

Tensors = list[Tensor]
States = list[TensorState]

DEVICES = ("cpu", "cuda")  # others have no fused SGD, or none that was tried
PIECE = 2**19  # elements; a few pieces of float32 stay in the last-level cache
SMALL = 2**16  # elements; below, a call costs more than the trip to memory


def portions(params: Tensors, grads: Tensors, states: States) -> Iterator[tuple[Tensors, Tensors, States]]:
    """Splits contiguous tensors into lists worth one call; a piece is a flat view, its state too."""
    small = [i for i, param in enumerate(params) if param.numel() < SMALL]
    if small:
        yield [params[i] for i in small], [grads[i] for i in small], [states[i] for i in small]
    for param, grad, state in zip(params, grads, states, strict=True):
        if param.numel() < SMALL:
            continue
        pieces = zip(param.view(-1).split(PIECE), grad.view(-1).split(PIECE), strict=True)
        parts = {name: tensor.view(-1).split(PIECE) for name, tensor in state.items()}
        for i, (param_piece, grad_piece) in enumerate(pieces):
            yield [param_piece], [grad_piece], [{name: part[i] for name, part in parts.items()}]


@functools.cache
def _late(device: torch.device) -> Tensor:
    return torch.full((), 1e9, device=device)  # filled there: nobody waits for a copy


def correction(h: Hyper) -> tuple[float, float]:
    """Returns k and e, with which k m / (sqrt(v) + e) is the direction of `emo_hf.updates.corrected_adam_`.

    Before the first step there is no direction: k = 0.
    """
    root = math.sqrt(1 - h.beta2**h.age)
    return (root / (1 - h.beta1**h.age), h.eps * root) if h.age else (0.0, 1.0)


def _share(params: Tensors, decay: float, step: float) -> float:
    """Returns decay / step. A decay without a step is applied at once."""
    if step == 0 and decay:
        torch._foreach_mul_(params, 1 - decay)
    return decay / step if step else 0.0


def adam_(params: Tensors, grads: Tensors, states: States, h: Hyper) -> None:
    torch._fused_adamw_(
        params,
        grads,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [_late(params[0].device)] * len(params),
        lr=h.step,
        beta1=h.beta1,
        beta2=h.beta2,
        weight_decay=_share(params, h.decay, h.step),
        eps=h.eps,
        amsgrad=False,
        maximize=False,
    )


def corrected_adam_(params: Tensors, grads: Tensors, states: States, h: Hyper) -> None:
    factor, eps = correction(h)
    adam_(params, grads, states, h._replace(step=h.step * factor, eps=eps))


def _descend_(params: Tensors, directions: Tensors | tuple[Tensor, ...], decay: float, step: float) -> None:
    if params[0].device.type == "cpu" and params[0].element_size() == 2:
        # torch 2.13's fused SGD leaves most 16-bit parameters as they are on a CPU
        torch._foreach_mul_(params, 1 - decay)
        torch._foreach_add_(params, directions, alpha=-step)
        return
    # p -= step (direction + decay / step p)
    torch._fused_sgd_(
        params,
        directions,
        [],
        weight_decay=_share(params, decay, step),
        momentum=0.0,
        lr=step,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )


def sign_(params: Tensors, grads: Tensors, states: States, h: Hyper) -> None:
    _descend_(params, torch._foreach_sign(grads), h.decay, h.step)


def momentum_sign_(params: Tensors, grads: Tensors, states: States, h: Hyper) -> None:
    averages = [state["exp_avg"] for state in states]
    # m = (1-k) m + k g
    torch._foreach_lerp_(averages, grads, (1 - h.beta1) * h.freshness)
    _descend_(params, torch._foreach_sign(averages), h.decay, h.step)


def lion_(params: Tensors, grads: Tensors, states: States, h: Hyper) -> None:
    averages = [state["exp_avg"] for state in states]
    # u = sign(b1 m + (1-b1) g);  m = b2 m + (1-b2) g
    directions = torch._foreach_lerp(grads, averages, h.beta1)
    torch._foreach_sign_(directions)
    torch._foreach_lerp_(averages, grads, 1 - h.beta2)
    _descend_(params, directions, h.lion_decay, h.step)


def factored_(param: Tensor, grad: Tensor, state: TensorState, h: Hyper) -> None:
    """`emo_hf.updates.factored_` of a matrix, as blocks of rows."""
    rows = max(PIECE // grad[0].numel(), 1)
    row, column = state["exp_avg_sq_row"].view(-1, 1), state["exp_avg_sq_col"].view(1, -1)
    blocks = grad.view(row.numel(), -1).split(rows)
    squares, total = torch.empty_like(row), torch.zeros_like(column)
    for block, square in zip(blocks, squares.split(rows), strict=True):
        entries = block * block
        torch.mean(entries, dim=1, keepdim=True, out=square)
        total += entries.sum(dim=0, keepdim=True)
    # r = b1 r + (1-b1) sqrt(mean(g g) + eps), and so c
    row.lerp_(squares.add_(h.eps).sqrt_(), 1 - h.beta1)
    column.lerp_(total.div_(row.numel()).add_(h.eps).sqrt_(), 1 - h.beta1)
    left, right = row.sqrt(), column.sqrt()
    for piece, block, root in zip(param.view(row.numel(), -1).split(rows), blocks, left.split(rows), strict=True):
        # u = g / (sqrt(r) sqrt(c) + eps)
        direction = torch.mul(root, right).add_(h.eps)
        _descend_([piece], [torch.div(block, direction, out=direction)], h.decay, h.step)


LISTS: dict[Rule, Callable[[Tensors, Tensors, States, Hyper], None]] = {
    updates.adam_: adam_,
    updates.corrected_adam_: corrected_adam_,
    updates.sign_: sign_,
    updates.lion_: lion_,
    updates.momentum_sign_: momentum_sign_,
}
WHOLE: set[Rule] = {updates.adam_, updates.corrected_adam_}  # without temporaries, so in no portions
FACTORED: set[Rule] = {updates.factored_, updates.factored_or_square_, updates.filtered_factored_}


def run(update: Update, params: Tensors, grads: Tensors, states: States, h: Hyper) -> None:
    """Applies `update` to contiguous tensors of one device, dtype and number of dimensions."""
    if update.apply in WHOLE or (update.apply in LISTS and params[0].device.type != "cpu"):
        LISTS[update.apply](params, grads, states, h)
    elif update.elementwise:
        kernel: Callable[..., None] = LISTS.get(update.apply, functools.partial(foreach.apply, update.apply))
        for portion in portions(params, grads, states):
            kernel(*portion, h)
    else:
        for param, grad, state in zip(params, grads, states, strict=True):
            blocked = update.apply in FACTORED and param.dim() >= 2 and param.numel() >= SMALL
            (factored_ if blocked else update.apply)(param, grad, state, h)
