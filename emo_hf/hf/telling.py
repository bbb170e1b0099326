"""What the log tells of an optimizer: a line when a training starts, and one when EmoFree has found its step size.

    emosens 3.9: multiplier 1.0, steps from 1e-4 up to 3e-3, schedule constant
    Step 29: emofree-1.0 found 0.0017 after 29 steps: agreement 0.85, then 0.11

Each is said once in a training, by the main process.
"""

import logging
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from emo_hf.free import Free
from emo_hf.hf.feed import Listener
from emo_hf.hf.settings import found_of
from emo_hf.optimizer import EmoOptimizer
from emo_hf.scheduler import EmoPulse, innermost

logger = logging.getLogger(__name__)

_introduced: "weakref.WeakSet[Listener]" = weakref.WeakSet()


def introduce(listener: Listener, schedule: str | None = None) -> None:
    """Logs how `listener` starts; `schedule` names what multiplies its steps, where that is known."""
    _introduced.add(listener)
    logger.warning("%s", outlook(listener, schedule))


def introduce_new(schedules: Mapping[Listener, str | None]) -> None:
    """Logs it for each listener with its schedule, unless that was done before: by a Trainer's callback."""
    for listener, schedule in schedules.items():
        if listener not in _introduced:
            introduce(listener, schedule)


def outlook(listener: Listener, schedule: str | None = None) -> str:
    """Returns the line of the start; one that goes on has no step size to start from."""
    name, _, version = listener.key.rpartition("-")
    if isinstance(listener, EmoPulse):  # which is the schedule
        parts = _of_pulse(listener)
    else:
        parts = [*_of_optimizer(listener), *([f"schedule {schedule}"] if schedule else [])]
    return f"{name} {version}: {', '.join(parts)}"


def _of_optimizer(optimizer: EmoOptimizer) -> Iterable[str]:
    rates = sorted({float(group["scope"]) for group in optimizer.param_groups})
    yield f"{'multiplier' if optimizer.spec.lr_is_multiplier else 'learning rate'} {_range(rates)}"
    if isinstance(optimizer.mechanism, Free):
        within = f"step size to be found within about {optimizer.mechanism.longest_ramp} steps"
        yield within if optimizer.found is None else str(optimizer.found)
    elif bounds := [found for rate in rates if (found := optimizer.mechanism.bounds(rate))]:
        yield _steps(bounds[0].base, bounds[-1].ceiling, optimizer.steps)


def _of_pulse(pulse: EmoPulse) -> Iterable[str]:
    yield f"drives {type(innermost(pulse)).__name__}"
    rates = [float(rate) for rate in pulse.base_lrs]
    yield _steps(min(rates) * pulse.factor, max(rates) * pulse.most, pulse.steps)


def _steps(start: float, most: float, made: int) -> str:
    if start == most:
        return f"steps of {short(start)}"
    return f"steps up to {short(most)}" if made else f"steps from {short(start)} up to {short(most)}"


def _range(rates: list[float]) -> str:
    return " to ".join(dict.fromkeys(short(rate) for rate in (rates[0], rates[-1])))


def short(rate: float) -> str:
    """Returns a rate as people write it: 3e-3, 1e-4, 0.1, 1.0."""
    if not 0 < rate < 1e-2:
        return str(round(rate, 6))
    digits, exponent = f"{rate:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


class RampEnd:
    """Notices when the ramp of an EmoFree has ended."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._known = bool(found_of(listener))

    def news(self, step: int, aloud: bool = True) -> dict[str, Any]:
        """Returns `found_of` the listener, once, after the step in which there is something; logs it `aloud`."""
        if self._known or not (found := found_of(self._listener)):
            return {}
        self._known = True
        if aloud:
            logger.warning("Step %d: %s %s", step, self._listener.key, getattr(self._listener, "found", None))
        return found
