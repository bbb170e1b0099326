"""Everything an optimizer lets you observe about one step, declared once.

`Signals` holds plain floats; a field is None where the optimizer's generation has no such quantity. Each field
carries its unit, range and meaning, what healthy looks like, when to act, and how to draw it. Log keys
(``emo/<field>``), windows of several steps, dashboards and documentation derive from these declarations
(`emo_hf.dashboards.metrics`).
"""

from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, Literal

PREFIX = "emo/"
REQUIRED: Any = object()  # a signal that every generation has

Axis = Literal["log", "linear", "fixed"]  # fixed: the range is the axis
Range = tuple[float, float]


def signal(
    axis: Axis,
    range: Range,
    unit: str,
    meaning: str,
    healthy: str,
    act: str = "",
    *,
    extremes: bool = False,
    share: str = "",
    default: Any = None,
) -> Any:
    """Declares one observable.

    Args:
        axis: how to draw it.
        range: least and greatest value; on a log axis 0 is excluded from what is drawn.
        unit: empty for a plain number.
        meaning: what it is.
        healthy: what it looks like in a training that goes well.
        act: when to do something, and what.
        extremes: a window of steps also has its minimum and maximum.
        share: it is 0 or 1, and is logged by this name, of one step as of a window, whose mean it is.
        default: None, or REQUIRED.
    """
    declared = {"axis": axis, "range": range, "unit": unit, "meaning": meaning, "healthy": healthy, "act": act}
    metadata = {"declared": declared, "extremes": extremes, "share": share}
    return field(metadata=metadata) if default is REQUIRED else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What one optimizer step saw and decided. Every value is a Python float."""

    loss: float = signal(
        "log",
        (0, inf),
        "loss",
        "the objective of the step, as the optimizer was fed it",
        "falls, with noise that its averages smooth out",
        "not finite: see the model or lower the learning rate; below 0 (policy gradients): no measure of progress",
        default=REQUIRED,
    )
    ema_short: float = signal(
        "log", (0, inf), "loss", "loss average over about 3 steps", "below the long average", default=REQUIRED
    )
    ema_medium: float = signal(
        "log",
        (0, inf),
        "loss",
        "loss average over about 20 steps",
        "between the short and the long average",
        "stays above stopcoef: 3.9 will never say that it is ready to stop",
        default=REQUIRED,
    )
    ema_long: float = signal(
        "log",
        (0, inf),
        "loss",
        "loss average over about 100 steps",
        "above the short average",
        "below the short average for long: the training diverges",
        default=REQUIRED,
    )
    ema_gap: float = signal(
        "linear",
        (-inf, inf),
        "",
        "(long - short) / long: what goes into the tanh of the scalar, from 3.1 on",
        "above 0 while the loss falls, near 0 when it has settled",
        "below 0 for long: the loss rises; lower the learning rate",
        default=REQUIRED,
    )
    scalar: float = signal(
        "fixed",
        (-1, 1),
        "",
        "the emotion: from 3.1 on above 0 means that the loss falls; before 3.1 the sign is the other way",
        "near 0, with excursions",
        "near -1 or 1 for long: the loss jumps from batch to batch, or its scale is not what the generation expects",
        extremes=True,
        default=REQUIRED,
    )
    trust: float = signal(
        "fixed",
        (-1, 1),
        "",
        "1 - |scalar| with the sign of the scalar",
        "jumps between -1 and 1 in a calm training: read trust_abs instead",
        default=REQUIRED,
    )
    trust_abs: float = signal(
        "fixed", (0, 1), "", "1 - |scalar|", "near 1: calm", "near 0 for long: as for scalar", default=REQUIRED
    )
    lr: float = signal(
        "log",
        (0, inf),
        "",
        "the step size really used in the first parameter group: the pulse, or lr times factor, times the schedule",
        "pulses: near 1e-4 times the multiplier while calm, more while the loss falls fast; a schedule multiplies it",
        "flat: see lr_at_ceiling and lr_at_floor",
        extremes=True,
        default=REQUIRED,
    )
    factor: float | None = signal(
        "linear",
        (0, inf),
        "",
        "what the emotion multiplies the learning rate by (up to 3.7.0)",
        "1 or a little less when calm; in 3.6 and 3.7.0 4 to 6.5 while |scalar| is between 0.25 and 0.5",
        "near 0 for long: the optimizer hardly moves; see scalar",
    )
    pulse: float | None = signal(
        "log",
        (0, inf),
        "",
        "the step size before the schedule (3.7.0 and later)",
        "near 1e-4 times the multiplier while calm, more while the loss falls fast",
        "flat: see lr_at_ceiling and lr_at_floor",
    )
    at_ceiling: float | None = signal(
        "fixed",
        (0, 1),
        "share of steps",
        "the pulse is clamped at its greatest value",
        "below 0.5: the emotion decides, not the clamp",
        "above 0.5 for long: the multiplier is too small if the loss falls, too large if it does not",
        share="lr_at_ceiling",
    )
    at_floor: float | None = signal(
        "fixed",
        (0, 1),
        "share of steps",
        "the pulse is clamped at its least value",
        "0",
        "above 0: an alarm, the model does not train; raise learning_rate, and see that the loss measures progress",
        share="lr_at_floor",
    )
    noise: float | None = signal(
        "fixed",
        (0, 1),
        "",
        "average of |scalar| (3.7.0: of |trust|)",
        "below distance once the loss is calm; they cross when the regime changes",
        "above distance for long: the loss jumps; use larger batches or a smaller multiplier",
    )
    distance: float | None = signal(
        "fixed", (0, 1), "", "average of |trust| (3.7.0: of its positive part)", "above noise", "as for noise"
    )
    drift: float | None = signal(
        "fixed",
        (-1, 1),
        "",
        "fast average of the scalar (3.9): the pulse is multiplied by 100 ** drift",
        "near 0; 0.5 makes the pulse 10 times larger, -0.5 ten times smaller",
        "near -1 for long: the loss rises",
    )
    snr: float | None = signal(
        "log",
        (0, inf),
        "",
        "signal-to-noise ratio that the pulse is made of: a ratchet on snr_now",
        "rises in steps, falls back when the scalar leaves its calm zone",
        "far above snr_now for long: the pulse lives on an old success",
    )
    snr_now: float | None = signal("log", (0, inf), "", "signal-to-noise ratio of this step", "around snr")
    stop_margin_snr: float | None = signal(
        "linear",
        (-1.3, 0.7),
        "",
        "distance - noise - 0.3 (3.9)",
        "rises above 0 as the loss grows calm; ready to stop when both margins are at least 0",
    )
    stop_margin_loss: float | None = signal(
        "linear",
        (-inf, inf),
        "loss",
        "stopcoef - ema_medium (3.9)",
        "rises above 0 when the loss is small enough to stop",
        "far below 0 at the loss that you expect to reach: set stopcoef to that loss, or ignore the stop signal",
    )
    steering: float | None = signal(
        "fixed",
        (0, 1),
        "share of steps",
        "EmoFree: 0 in its ramp, 1 after it",
        "1 after a tenth of the training, or sooner",
        "0 for long: the gradients of successive steps never disagree; give total_steps, or a larger lr",
    )
    agreement: float | None = signal(
        "linear",
        (-inf, inf),
        "",
        "EmoFree: how much of the gradient along a step is left after it, on average",
        "0.3 to 1 in the ramp, then falls, which ends it; around 0 later",
        "around 0 from the start: the gradients are mostly noise; use larger batches",
    )
    agreement_end: float | None = signal(
        "linear",
        (0, inf),
        "",
        "EmoFree: the agreement below which the ramp ends, once it was above 0.2",
        "0.12, or a quarter of the greatest agreement",
    )
    growth: float | None = signal(
        "fixed",
        (-1.2, 1),
        "",
        "EmoFree: how the step size moves before the schedule: 1 grows as fast as in the ramp, below 0 shrinks",
        "1 in the ramp, then mostly near 0",
        "above 0.5 for long after the ramp: what the ramp found was too small; a larger lr starts higher",
    )
    fall_seen: float | None = signal(
        "linear", (-inf, inf), "loss per step", "EmoFree: how fast the loss falls, on average", "above 0"
    )
    fall_predicted: float | None = signal(
        "linear",
        (-inf, inf),
        "loss per step",
        "EmoFree: how fast it would fall if the slope held, the schedule left out",
        "1 to 10 times what is seen",
    )
    fall_trust: float | None = signal(
        "linear",
        (-inf, inf),
        "",
        "EmoFree: seen fall over predicted fall; what the step size grows above falls from 0.12 as 1 / sqrt(steps)",
        "0.02 to 0.3",
        "above 0.3 for long: the training is too short for this start; a larger lr helps",
    )
    braking: float | None = signal(
        "fixed",
        (0, 1),
        "",
        "EmoFree: the loss rises beyond its noise, so the step size shrinks",
        "0",
        "above 0 again and again: a smaller lr, or look at the data",
    )
    ready: float = signal(
        "fixed",
        (0, 1),
        "share of steps",
        "ready to stop: a hint, never a stop by itself",
        "0 at first; from 3.8 on it flickers by design",
        "above 0.5 for long: further training brings little; look at the evaluation loss",
        share="stop_share",
        default=REQUIRED,
    )
    moment_1: float | None = signal("linear", (-inf, inf), "", "mean of the gradient (moments)", "near 0")
    moment_2: float | None = signal("log", (0, inf), "", "mean of the gradient's square (moments)", "falls slowly")
    moment_3: float | None = signal("linear", (-inf, inf), "", "mean of the gradient's cube (moments)", "near 0")
    moment_4: float | None = signal(
        "log",
        (0, inf),
        "",
        "mean of the gradient's fourth power (moments)",
        "falls slowly",
        "rising: the loss surface grows sharper; lower the learning rate",
    )
    moment_emotion: float | None = signal(
        "linear", (-inf, inf), "", "m3 / (m2 + eps) * exp(-m4) of the gradient's moments (moments)", "near 0"
    )
    shadow_mix: float | None = signal(
        "fixed",
        (0, 1),
        "",
        "share of the shadow mixed into the weights (use_shadow)",
        "0, with pulses after shocks of the loss",
        "above 0 for long: the shadow holds the training back; see scalar",
    )

    micro_batches: float | None = signal(
        "linear",
        (0, inf),
        "micro-batches",
        "micro-batches whose losses the step adds up (gradient accumulation)",
        "even; the last step of an epoch may have fewer",
        "fewer at the end of an epoch, and the loss with them: Trainer adds their means up (normalize_accumulation)",
    )

    def log(self) -> dict[str, float]:
        """Returns the signals this generation has, keyed ``emo/<name>``, as all dashboards know them."""
        return {key: value for name, key in KEYS.items() if (value := getattr(self, name)) is not None}


FIELDS = fields(Signals)
EXTREMES = frozenset(f.name for f in FIELDS if f.metadata["extremes"])
KEYS = {f.name: PREFIX + (f.metadata["share"] or f.name) for f in FIELDS}
