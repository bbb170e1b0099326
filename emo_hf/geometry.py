"""The whole-model norm step of Tion and Void: the L1 norm ``n = sum |p|`` of all weights, compared with the last one.

It runs once per step, after the mechanism and before any update, and only decides: the update, which reads and writes
every weight anyway, carries `GeometryState.scale` out. Upstream reads the first parameter group only, frozen weights
included, so its result depends on how parameters are grouped; here it is every weight with a gradient in all groups,
which is the same with one group and nothing frozen. Norms add up in float64.

Source: muooon/EmoSens@397c573, "Approx W-Ref Geometry".
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PIECE = 2**19  # elements
RESCALED_STEPS = 55  # Void holds the norm for this many steps after the start, and for one after each stop signal


@dataclass(slots=True)
class GeometryState:
    """What a geometry remembers.

    The reference norm (nan before the first step), freshness in [0, 1], the steps that looked at the norm (Void's are
    set back by a stop signal), the number of weights that the norm is of, and what this step multiplies the weights by
    before their update (not packed: of one step only).
    """

    norm: float = math.nan
    freshness: float = 1.0
    count: float = 0.0
    size: float = 0.0
    scale: float = 1.0

    def pack(self) -> tuple[float, float, float, float]:
        """Returns the state as plain floats."""
        return self.norm, self.freshness, self.count, self.size


@dataclass(frozen=True, slots=True)
class Geometry:
    """``before(state, norm, size, beta1)``, with the norm of `size` weights as they are, runs before the updates.

    ``after(state)`` runs when the stop signal rises. A step for which ``looks(state, rising)`` is false needs no
    norm: no later one depends on it.
    """

    before: Callable[[GeometryState, float, float, float], None]
    after: Callable[[GeometryState], None]
    looks: Callable[[GeometryState, bool], bool]


def to_float(parts: Sequence[Tensor]) -> float:
    """Sum of 0-d tensors, sharded or on several devices, with one wait for the host; 0 if there are none."""
    if not parts:
        return 0.0
    whole = [part.full_tensor() if hasattr(part, "full_tensor") else part for part in parts]  # DTensor
    return float(torch.stack([part.to(whole[0].device) for part in whole]).sum())


def l1_norm(params: Sequence[Tensor]) -> float:
    """Sum of |p| over all elements of all tensors, without a temporary of the size of one."""
    return to_float([_sum_of_abs(piece) for p in params for piece in _pieces(p)])


def _sum_of_abs(piece: Tensor) -> Tensor:
    # torch adds up pairwise: in float32, a large piece is right to 1e-8 and takes two thirds of the time
    wide = torch.float64 if piece.numel() < PIECE else torch.promote_types(piece.dtype, torch.float32)
    return piece.abs().sum(dtype=wide).double()


def _pieces(param: Tensor) -> Sequence[Tensor]:
    """Flat views that stay in the cache of a CPU; the tensor itself where that is no view or of no use."""
    split = param.device.type == "cpu" and param.is_contiguous() and not hasattr(param, "to_local")
    return param.view(-1).split(PIECE) if split and param.numel() > PIECE else (param,)


def refresh(state: GeometryState, norm: float, size: float, beta1: float) -> None:
    """Tion: the more the norm moved, the more of the gradient the momentum takes in."""
    if math.isnan(state.norm):
        state.freshness, state.norm = 1.0, norm
        return
    moved = abs(norm - state.norm) / (state.norm + 1e-8)
    state.freshness = max(math.tanh(moved / 0.03), 1 - beta1)
    state.norm = norm * moved  # as released: the next reference is not the norm, so freshness cycles (0.1, 1, 1)


def hold(state: GeometryState, norm: float, size: float, beta1: float) -> None:
    """Void: has all weights rescaled to the norm of the step before."""
    count, state.scale = state.count, 1.0
    state.count += 1
    # The norm of other weights (a layer without gradient, a group added late) is no reference for these
    if 0 < size == state.size and count <= RESCALED_STEPS:
        state.scale = state.norm / (norm + 1e-8)
        norm *= state.scale
    state.norm, state.size = norm, size


def restart(state: GeometryState) -> None:
    """Void: a rising stop signal has the norm held once more."""
    state.count = float(RESCALED_STEPS)


def is_holding(state: GeometryState, rising: bool) -> bool:
    """Void looks at the norm while it holds it, and at a rising signal, for the reference of the step after."""
    return rising or state.count <= RESCALED_STEPS


def ignore(state: GeometryState) -> None:
    """Tion does not react to the stop signal."""


def always(state: GeometryState, rising: bool) -> bool:
    """Tion compares every norm with the one before."""
    return True


TION = Geometry(refresh, ignore, always)
VOID = Geometry(hold, restart, is_holding)
