"""Every metric that is logged, and how the dashboards arrange them.

    Signals (one step) -> METRICS (rows of one step or a window of steps, and what Trainer logs)
                       -> SECTIONS of panels: the W&B workspace, the HTML report, the pictures
                       -> docs/signals.md

x is everywhere the optimizer step: ``step`` in a row of ``emo_signals.jsonl``, ``train/global_step`` elsewhere.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import inf

from emo_hf.signals import FIELDS, KEYS, PREFIX, Axis, Range


@dataclass(frozen=True, slots=True)
class Metric:
    """One logged number; see `emo_hf.signals.signal` for the fields."""

    key: str
    axis: Axis
    range: Range
    unit: str
    meaning: str
    healthy: str
    act: str = ""

    @property
    def name(self) -> str:
        """The key without ``emo/``."""
        return self.key.removeprefix(PREFIX)

    @property
    def is_noisy(self) -> bool:
        """Whether it may be smoothed: losses differ from batch to batch, the step size is what it is."""
        return self.key in ("train/loss", "emo/loss")

    @property
    def range_text(self) -> str:
        """The range in words: "any", "> 0", ">= 0" or "[-1, 1]"."""
        low, high = self.range
        if high == inf:
            return "any" if low == -inf else f"{'>' if self.axis == 'log' else '>='} {low:g}"
        return f"[{low:g}, {high:g}]"


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart. Its axis is that of its first metric; `band` is drawn around that one."""

    title: str
    keys: tuple[str, ...]
    band: tuple[str, ...] = ()  # minimum and maximum
    zero_line: bool = False  # the sign is what matters

    @property
    def first(self) -> Metric:
        return METRICS[self.keys[0]]

    @property
    def metrics(self) -> tuple[str, ...]:
        """All keys, those of the band too."""
        return (*self.keys, *self.band)

    def found(self, recorded: Collection[str]) -> list[str]:
        """Returns the keys of this panel among those recorded, with the losses of all evaluation sets."""
        keys = [key for key in self.keys if key in recorded]
        return [*keys, *of_sets(recorded)] if EVAL_LOSS in self.keys else keys


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under one heading; ``open`` at first sight or folded."""

    title: str
    panels: tuple[Panel, ...]
    open: bool = True


def _of_windows() -> list[Metric]:
    """Returns what a row holds of each signal: the mean, and for some the extremes or a share."""
    found = []
    for field in FIELDS:
        key, declared = KEYS[field.name], field.metadata["declared"]
        found.append(Metric(key, **declared))
        if field.metadata["extremes"]:
            for end, word in (("min", "least"), ("max", "greatest")):
                found.append(Metric(f"{key}_{end}", **{**declared, "meaning": f"{word} {field.name} of the window"}))
    return found


OF_ROWS = (
    *_of_windows(),
    Metric(
        "emo/stop_count",
        "linear",
        (0, inf),
        "steps",
        "steps that were ready to stop, since the first",
        "0 at first, rises when the loss has settled",
    ),
    Metric(
        "emo/step_seconds",
        "linear",
        (0, inf),
        "s",
        "wall time of a step, with whatever lies between two steps (evaluation, checkpoints)",
        "flat, with spikes at evaluations",
        "grows: look at the input pipeline and the memory",
    ),
)
OF_TRAINER = (
    Metric("train/loss", "log", (0, inf), "loss", "Trainer's mean over logging_steps", "falls"),
    Metric(
        "eval/loss",
        "log",
        (0, inf),
        "loss",
        "loss on the evaluation data; of several sets, each has its `eval/<name>_loss`",
        "falls with the training loss",
        "rises while the training loss falls: overfitting; stop or regularize",
    ),
    Metric(
        "train/grad_norm",
        "log",
        (0, inf),
        "",
        "norm of the gradient before clipping",
        "even, falls slowly",
        "grows by orders of magnitude: the training diverges",
    ),
)
EVAL_LOSS = "eval/loss"
METRICS = {metric.key: metric for metric in (*OF_ROWS, *OF_TRAINER)}


def of_sets(keys: Collection[str]) -> list[str]:
    """Returns the keys that are the loss of one of several evaluation sets, ``eval/<name>_loss``."""
    return [key for key in keys if key.startswith("eval/") and key.endswith("_loss")]


def find(key: str) -> Metric:
    """Returns the metric of a key.

    Raises:
        KeyError: it is neither one of `METRICS` nor the loss of an evaluation set.
    """
    if key not in METRICS and (of_set := of_sets([key])):
        name = of_set[0].removeprefix("eval/").removesuffix("_loss")
        return replace(METRICS[EVAL_LOSS], key=key, meaning=f"loss on the evaluation data {name}")
    return METRICS[key]


SUMMARY = {  # one number per run, at its end
    "best/eval_loss": "least finite evaluation loss of the training; of several sets, each has its "
    "`best/eval_<name>_loss`",
    "emo/lr_median": "median step size",
    "emo/lr_ceiling_share": "share of the steps with the pulse at its ceiling",
    "emo/found_lr": "the step size that EmoFree's ramp found: a learning rate for AdamW",
    "emo/found_after": "steps of the ramp that found it",
    "emo/first_stop_step": "first step that was ready to stop (the last one of its window); absent if none was",
}

LOSSES = ("emo/loss", "emo/ema_short", "emo/ema_medium", "emo/ema_long")
SECTIONS = (
    Section(
        "Health",
        (
            Panel("Loss", ("train/loss", "eval/loss")),
            Panel("Step size used", ("emo/lr",), band=("emo/lr_min", "emo/lr_max")),
            Panel("Emotion", ("emo/scalar", "emo/trust_abs"), band=("emo/scalar_min", "emo/scalar_max")),
        ),
    ),
    Section(
        "Loss as the optimizer sees it",
        (
            Panel("Loss and its averages", LOSSES),
            Panel("Gap of the averages", ("emo/ema_gap",), zero_line=True),
            Panel("Gradient norm", ("train/grad_norm",)),
        ),
    ),
    Section(
        "Signal and noise",
        (
            Panel("Noise and distance", ("emo/noise", "emo/distance")),
            Panel("Signal-to-noise ratio", ("emo/snr", "emo/snr_now")),
            Panel("Drift", ("emo/drift",), zero_line=True),
            Panel("Pulse before the schedule", ("emo/pulse",)),
            Panel("Factor on the learning rate", ("emo/factor",)),
        ),
    ),
    Section(
        "Stopping",
        (
            Panel("Margins to ready", ("emo/stop_margin_snr", "emo/stop_margin_loss"), zero_line=True),
            Panel("Ready to stop", ("emo/stop_share",)),
            Panel("Pinned pulse", ("emo/lr_at_ceiling", "emo/lr_at_floor")),
            Panel("Steps ready to stop", ("emo/stop_count",)),
        ),
        open=False,
    ),
    Section(
        "Finding the step size",
        (
            Panel("Agreement of the gradients", ("emo/agreement", "emo/agreement_end"), zero_line=True),
            Panel("Falls of the loss per step", ("emo/fall_seen", "emo/fall_predicted"), zero_line=True),
            Panel("Seen fall over predicted fall", ("emo/fall_trust",), zero_line=True),
            Panel("After the ramp, and braking", ("emo/steering", "emo/braking")),
            Panel("Growth of the step size", ("emo/growth",), zero_line=True),
        ),
        open=False,
    ),
    Section(
        "Options",
        (
            Panel("Shadow mixed in", ("emo/shadow_mix",)),
            Panel("Even moments of the gradient", ("emo/moment_2", "emo/moment_4")),
            Panel("Odd moments of the gradient", ("emo/moment_1", "emo/moment_3")),
            Panel("Emotion of the moments", ("emo/moment_emotion",)),
        ),
        open=False,
    ),
    Section(
        "Cost",
        (Panel("Seconds per step", ("emo/step_seconds",)), Panel("Micro-batches per step", ("emo/micro_batches",))),
        open=False,
    ),
)
