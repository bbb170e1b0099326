"""How the step size responds: the factor of each damper to the scalar, the step size of each pulse to a few losses.

The formulas are the optimizers' own (`emo_hf.mechanism`). Nothing is drawn here.
"""

import random
from collections.abc import Callable, Sequence

from emo_hf.mechanism import V1, V3, V3_1, V3_6, V3_7, V3_7_0, V3_8, V3_9, Mechanism

# a generation for each kind of factor on the learning rate; that of the first is always 1
DAMPERS: dict[str, Mechanism] = {
    "1.0, 2.0 of Navi, Fact, Lynx": V1,
    "2.0 of Sens, Airy, Cats; 3.0": V3,
    "3.1": V3_1,
    "3.6, 3.7.0 (emoDrive)": V3_6,
}
PULSES: dict[str, Mechanism] = {
    "3.7.0": V3_7_0,
    "3.7": V3_7,
    "3.8": V3_8,
    "3.9": V3_9,
}
STEPS, EVENT = 300, 60  # length of a loss, and the step at which something happens


def _ramp(first: float, last: float) -> Callable[[int], float]:
    """Returns a loss that goes from `first` to `last` in the 50 steps after `EVENT`."""
    return lambda step: first + (last - first) * min(max(step - EVENT, 0) / 50, 1.0)


def _noise() -> Callable[[int], float]:
    """Returns a loss around 1, with the same noise of 10 % in every run."""
    numbers = random.Random(0)
    return lambda step: 1.0 + numbers.uniform(-0.1, 0.1)


LOSSES: dict[str, tuple[float, ...]] = {
    "fall to half in 50 steps": tuple(map(_ramp(2.0, 1.0), range(STEPS))),
    "plateau, noise of 10 %": tuple(map(_noise(), range(STEPS))),
    "one spike, 3 times as high": tuple(3.0 if step == EVENT else 1.0 for step in range(STEPS)),
    "rise to double in 50 steps": tuple(map(_ramp(1.0, 2.0), range(STEPS))),
}


def factors(mechanism: Mechanism, scalars: Sequence[float]) -> list[float]:
    """Returns the factor on the learning rate at every scalar in [-1, 1]; `mechanism`: one of `DAMPERS`."""
    assert mechanism.damper
    return [mechanism.damper(scalar) for scalar in scalars]


def step_sizes(mechanism: Mechanism, losses: Sequence[float], lr: float = 1.0) -> list[float]:
    """Returns the step size after every loss, from a fresh start, for the constant multiplier `lr` > 0."""
    state = mechanism.start()
    sizes = []
    for loss in losses:
        mechanism.advance(state, loss)
        sizes.append(mechanism.rate(state, lr, lr).step)
    return sizes
