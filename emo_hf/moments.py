"""Moments of the gradient, an idea of the second generation's first README that no release contains. Experimental.

    m_k = mean(g ** k) over all gradient entries
    emotion = m3 / (m2 + eps) * exp(-m4);    lr_adjusted = lr * (1 - emotion)

`moments="log"` shows them as signals; `moments="drive"` also multiplies the step by `factor`, which is clamped because
nothing bounds the formula. A rising m4 is said to warn of a runaway. Source: muooon/EmoSens@8f48f87^, README.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from emo_hf.geometry import to_float

EPS = 1e-8


class Moments(NamedTuple):
    """The first four moments of all gradient entries, in units of the gradient to the power of their order."""

    first: float
    second: float
    third: float
    fourth: float

    @property
    def emotion(self) -> float:
        """m3 / (m2 + eps) * exp(-m4), in units of the gradient; unbounded, tiny for usual gradients."""
        return self.third / (self.second + EPS) * math.exp(-self.fourth)

    @property
    def factor(self) -> float:
        """1 - emotion, clamped to [0.1, 2]."""
        return min(max(1.0 - self.emotion, 0.1), 2.0)

    def signals(self) -> dict[str, float]:
        """As fields of `emo_hf.signals.Signals`."""
        return {f"moment_{k}": value for k, value in enumerate(self, start=1)} | {"moment_emotion": self.emotion}


def gradient_moments(grads: Sequence[Tensor]) -> Moments:
    """Moments over all entries of `grads`, summed in float64; zeros if there are none. Synchronises with the host."""
    count = sum(grad.numel() for grad in grads)
    if not count:
        return Moments(0.0, 0.0, 0.0, 0.0)
    return Moments(
        *(to_float([(g.double() ** k).sum() for g in grads]) / count for k in range(1, 5)),
    )
