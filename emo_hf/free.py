"""EmoFree's mechanism: it finds the step size, so that nobody sets a learning rate. Ours, not upstream's.

    start     size = START unit,  unit = |loss| / sum |g|: the rate at which one step of sign(g) removes a linear loss
    ramp      size grows tenfold in `warmup` steps, until the agreement of each gradient with the step before it falls
    steering  size follows trust = seen fall of the loss / predicted fall; a brake answers a loss that rises

``agreement = <g_{t+1}, u_t> / <g_t, u_t>``, averaged over a fifth of the warmup: 1 where the slope is what it was, 0
where the step went to the minimum along its direction. The predicted fall of a step is ``size <g, u>``. All of it is
free of the scale of the loss, and all but `unit` of its offset.

Related: hypergradient descent (1703.04782) and line searches (1905.09997) use the agreement, Levenberg, Marquardt and
trust regions the ratio of falls, Polyak's step and MoMo (2305.07583) start from the loss.

What the pass over the weights has to deliver is `GradientStatistics`. They are used one step late, so that a device
need not be waited for; only the first step needs the size of its own gradient.
"""

import math
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, NamedTuple

from emo_hf.emotion import relative
from emo_hf.mechanism import GradientStatistics, Mechanism, MechanismState, Rate, never
from emo_hf.signals import Signals

START = 0.02  # of the unit: below the best rates of all tasks looked at but for a factor of 2
NOISE_STOP = 0.07  # of the unit: their middle, for gradients that are all noise
TENFOLD = math.log(10)
PACE = 2.0  # roots of the steps of the training, that the ramp takes to grow tenfold
WARMUP = 50  # steps, where the length of the training is not known
CLEAR = 0.2  # agreement that is no chance
SPENT = 0.12, 0.25  # agreement, absolute or as a share of its greatest, at which the ramp ends
KEPT = 0.5  # of the size then: the averages are late by a fifth of the warmup, 10 ** (1 / 5), and times 0.8
AGAINST = -0.2, 0.3  # agreement of a start that is far too large, and what is left of the size
TRUSTED = 0.12  # share of the predicted fall that comes true where the size is right, at the end of a usual ramp
SHRINK = 0.2  # speed of shrinking, as a share of that of growth, where no schedule anneals
BRAKE = 2.0  # rise of the loss, in standard deviations of its fast average
SLOW = 3.3  # times as long as the fast average


class Found(NamedTuple):
    """How the ramp ended.

    Attributes:
        size: the step size that it found, for a multiplier and a schedule of 1.
        steps: after so many.
        highest, last: the agreement at its best, and at the end.
    """

    size: float
    steps: int
    highest: float
    last: float

    def __str__(self) -> str:
        if self.highest < CLEAR:
            return f"found {self.size:.2g} after {self.steps} steps, by the loss alone: no agreement above {CLEAR:g}"
        return f"found {self.size:.2g} after {self.steps} steps: agreement {self.highest:.2f}, then {self.last:.2f}"


@dataclass(slots=True)
class FreeState(MechanismState):
    """What EmoFree's mechanism remembers beside the emotion. All floats; nan where there is nothing yet."""

    unit: float = math.nan  # |loss| / sum |g| at the first step
    size: float = math.nan  # step size for a multiplier and a schedule of 1
    steering: float = 0.0  # 1.0 after the ramp
    # -- agreement
    descent: float = math.nan  # <g, u> of the step before the last measured one
    followed: float = 0.0  # average of <g_{t+1}, u_t>
    descended: float = 0.0  # average of <g_t, u_t>, of the same steps
    pairs: float = 0.0  # in both
    highest: float = -math.inf  # agreement
    # -- trust
    predicted: float = 0.0  # average of the predicted fall per step, the schedule left out
    measured: float = 0.0  # steps in it
    fast: float = math.nan  # averages of the loss
    slow: float = math.nan
    variance: float = 0.0  # of the loss from step to step
    last: float = math.nan  # loss
    seen: float = 0.0  # fall of the loss per step
    braking: float = 0.0  # [0, 1] of this step
    # -- schedule
    schedule: float = 1.0  # of this step
    peak: float = 0.0  # its greatest so far
    annealed: float = 0.0  # 1.0 once it was below
    # -- result
    found: float = math.nan
    found_after: float = 0.0
    found_at: float = math.nan  # agreement
    # -- of the last step, not used yet
    following: float = math.nan
    magnitude: float = math.nan
    next_descent: float = math.nan
    clipped: float = 1.0

    @property
    def agreement(self) -> float:
        """Average of following gradients over that of the gradients; 0 without any."""
        return self.followed / self.descended if self.descended else 0.0

    @property
    def end(self) -> float:
        """Agreement below which the ramp ends, once it was above `CLEAR`."""
        floor, share = SPENT
        return max(floor, share * self.highest)

    @property
    def trust(self) -> float:
        """Seen fall over predicted fall; 0 without any."""
        return self.seen / self.predicted if self.predicted > 0 else 0.0

    def take(self) -> GradientStatistics | None:
        """Returns what was noted, once; None if there is nothing, or a gradient was not finite."""
        found = GradientStatistics(self.following, self.magnitude, self.next_descent, self.clipped)
        self.following = self.magnitude = self.next_descent = math.nan
        self.clipped = 1.0
        return found if all(map(math.isfinite, found)) else None

    def pack(self) -> tuple[float, ...]:
        """Returns the state as plain floats, always as many."""
        return (*MechanismState.pack(self)[:EMOTION], *free_fields_of(self))

    @classmethod
    def unpack(cls, values: tuple[float, ...]) -> "FreeState":
        """Inverse of `pack`."""
        emotion = MechanismState.unpack(values[:EMOTION])
        shared: dict[str, Any] = {each.name: getattr(emotion, each.name) for each in fields(MechanismState)}
        state = cls(**shared)
        for name, value in zip(FREE_FIELDS, values[EMOTION:], strict=True):
            setattr(state, name, value)
        return state


