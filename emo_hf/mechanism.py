"""One generation's way from the loss to the step size: a scalar formula, a damper or a pulse, and a stop rule.

`Mechanism` is a frozen row of choices; `MechanismState` is what it carries through time, a handful of floats. Once per
optimizer step, before any parameter is touched, `Mechanism.advance` moves the state by the loss; `Mechanism.rate` then
gives the two numbers that every update needs, for the learning rate and the scope of each parameter group. Upstream
advanced some of these numbers once per parameter tensor up to 3.7.0; here it is once per step everywhere.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from emo_hf.emotion import BRANCHED, SMALLEST_LOSS, Averages, Branch, absolute, relative, relative_rounding, trust
from emo_hf.pulse import FirstPulse, HeldPulse, Pulse, SignalToNoise, calm, drive, full, zones
from emo_hf.signals import Signals

WINDOW = 32  # steps that the stop rule up to 3.7 looks back
EMPTY = 2.0  # in a packed history: no scalar yet, which are in [-1, 1]


@dataclass(slots=True)
class MechanismState:
    """All that a mechanism remembers. `pack` makes it a tuple of floats for checkpoints."""

    averages: Averages = field(default_factory=Averages)
    pulse: SignalToNoise = field(default_factory=lambda: SignalToNoise(math.nan, math.nan, math.nan))
    scalar: float = 0.0
    ready: float = 0.0  # 1.0 while the stop signal is up
    resting: float = 0.0  # 1.0 when this step's scope is reduced, because the signal was up before it (3.8)
    steps: float = 0.0  # finite losses seen
    skipped: float = 0.0  # steps left out because of a non-finite loss
    history: tuple[float, ...] = ()  # the latest scalars, oldest first, at most 32 (stop rule up to 3.7)

    def pack(self) -> tuple[float, ...]:
        """Returns the state as plain floats, the history last, filled up with `EMPTY`.

        The length is that of a new state: torch loads a full state into shards float by float, as many as there are.
        """
        a, s = self.averages, self.pulse
        head = (a.short, a.medium, a.long, s.noise, s.distance, s.snr, s.signal, s.doubt, s.drift)
        empty = [EMPTY] * (WINDOW - len(self.history))
        return (*head, self.scalar, self.ready, self.resting, self.steps, self.skipped, *self.history, *empty)

    @classmethod
    def unpack(cls, values: tuple[float, ...]) -> "MechanismState":
        """Inverse of `pack`."""
        history = tuple(scalar for scalar in values[14:] if scalar != EMPTY)
        scalar, ready, resting, steps, skipped = values[9:14]
        averages, pulse = Averages(*values[:3]), SignalToNoise(*values[3:9])
        return cls(averages, pulse, scalar, ready, resting, steps, skipped, history)


class GradientStatistics(NamedTuple):
    """What one pass over the weights measures, summed over all entries; each group times its own multiplier.

    Attributes:
        following: <g_t, u_{t-1}>, with the direction of the step before, formed again from the moments it left.
        magnitude: sum of |g_t|.
        descent: <g_t, u_t>, with the direction of this step.
        clipped: what the gradients were divided by before the optimizer saw them, >= 1.
    """

    following: float
    magnitude: float
    descent: float
    clipped: float = 1.0


class Rate(NamedTuple):
    """What a mechanism grants one parameter group at one step."""

    step: float  # multiplies the direction
    decay: float  # multiplies weight_decay * param
    pulse: float | None = None
    at_ceiling: float | None = None
    at_floor: float | None = None


class Bounds(NamedTuple):
    """The step size that a pulse starts from, before any schedule, and those between which it moves."""

    base: float
    ceiling: float
    floor: float


def settled(state: MechanismState, mechanism: "Mechanism") -> bool:
    """Stop rule of 1.0 to 3.7: the last 32 scalars are small and even. Stays up for good."""
    history = state.history
    if state.ready or len(history) < WINDOW:
        return bool(state.ready)
    mean = sum(history) / len(history)
    variance = sum((x - mean) ** 2 for x in history) / len(history)
    return sum(abs(x) for x in history) / len(history) < 0.05 and variance < 0.005


def still(state: MechanismState, mechanism: "Mechanism") -> bool:
    """Stop rule of 3.8: no emotion and no difference between signal and doubt, to within stopcoef * least."""
    assert mechanism.stopcoef is not None
    assert isinstance(mechanism.pulse, Pulse)
    bound = mechanism.stopcoef * mechanism.pulse.least
    return abs(state.scalar) <= bound and abs(state.pulse.doubt - state.pulse.signal) <= bound


def within_margins(state: MechanismState, mechanism: "Mechanism") -> bool:
    """Stop rule of 3.9: both `Mechanism.margins` are at least 0. Clears itself."""
    assert mechanism.stopcoef is not None
    return state.pulse.distance - state.pulse.noise >= 0.3 and medium_loss(state) <= mechanism.stopcoef


def never(state: MechanismState, mechanism: "Mechanism") -> bool:
    """Stop rule of a held pulse, whose emotion says nothing about progress."""
    return False


def medium_loss(state: MechanismState) -> float:
    """The medium average as 3.9's stop rule sees it, in units of the loss."""
    return max(state.averages.medium, SMALLEST_LOSS)


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A generation. Options that it does not have are None.

    Attributes:
        scalar: formula of the scalar.
        damper: factor on the learning rate; None where the pulse is the step size.
        pulse: formula of the pulse; None in damped generations.
        stop: rule of the stop signal.
        calm_scalar: formula of the scalar that `settled` looks at, where it is not the scalar itself.
        branch: 3.6 and later: who decides between the long and the medium average (`emo_hf.emotion.BRANCHED`).
        stopcoef: threshold of the stop rule, relative to the least pulse (3.8) or in units of the loss (3.9).
        rest: 3.8: factor on the scope while the stop signal is up.
    """

    version: str
    scalar: Callable[[Averages], float]
    stop: Callable[[MechanismState, "Mechanism"], bool] = settled
    damper: Callable[[float], float] | None = None
    pulse: Pulse | FirstPulse | None = None
    calm_scalar: Callable[[Averages], float] | None = None
    branch: Branch | None = None
    stopcoef: float | None = None
    rest: float = 1.0

    def configure(
        self,
        *,
        branch: Branch | None = None,
        stopcoef: float | None = None,
        fftmode: bool = False,
        hold_pulse: bool = False,
        **_: Any,
    ) -> "Mechanism":
        """Returns this mechanism with its options set. The others are those of another mechanism."""
        changes: dict[str, Any] = {"stopcoef": stopcoef, "branch": branch} if self.branch else {}
        pulse: Any = self.pulse
        if branch:
            changes["scalar"] = BRANCHED[branch]
        if fftmode:
            changes["pulse"] = pulse = replace(pulse, **FFTMODE)
        if hold_pulse:
            changes |= {"pulse": HeldPulse(**asdict(pulse)), "stop": never}
        return replace(self, **changes)

    @property
    def can_hold(self) -> bool:
        """True where the pulse has a base to hold it at: 3.7 and later."""
        return isinstance(self.pulse, Pulse)

    @property
    def multiplies(self) -> bool:
        """True where it sets the step size itself, and the learning rate multiplies that."""
        return self.pulse is not None

    @property
    def measures(self) -> bool:
        """True where it also needs `GradientStatistics`."""
        return False

    def plan(self, total_steps: int, anneals: bool | None) -> "Mechanism":
        """Returns this mechanism for a training of so many steps; see `emo_hf.optimizer.EmoOptimizer.plan`."""
        return self

    def bounds(self, scope: float) -> Bounds | None:
        """Returns the bounds of the pulse for a multiplier `scope` > 0; None where no pulse alone sets the step."""
        if self.damper is not None or not isinstance(self.pulse, Pulse):
            return None
        base, cap, least = self.pulse.size(self.pulse.start(), scope)
        return Bounds(base, base if isinstance(self.pulse, HeldPulse) else cap, least)

    def start(self) -> MechanismState:
        """MechanismState before the first loss."""
        return MechanismState(pulse=self.pulse.start()) if self.pulse else MechanismState()

    def restore(self, values: tuple[float, ...]) -> MechanismState:
        """Returns the state that was packed."""
        return MechanismState.unpack(values)

    def advance(self, state: MechanismState, loss: float, schedule: float = 1.0) -> None:
        """Moves `state` in place by the finite `loss` of this step.

        Args:
            schedule: what a scheduler multiplies the step size of this step by, for mechanisms that heed it.
        """
        state.steps += 1
        state.averages.observe(loss)
        state.scalar = self.scalar(state.averages)
        state.resting = state.ready
        if self.pulse:
            self.pulse.advance(state.pulse, state.scalar)
        if self.stop is settled:
            calm = self.calm_scalar(state.averages) if self.calm_scalar else state.scalar
            state.history = (*state.history, calm)[-WINDOW:]
        state.ready = float(self.stop(state, self))

    def factor(self, state: MechanismState) -> float | None:
        """Multiplier of the damped generations, > 0; None where there is none."""
        return self.damper(state.scalar) if self.damper else None

    def has_started(self, state: MechanismState) -> bool:
        """False while a mechanism that measures waits for the first gradient: `advance` then needs its magnitude."""
        return True

    def note(self, state: MechanismState, statistics: GradientStatistics) -> None:
        """Keeps what a step measured for the next `advance`."""

    def found(self, state: MechanismState) -> Any:
        """`emo_hf.free.Found`, once there is one."""
        return None

    def rate(self, state: MechanismState, lr: float, scope: float) -> Rate:
        """Step and decay sizes of a parameter group.

        Args:
            state: after `advance`.
            lr: the group's current learning rate, >= 0.
            scope: the group's initial learning rate, > 0. Schedulers act through ``lr / scope``.
        """
        if self.pulse is None:
            assert self.damper is not None
            return Rate(step=lr * self.damper(state.scalar), decay=lr)
        # 1.0 unless a scheduler moved lr, so that a constant schedule is upstream's trajectory bit for bit
        schedule = lr / scope
        pulse, cap, least = self.pulse.size(state.pulse, scope * self.rest if state.resting else scope)
        driven = pulse * self.damper(state.scalar) if self.damper else pulse
        return Rate(driven * schedule, pulse * schedule, pulse, float(pulse >= cap), float(pulse <= least))

    def margins(self, state: MechanismState) -> tuple[float, float] | None:
        """3.9: (distance - noise - 0.3, stopcoef - medium loss); ready while both are >= 0. None before."""
        if self.stop is not within_margins:
            return None
        assert self.stopcoef is not None
        return state.pulse.distance - state.pulse.noise - 0.3, self.stopcoef - medium_loss(state)

    def signals(self, state: MechanismState, loss: float, rate: Rate, shadow_mix: float | None = None) -> Signals:
        """Everything observable about the step that `advance` and `rate` have just decided."""
        pulse, averages = state.pulse, state.averages
        ratio = self.pulse if isinstance(self.pulse, Pulse) else None
        margins = self.margins(state) or (None, None)
        return Signals(
            loss=loss,
            ema_short=averages.short,
            ema_medium=averages.medium,
            ema_long=averages.long,
            ema_gap=averages.gap,
            scalar=state.scalar,
            trust=trust(state.scalar),
            trust_abs=1.0 - abs(state.scalar),
            lr=rate.step,
            factor=self.factor(state),
            pulse=rate.pulse,
            at_ceiling=rate.at_ceiling,
            at_floor=rate.at_floor,
            noise=pulse.noise if self.pulse else None,
            distance=pulse.distance if self.pulse else None,
            drift=pulse.drift if ratio and ratio.chained else None,
            snr=pulse.snr if ratio else None,
            snr_now=pulse.now if ratio else None,
            stop_margin_snr=margins[0],
            stop_margin_loss=margins[1],
            ready=state.ready,
            shadow_mix=shadow_mix,
        )


STOPCOEF = 0.04  # of 3.9, in units of the loss
FFTMODE = {"base": 1e-5, "cap": 3e-4, "least": 1e-8}  # 3.8's option for full fine-tunes

V1 = Mechanism("1.0", absolute, damper=full)
V2 = Mechanism("2.0", absolute, damper=full)
V2_CALM = Mechanism("2.0", absolute, damper=calm)
MOMENTS = Mechanism("moments", relative, damper=full)
V3 = Mechanism("3.0", absolute, damper=calm)
V3_1 = Mechanism("3.1", relative, damper=zones)
V3_6 = Mechanism("3.6", relative_rounding, damper=drive, calm_scalar=relative, branch="rounding")
V3_7_0 = replace(V3_6, version="3.7.0", pulse=FirstPulse())
V3_7 = Mechanism(
    "3.7",
    relative_rounding,
    pulse=Pulse(grow=1.05, brake=0.98, floor=1e-3, least=1e-6),
    calm_scalar=relative,
    branch="rounding",
)
V3_8 = Mechanism(
    "3.8",
    relative_rounding,
    pulse=Pulse(grow=1.50, brake=0.80, floor=1e-10, least=1e-7),
    stop=still,
    branch="rounding",
    stopcoef=0.3,
    rest=0.1,
)
V3_9 = Mechanism(
    "3.9",
    relative_rounding,
    pulse=Pulse(grow=1.50, brake=0.80, floor=1e-10, least=1e-8, chained=True),
    stop=within_margins,
    branch="rounding",
    stopcoef=STOPCOEF,
)
