"""Messages at the moment they matter, once per training: what a person who tunes an optimizer would want to be told.

`WHEN` lists the moments; docs/signals.md is made of it. `emo_hf.dashboards.diagnosis` says how a training went.
"""

import logging
import math
import statistics
from collections import deque
from typing import Any, NamedTuple

from emo_hf.signals import Signals

logger = logging.getLogger(__name__)

RECENT = 200  # steps
NOT_POSITIVE = 3  # steps: one alone may be an empty batch
NEVER = 10  # a loss average so many times above stopcoef counts as out of reach
BEGINNING = 10  # steps after the warmup, by which a schedule has been at its base
LEAST_SHARE = 1e-2  # of its base, that a schedule reaches in these steps
LEAST_STEP = 1e-8  # the floor of the pulse
LATE = 0.4  # of a training, by which EmoFree has found its step size and mostly ceased to grow it
GROWING = 0.5  # mean growth over the last steps, in units of the ramp's, that counts as growing
PINNED = 0.5  # share of the steps at its ceiling, above which the pulse hardly follows the loss
BRAKES = 0.1  # share of the last steps in which EmoFree's brake acts; 0.04 at most in trainings that went well
FEWEST = 20  # steps that a share or a mean is made of

WHEN = (
    "the loss is that of a policy gradient, or was 0 or below"
    f" at {NOT_POSITIVE} steps, as theirs: it measures no progress",
    f"the pulse is at its ceiling in more than {PINNED:.0%} of the last {RECENT} steps",
    f"the pulse is at its floor, or the step size below {LEAST_STEP:g} in the first half of the training",
    f"3.9 is calm enough to stop, but its loss average is above {NEVER:g} times stopcoef: its stop signal can never"
    " come up",
    "the shadow of 3.1 was mixed in, which shrinks the weights",
    "the schedule ignores a warmup",
    f"the schedule is below {LEAST_SHARE:.0%} of its base in the first {BEGINNING} steps after the warmup: it was made"
    " for the learning rates of another optimizer",
    f"EmoFree is in its ramp at {LATE:.0%} of the training, or after {RECENT} steps where the length is not known",
    f"EmoFree is still growing at {LATE:.0%} of the training: by more than {GROWING:.0%} of the speed of its ramp, on"
    f" average over the last {RECENT} steps, or as many as there were since the ramp (at least {FEWEST})",
    f"EmoFree brakes in more than {BRAKES:.0%} of the last {RECENT} steps",
)


HOLD = "Hold it with optim_args='hold_pulse=true' (3.7 and later), or with a constant schedule in place of emopulse."
RAMP_DO = (
    "The training is short for a ramp, or its warmup holds the step size down: train for more steps, or leave out the "
    "warmup, which a ramp replaces."
)
RAMP_TELL = "Tell it: EmoFree(total_steps=...), or LoopRecord(total_steps=...)."
REPLACE = "EmoFree has nothing to hold it with: train with an optimizer that hears no loss, as adamw_torch."


