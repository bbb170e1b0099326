"""The shadow: an optional slow copy of the weights, mixed back into them when the emotion is strong.

It costs one copy of the weights, runs before the update of the same step, and is off by default since 3.0. A `Shadow`
is two functions of the scalar: how much goes into the weights (`mix`), and what happens to one parameter (`apply`).
``state["shadow"]`` exists from the first step on, since a sharded checkpoint restores only what a new optimizer has:
up to 3.0, where it begins later, it is inf until then.

Source: muooon/EmoNavi@475e2c4 (1.0), fca8779 (2.0), d8f309f^ (3.0), 349b0b0 (3.1); muooon/EmoSens@397c573 (3.6+).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from emo_hf.emotion import trust
from emo_hf.pulse import zones


@dataclass(frozen=True, slots=True)
class Shadow:
    """A formula of the shadow.

    Attributes:
        apply: ``apply(param, state, scalar)`` changes `param` and ``state["shadow"]`` (same shape) in place.
        mix: share of the shadow mixed into the weights at a scalar, at most 1; not above 0: weights untouched.
        always: upstream gave no way to switch it off.
        late: it begins at the first strong emotion, else with the first step.
        warning: what a user who switches it on should know.
    """

    apply: Callable[[Tensor, dict[str, Tensor], float], None]
    mix: Callable[[float], float]
    always: bool = False
    late: bool = False
    warning: str = ""

    def start(self, param: Tensor) -> dict[str, Tensor]:
        """Returns the state of one parameter: its copy, or inf while there is none."""
        return {"shadow": torch.full_like(param, math.inf) if self.late else param.clone()}


def mix_1_0(scalar: float) -> float:
    """Ratio of 1.0."""
    if scalar > 0.6:
        return 0.7 + 0.2 * scalar
    if scalar < -0.6:
        return 0.1
    return 0.3 if abs(scalar) > 0.3 else 0.0


def mix_2_0(scalar: float) -> float:
    """Ratio of 2.0 and 3.0: |scalar| above 0.1. Upstream's two ramps, which keep its rounding."""
    strength = abs(scalar)
    if strength > 0.6:
        return 0.6 + (strength - 0.6) / 0.4 * 0.4
    return 0.1 + (strength - 0.1) / 0.5 * 0.5 if strength > 0.1 else 0.0


def mix_3_1(scalar: float) -> float:
    """Ratio of 3.1: 0.75 above |scalar| = 0.75; -0.1 above 0.25, where only the shadow moves; else 0."""
    if abs(scalar) > 0.75:
        return 0.75
    return -0.1 if abs(scalar) > 0.25 else 0.0


def mix_3_6(scalar: float) -> float:
    """Ratio of 3.6 and later: 1 - |scalar| above 0.625."""
    return 1.0 - abs(scalar) if abs(scalar) > 0.625 else 0.0


def _follow_late_(param: Tensor, state: dict[str, Tensor], ratio: float) -> None:
    if ratio <= 0:
        return
    shadow = state["shadow"]
    begins = shadow.isinf()  # all of it or nothing; asking which would wait for the device
    shadow.copy_(torch.where(begins, param, shadow))
    # p = (1-ratio) p + ratio shadow;  shadow += 0.05 (p - shadow)
    mixed = param.mul(1.0 - ratio).add_(shadow, alpha=ratio)
    param.copy_(torch.where(begins, param, mixed))
    shadow.lerp_(param, 0.05)


def follow_1_0_(param: Tensor, state: dict[str, Tensor], scalar: float) -> None:
    """1.0: the shadow begins at the first strong emotion."""
    _follow_late_(param, state, mix_1_0(scalar))


def follow_2_0_(param: Tensor, state: dict[str, Tensor], scalar: float) -> None:
    """2.0 and 3.0: as 1.0, with a continuous ratio."""
    _follow_late_(param, state, mix_2_0(scalar))


def follow_3_1_(param: Tensor, state: dict[str, Tensor], scalar: float) -> None:
    """3.1. The weights 0.25 + (1 - |scalar|) do not sum to one: repeated shocks shrink the model towards zero."""
    shadow, ratio, factor = state["shadow"], mix_3_1(scalar), zones(scalar)
    if ratio > 0:
        # p = (1-ratio) p + factor shadow
        param.mul_(1.0 - ratio).add_(shadow, alpha=factor)
    else:
        # shadow += 0.1 [factor] (p - shadow)
        shadow.lerp_(param, 0.1 if ratio < 0 else 0.1 * factor)


def follow_3_6_(param: Tensor, state: dict[str, Tensor], scalar: float) -> None:
    """3.6 and later: written back above |scalar| = 0.625, following the weights otherwise."""
    shadow, calm = state["shadow"], abs(trust(scalar))
    ratio = mix_3_6(scalar)
    if ratio > 0:
        # p = (1-ratio) p + |trust| shadow
        param.mul_(1.0 - ratio).add_(shadow, alpha=calm)
    else:
        # shadow += 0.1 |trust| (p - shadow)
        shadow.lerp_(param, 0.1 * calm)


V1 = Shadow(follow_1_0_, mix_1_0, always=True, late=True)
V2_ALWAYS = Shadow(follow_2_0_, mix_2_0, always=True, late=True)
V2 = Shadow(follow_2_0_, mix_2_0, late=True)
V3_1 = Shadow(
    follow_3_1_,
    mix_3_1,
    warning="its mixing weights do not sum to one, so a series of shocks shrinks the weights towards zero (to 1 % in"
    " 80 steps of a rising loss), as released. Use a later version, or leave the shadow off.",
)
V3_6 = Shadow(follow_3_6_, mix_3_6)
