"""From the emotion scalar to the size of this step.

Two ideas, as in a line search whose probe is the loss history:

* a *damper* (up to 3.6) multiplies the learning rate by a factor of the scalar, e.g. ``1 - |scalar|``;
* a *pulse* (3.7 and later, emoPulse) is the step size itself: a signal-to-noise ratio of the scalar, held by a
  ratchet, times ``base``, clamped; the learning rate becomes a multiplier, the *scope*.

Floats and `math` only. Source: muooon/EmoNavi@741166a (dampers), muooon/EmoSens@88ccc3a, 6c49f89, 29b87cc and 397c573
(pulses), formulas in upstream's order of operations. Upstream's names: noise_est = ``noise``, d_est = ``distance``,
dNR_hist = ``snr``, c_est = ``drift``, emoScope = ``scope``, emoDrive = `drive`, _decide_coeff = `zones`.
"""

from dataclasses import dataclass

from emo_hf.emotion import trust


def full(scalar: float) -> float:
    """Factor of 1.0 and of 2.0 of Navi, Fact, Lynx: 1."""
    return 1.0


def calm(scalar: float) -> float:
    """Factor of 2.0 of Sens, Airy, Cats and of 3.0: 1 - |scalar|, in [0, 1]."""
    return 1.0 - abs(scalar)


def zones(scalar: float) -> float:
    """Factor of 3.1, in [0, 1.625]."""
    if abs(scalar) > 0.625:
        return 1.0 - abs(scalar)
    return 1.0 + scalar if abs(scalar) > 0.125 else 1.0


def drive(scalar: float) -> float:
    """Factor of 3.6 and 3.7.0, upstream's emoDrive: 4.2 to 6.5 for 0.25 < |scalar| < 0.5, braking above 0.75."""
    if 0.25 < abs(scalar) < 0.5:
        confidence = trust(scalar)
        return 8.0 * abs(confidence) * (1.0 + 0.1 * confidence)
    return 1.0 - abs(scalar) if abs(scalar) > 0.75 else 1.0


@dataclass(slots=True)
class SignalToNoise:
    """What a pulse carries through time."""

    noise: float  # average of |scalar|, [0, 1]
    distance: float  # average of |trust|, [0, 1]
    snr: float  # the ratio that is held, > 0
    signal: float = 1.0  # |noise - distance| + 0.1 of this step
    doubt: float = 1.0  # |scalar - trust| + 0.1 of this step
    drift: float = 0.0  # fast average of the scalar, [-1, 1]

    @property
    def now(self) -> float:
        """The ratio of this step, > 0."""
        return (self.signal / self.doubt) ** 2


@dataclass(frozen=True, slots=True)
class Pulse:
    """The pulse of 3.7, 3.8 and 3.9: one formula, one set of numbers per generation.

    `chained` (3.9): the scope is multiplied by 100 ** drift and the cap by the scope.
    """

    grow: float
    brake: float
    floor: float
    least: float
    base: float = 1e-4
    cap: float = 3e-3
    chained: bool = False

    def start(self) -> SignalToNoise:
        """State before the first step."""
        return SignalToNoise(noise=1.0, distance=0.02, snr=1.0)

    def advance(self, s: SignalToNoise, scalar: float) -> None:
        """Moves `s` in place by the scalar of this step."""
        confidence = trust(scalar)
        s.noise = 0.97 * s.noise + 0.03 * abs(scalar)
        s.distance = 0.97 * s.distance + 0.03 * abs(confidence)
        s.drift = 0.7 * s.drift + 0.3 * scalar
        s.doubt = abs(scalar - confidence) + 0.1
        s.signal = abs(max(s.noise, self.floor) - s.distance) + 0.1
        now = s.now
        if now >= s.snr and confidence >= 0.5:
            s.snr = min(now, s.snr * self.grow)
        elif -0.5 <= confidence <= 0.5:
            s.snr = now * self.brake  # an assignment, so this "brake" can also raise the ratio

    def size(self, s: SignalToNoise, scope: float) -> tuple[float, float, float]:
        """Returns (pulse, cap, least): the step size for a multiplier `scope` > 0, and its clamps."""
        if self.chained:
            chain, cap = scope * max(100.0**s.drift, 1e-2), self.cap * scope
        else:
            chain, cap = scope, self.cap
        return max(min(s.snr * (chain * self.base), cap), self.least), cap, self.least


@dataclass(frozen=True, slots=True)
class HeldPulse(Pulse):
    """A pulse whose size stays that of its start, whatever the scalar says. Not upstream's."""

    def size(self, s: SignalToNoise, scope: float) -> tuple[float, float, float]:
        """Returns (pulse, cap, least) as if no loss had been seen."""
        return Pulse.size(self, self.start(), scope)


@dataclass(frozen=True, slots=True)
class FirstPulse:
    """The pulse of 3.7.0, withdrawn three days after its release; the update is also multiplied by `drive`."""

    cap: float = 1e-3

    def start(self) -> SignalToNoise:
        """State before the first step."""
        return SignalToNoise(noise=0.0, distance=0.0, snr=0.0)

    def advance(self, s: SignalToNoise, scalar: float) -> None:
        """Moves `s` in place by the scalar of this step."""
        confidence = trust(scalar)
        s.noise = 0.8 * s.noise + 0.2 * abs(confidence)
        s.distance = 0.9 * s.distance + 0.1 * max(confidence, 0.0)

    def size(self, s: SignalToNoise, scope: float) -> tuple[float, float, float]:
        """Returns (pulse, cap, 0): the step size for a multiplier `scope` > 0, and its clamps."""
        return min(min(s.distance, 20.0 * scope) / max(s.noise, 1e-10), self.cap), self.cap, 0.0