class Plan(NamedTuple):
    """The steps of a training: from which it goes on, of how many (0: unknown), of which a warmup."""

    start: int = 0
    total: int = 0
    warmup: int = 0

    @property
    def late(self) -> int:
        """The step at which EmoFree should have found its step size."""
        return math.ceil(LATE * self.total) if self.total else RECENT

    @property
    def beginning(self) -> int:
        """The step at which a schedule should have been at its base; 0 in a training that goes on."""
        if self.start:
            return 0
        return self.warmup + (max(1, min(BEGINNING, (self.total - self.warmup) // 2)) if self.total else BEGINNING)


class Health:
    """Looks at every step. `config` is that of `Recorder`."""

    def __init__(self, config: dict[str, Any], plan: Plan | None = None) -> None:
        self._plan = plan or Plan()
        self._greatest_share = 0.0  # of its base that the schedule has reached
        self._shrinking = config.get("emo_version") == "3.1"
        self._held = config.get("emo_hold_pulse", False)
        self._policy_gradient = config.get("emo_policy_gradient", False)
        # the last steps of an EmoFree, since its ramp
        self._growth: deque[float] = deque(maxlen=RECENT)
        self._braking: deque[bool] = deque(maxlen=RECENT)
        self._ceiling: deque[float] = deque(maxlen=RECENT)
        self._seen = 0
        self._not_positive = 0
        self._said: set[str] = set()

    def observe(self, step: int, signals: Signals) -> None:
        """Logs what is wrong at `step`, unless it was said before."""
        self._seen += 1
        self._look_at_loss(step, signals)
        if signals.at_ceiling is not None:
            self._look_at_pulse(step, signals, signals.at_ceiling)
            self._look_at_schedule(step, signals)
        if signals.steering is not None:
            self._look_at_ramp(step, signals)
        if signals.stop_margin_snr is not None and signals.stop_margin_loss is not None and self._seen >= RECENT:
            self._look_at_stop(step, signals.stop_margin_snr, signals.stop_margin_loss, signals.ema_medium)
        if self._shrinking and signals.shadow_mix:
            self._say(
                "Step %d: the shadow was mixed in. In 3.1 the weights of the mixture do not sum to one, so that a "
                "series of such shocks shrinks the model towards zero: leave use_shadow off, or use 3.6 or later.",
                step,
            )

    def _look_at_loss(self, step: int, signals: Signals) -> None:
        self._not_positive += signals.loss <= 0
        if not self._held and (self._policy_gradient or self._not_positive == NOT_POSITIVE):
            self._say(
                "Step %d: the loss (now %.3g) belongs to a policy gradient (GRPO, RLOO), or is 0 or below as theirs: "
                "it is no measure of progress, and the step size that it drives is arbitrary, it may collapse or jump "
                "to its ceiling. " + (HOLD if signals.steering is None else REPLACE),
                step,
                signals.loss,
            )

    def _look_at_pulse(self, step: int, signals: Signals, at_ceiling: float) -> None:
        self._ceiling.append(at_ceiling)
        pinned = sum(self._ceiling)
        if len(self._ceiling) == RECENT and pinned > PINNED * RECENT:
            self._say(
                "Step %d: the pulse was at its ceiling in %d of the last %d steps: the step size hardly follows the "
                "loss. If the loss falls, that is fine, and the multiplier (learning_rate) may be too small; if it "
                "does not, a jump of the loss drove the pulse up, and the multiplier is too large.",
                step,
                pinned,
                RECENT,
            )
        at_its_base = self._plan.beginning < step <= self._plan.total / 2  # by then, or still: no warmup, no decay
        if signals.at_floor or (signals.lr < LEAST_STEP and at_its_base):
            self._say(
                "Step %d: the step size is %g, with the pulse at %g: the model hardly trains. Raise the multiplier "
                "(learning_rate), and check that the loss measures progress.",
                step,
                signals.lr,
                signals.pulse,
            )

    def _look_at_schedule(self, step: int, signals: Signals) -> None:
        if signals.pulse and step <= self._plan.beginning:
            self._greatest_share = max(self._greatest_share, signals.lr / signals.pulse)
            if step == self._plan.beginning and self._greatest_share < LEAST_SHARE:
                self._say(
                    "Step %d: the schedule has multiplied every step size by %.2g at most (now %.2g with the pulse at "
                    "%.2g): the model hardly trains. It seems to be made of learning rates for AdamW, but that of "
                    "this optimizer is a multiplier: where a scheduler reads args.learning_rate (DeepSpeed's section "
                    "'scheduler', OneCycleLR(max_lr=...)), set learning_rate=1.0 in the arguments, which otherwise "
                    "hold 5e-05. If it is a long warmup, all is well.",
                    step,
                    self._greatest_share,
                    signals.lr,
                    signals.pulse,
                )

    def _look_at_ramp(self, step: int, signals: Signals) -> None:
        """EmoFree: whether it has found its step size, has ceased to grow it, and has no need to brake."""
        if not signals.steering:
            if step == self._plan.late:
                known = bool(self._plan.total)
                where = f"at {100 * LATE:.0f} %% of the training" if known else "and does not know how long it has"
                self._say(
                    f"Step %d: EmoFree is still in its ramp {where}: the agreement of the gradients is %.2f at a "
                    f"step size of %.2g. {RAMP_DO if known else RAMP_TELL}",
                    step,
                    signals.agreement,
                    signals.lr,
                )
            return
        self._growth.append(signals.growth or 0.0)
        self._braking.append(bool(signals.braking))
        steps, growth, brakes = len(self._growth), statistics.fmean(self._growth), statistics.fmean(self._braking)
        if step == self._plan.late and self._plan.total and steps >= FEWEST and growth > GROWING:
            self._say(
                "Step %d: EmoFree is still growing at %.0f %% of the training, over the last %d steps by %.0f %% of "
                "the speed of its ramp: the loss falls faster than the step size (now %.2g) can answer for. Train for "
                "more steps, or start higher: a learning_rate of 2 takes twice what the ramp finds.",
                step,
                100 * LATE,
                steps,
                100 * growth,
                signals.lr,
            )
        if steps == RECENT and brakes > BRAKES:
            self._say(
                "Step %d: EmoFree braked in %.0f %% of the last %d steps, because the loss rose beyond its noise. "
                "Look at the data of these steps, clip the gradients (max_grad_norm), or take a smaller part of "
                "what it finds: a learning_rate of 0.5.",
                step,
                100 * brakes,
                steps,
            )

    def _look_at_stop(self, step: int, margin_snr: float, margin_loss: float, ema_medium: float) -> None:
        stopcoef = margin_loss + ema_medium
        if margin_snr >= 0 and ema_medium > NEVER * stopcoef:
            self._say(
                "Step %d: calm enough to stop, but the stop signal also waits for a loss of at most stopcoef = %g, "
                "and the loss is %.3g. If it will never be that small, set stopcoef to a loss that you would stop at "
                "(in optim_args; of emoPulse in lr_scheduler_kwargs), or ignore the signal.",
                step,
                stopcoef,
                ema_medium,
            )

    def _say(self, message: str, *numbers: float | None) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning(message, *numbers)


def advise_on_schedule(schedule: str, warmup: float) -> None:
    """Logs that a warmup is ignored: Trainer's constant schedule has none.

    Args:
        schedule: ``lr_scheduler_type``.
        warmup: ``warmup_steps`` or ``warmup_ratio``.
    """
    if warmup > 0 and schedule == "constant":
        logger.warning(
            "The warmup (%g) has no effect: lr_scheduler_type='constant' ignores it. Use 'constant_with_warmup'.",
            warmup,
        )