EMOTION = 14  # floats of a MechanismState without its history
FREE_FIELDS = tuple(each.name for each in fields(FreeState))[len(fields(MechanismState)) :]
free_fields_of = attrgetter(*FREE_FIELDS)


@dataclass(frozen=True, slots=True)
class Free(Mechanism):
    """The mechanism of this module.

    Attributes:
        multiplier: the optimizer's `lr`. It multiplies what the ramp found, not the ramp.
        total_steps: of the whole training; None where that is not known.
        anneals: whether the schedule takes the step size down; None: as soon as it is seen to.
    """

    multiplier: float = 1.0
    total_steps: int | None = None
    anneals: bool | None = None

    @property
    def multiplies(self) -> bool:
        return True

    @property
    def measures(self) -> bool:
        return True

    @property
    def warmup(self) -> float:
        """Steps in which the ramp grows tenfold: 20 in a training of 100."""
        return PACE * math.sqrt(self.total_steps) if self.total_steps else WARMUP

    @property
    def longest_ramp(self) -> int:
        """Steps by which a ramp has ended, at the latest at the unit, where gradients arrive and no schedule acts."""
        return math.ceil(self.warmup * math.log10(1 / START)) + 3

    @property
    def span(self) -> int:
        """Steps that the agreement is averaged over."""
        return max(2, round(self.warmup / 5))

    @property
    def loss_span(self) -> int:
        """Steps of the fast average of the loss, which is noisier than gradients."""
        return max(5, self.span)

    def configure(self, *, multiplier: float = 1.0, total_steps: int | None = None, **_: Any) -> "Free":
        """Returns this mechanism with its options set."""
        return replace(self, multiplier=multiplier, total_steps=total_steps)

    def plan(self, total_steps: int, anneals: bool | None) -> "Free":
        return replace(self, total_steps=self.total_steps or total_steps, anneals=anneals)

    def start(self) -> FreeState:
        return FreeState()

    def restore(self, values: tuple[float, ...]) -> FreeState:
        return FreeState.unpack(values)

    def has_started(self, state: MechanismState) -> bool:
        assert isinstance(state, FreeState)
        return not math.isnan(state.size)

    def note(self, state: MechanismState, statistics: GradientStatistics) -> None:
        assert isinstance(state, FreeState)
        state.following, state.magnitude, state.next_descent, state.clipped = statistics

    def advance(self, state: MechanismState, loss: float, schedule: float = 1.0) -> None:
        """Moves `state` in place by the loss of this step and by what the last one measured.

        Before it `has_started`, the magnitude is that of this step's gradient.
        """
        assert isinstance(state, FreeState)
        Mechanism.advance(self, state, loss)
        self._hear(state, loss, schedule)
        statistics = state.take()
        if statistics is None:
            return
        if not self.has_started(state):
            if statistics.magnitude > 0 and loss != 0:
                state.unit = abs(loss) / (statistics.magnitude * statistics.clipped)
                state.size = START * state.unit
            return
        self._measure(state, statistics)
        if state.steering:
            self._steer(state)
        else:
            self._ramp(state)
        state.ready = float(self._is_done(state))

    def _hear(self, state: FreeState, loss: float, schedule: float) -> None:
        steps, fast, slow = state.steps, self.loss_span, SLOW * self.loss_span
        state.fast = loss if steps == 1 else _moved(state.fast, loss, fast, steps)
        state.slow = loss if steps == 1 else _moved(state.slow, loss, slow, steps)
        if steps > 1:
            state.variance = _moved(state.variance, (loss - state.last) ** 2 / 2, slow, steps - 1)
            state.seen = (state.slow - state.fast) / (_lag(slow, steps) - _lag(fast, steps))
        state.last = loss
        state.schedule, state.peak = schedule, max(state.peak, schedule)
        if schedule < state.peak * (1 - 1e-9):
            state.annealed = 1.0

    def _measure(self, state: FreeState, statistics: GradientStatistics) -> None:
        if not math.isnan(state.descent):
            state.pairs += 1
            state.followed = _moved(state.followed, statistics.following, self.span, state.pairs)
            state.descended = _moved(state.descended, state.descent, self.span, state.pairs)
        state.descent = statistics.descent
        state.measured += 1
        fall = state.size * self.multiplier * statistics.descent * statistics.clipped
        state.predicted = _moved(state.predicted, fall, self.loss_span, state.measured)

    def _ramp(self, state: FreeState) -> None:
        """Grows, or ends. What is found is the size really used: a schedule that still warms up goes on to 1."""
        used = state.size * self.multiplier * state.schedule
        if not used:  # a schedule that starts at 0
            return
        found = self._find(state, used)
        if found is None:
            state.size *= math.exp(TENFOLD / self.warmup)
        else:
            state.size = state.found = found
            state.steering, state.found_after, state.found_at = 1.0, state.steps, state.agreement

    def _find(self, state: FreeState, used: float) -> float | None:
        """Returns the step size at the end of the ramp, None before it."""
        if state.pairs < min(4, self.span):
            return None
        agreement = state.agreement
        state.highest = max(state.highest, agreement)
        against, left = AGAINST
        if state.highest > CLEAR and agreement < state.end:
            return used * KEPT
        if agreement < against:
            return used * left
        bound = state.unit if state.highest > CLEAR else NOISE_STOP * state.unit
        return bound if used >= bound else None

    def _steer(self, state: FreeState) -> None:
        noise = math.sqrt(state.variance / (2 * self.loss_span - 1))  # of the fast average
        rise = state.fast - state.slow
        state.braking = _clamped(rise / (BRAKE * noise) - 1) if noise else 0.0
        state.size *= math.exp(self._growth(state) * TENFOLD / self.warmup)

    def _growth(self, state: FreeState) -> float:
        """How the step size moves, in units of the growth in the ramp."""
        if not state.steering:
            return 1.0
        anneals = state.annealed if self.anneals is None else self.anneals
        # The share falls as a training goes on: gradients get noisier, the loss flatter. Where no schedule takes the
        # step size down, that is what does.
        trusted = TRUSTED * math.sqrt(self.warmup / max(state.steps, self.warmup)) if anneals else TRUSTED
        grow = _clamped((state.trust - trusted) / trusted)
        shrink = 0.0 if anneals else SHRINK * _clamped((trusted - state.trust) / trusted)
        return grow - shrink - state.braking

    def _is_done(self, state: FreeState) -> bool:
        """The falls of the loss over its slow average, seen and predicted, are below the noise of its mean.

        Predicted by what is left of the gradient after a step: before it, noise looks like a slope.
        """
        window = SLOW * self.loss_span
        fall = max(state.seen, state.predicted * state.agreement * state.schedule) * window
        return bool(state.steering) and state.steps > window and fall < math.sqrt(state.variance / window)

    def rate(self, state: MechanismState, lr: float, scope: float) -> Rate:
        """Step and decay sizes of a parameter group; 0 before there was a gradient."""
        assert isinstance(state, FreeState)
        size = state.size if self.has_started(state) else 0.0
        return Rate(size * lr, size * lr, size * scope)

    def found(self, state: MechanismState) -> Found | None:
        assert isinstance(state, FreeState)
        if not state.steering:
            return None
        return Found(state.found, int(state.found_after), state.highest, state.found_at)

    def signals(self, state: MechanismState, loss: float, rate: Rate, shadow_mix: float | None = None) -> Signals:
        assert isinstance(state, FreeState)
        return replace(
            Mechanism.signals(self, state, loss, rate, shadow_mix),
            steering=state.steering,
            agreement=state.agreement,
            agreement_end=state.end,
            growth=self._growth(state),
            fall_seen=state.seen,
            fall_predicted=state.predicted,
            fall_trust=state.trust,
            braking=state.braking,
        )


def _moved(average: float, value: float, span: float, count: float) -> float:
    """Returns an exponential average of `count` values over about `span`, its bias corrected, moved by the last."""
    keep = 1 - 1 / span
    return average + (1 - keep) / (1 - keep**count) * (value - average)


def _lag(span: float, count: float) -> float:
    """Returns the mean age of what `_moved` averages, in steps."""
    faded = (1 - 1 / span) ** count
    return span - 1 - count * faded / (1 - faded)


def _clamped(value: float) -> float:
    return min(max(value, 0.0), 1.0)


FREE = Free("free", relative, stop=never)
