"""From a loss history to one number in [-1, 1]: the emotion scalar.

Three running averages of the loss, about 3, 20 and 100 steps long,

    short  = 0.3  * loss + 0.7  * short
    medium = 0.05 * loss + 0.95 * medium
    long   = 0.01 * loss + 0.99 * long

are compared by one of three formulas (see the functions below). Up to 3.0 a positive scalar means that the
loss rises, from 3.1 on that it falls. What the scalar does to the step size is `emo_hf.pulse`'s business.

All arithmetic is on Python floats in upstream's order of operations. From 3.6 on the last bit of a float64 decides
between two branches, so no line here may be simplified algebraically.

Source: muooon/EmoNavi@741166a and muooon/EmoSens@397c573, ``_update_ema`` and ``_compute_scalar``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Branch = Literal["rounding", "quieter", "long"]
BRANCHES = ("rounding", "quieter", "long")
SMALLEST_LOSS = 1e-5  # lower bound of every average that divides


@dataclass(slots=True)
class Averages:
    """Running averages of the loss, in units of the loss; nan before the first one."""

    short: float = math.nan
    medium: float = math.nan
    long: float = math.nan

    def observe(self, loss: float) -> None:
        """Advances in place by one finite loss. The first loss is every average's start."""
        if math.isnan(self.short):
            self.short = self.medium = self.long = loss
        self.short = 0.3 * loss + 0.7 * self.short
        self.medium = 0.05 * loss + 0.95 * self.medium
        self.long = 0.01 * loss + 0.99 * self.long

    @property
    def gap(self) -> float:
        """(long - short) / long: the relative improvement of the loss, unbounded."""
        return (self.long - self.short) / max(self.long, SMALLEST_LOSS)


def absolute(averages: Averages) -> float:
    """Scalar of 1.0, 2.0 and 3.0, positive when the loss rises: depends on the loss's scale."""
    return math.tanh(5 * (averages.short - averages.long))


def relative(averages: Averages) -> float:
    """Scalar of 3.1, positive when the loss falls: independent of the loss's scale."""
    return math.tanh(averages.gap)


def relative_rounding(averages: Averages) -> float:
    """Scalar of 3.6 to 3.9 as released.

    Both sides of the second comparison are |long - short| in exact arithmetic: rounding decides it, and about 8 % of
    steps take the medium average. Two loss histories that differ by 1e-12 part ways here.
    """
    long, medium = max(averages.long, SMALLEST_LOSS), max(averages.medium, SMALLEST_LOSS)
    fall = averages.long - averages.short
    by_long, by_medium = fall / long, fall / medium
    if abs(by_long) < 0.05:
        return math.tanh(by_long)
    if abs(by_medium) * medium < abs(by_long) * long:
        return math.tanh(by_medium)
    return math.tanh(by_long)


def relative_quieter(averages: Averages) -> float:
    """What the comments of 3.6 to 3.9 describe: the medium average when it is the quieter one."""
    fall = averages.long - averages.short
    by_long = fall / max(averages.long, SMALLEST_LOSS)
    by_medium = fall / max(averages.medium, SMALLEST_LOSS)
    return math.tanh(by_long if abs(by_long) < 0.05 or abs(by_long) <= abs(by_medium) else by_medium)


BRANCHED: dict[Branch, Callable[[Averages], float]] = {
    "rounding": relative_rounding,
    "quieter": relative_quieter,
    "long": relative,
}


def trust(scalar: float) -> float:
    """copysign(1 - |scalar|, scalar), in [-1, 1]: large when the loss is calm, signed like the scalar."""
    return math.copysign(1.0 - abs(scalar), scalar)
