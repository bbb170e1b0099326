"""What the laws answer: the factor of the dampers to every scalar, the step size of the pulses to a few losses.

The laws are the optimizers' own (`emo_hf.mechanism`); nothing is computed twice and nothing is drawn here.
"""

import random
from collections.abc import Callable, Sequence

from emo_hf import mechanism
from emo_hf.mechanism import Mechanism

# generations whose factor depends on the scalar; 1.0, and 2.0 of Navi, Fact and Lynx, always have 1
DAMPERS: dict[str, Mechanism] = {
    "1.0, 2.0 of Navi, Fact, Lynx": mechanism.V1,
    "2.0 of Sens, Airy, Cats; 3.0": mechanism.V3,
    "3.1": mechanism.V3_1,
    "3.6, 3.7.0 (emoDrive)": mechanism.V3_6,
}
PULSES: dict[str, Mechanism] = {
    "3.7.0": mechanism.V3_7_0,
    "3.7": mechanism.V3_7,
    "3.8": mechanism.V3_8,
    "3.9": mechanism.V3_9,
}
STEPS, EVENT = 300, 60  # length of a loss, and the step at which something happens


def _ramp(first: float, last: float) -> Callable[[int], float]:
    """From `first` to `last` in 50 steps from `EVENT` on."""
    return lambda step: first + (last - first) * min(max(step - EVENT, 0) / 50, 1.0)


def _noise() -> Callable[[int], float]:
    """1 give or take 10 %, the same in every run."""
    numbers = random.Random(0)
    return lambda step: 1.0 + numbers.uniform(-0.1, 0.1)


LOSSES: dict[str, tuple[float, ...]] = {
    "fall to half in 50 steps": tuple(map(_ramp(2.0, 1.0), range(STEPS))),
    "plateau, noise of 10 %": tuple(map(_noise(), range(STEPS))),
    "one spike, 3 times as high": tuple(3.0 if step == EVENT else 1.0 for step in range(STEPS)),
    "rise to double in 50 steps": tuple(map(_ramp(1.0, 2.0), range(STEPS))),
}


def factors(law: Mechanism, scalars: Sequence[float]) -> list[float]:
    """Returns the factor of a damped generation on the learning rate at every scalar in [-1, 1]."""
    return [law.damper(scalar) for scalar in scalars]


def step_sizes(law: Mechanism, losses: Sequence[float], lr: float = 1.0) -> list[float]:
    """Returns the step size after every loss, from a fresh start, for the constant multiplier `lr` > 0."""
    state = law.start()
    sizes = []
    for loss in losses:
        law.advance(state, loss)
        sizes.append(law.rate(state, lr, lr).step)
    return sizes
