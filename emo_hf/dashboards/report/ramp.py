"""The ramp of an EmoFree: the agreement of each gradient with the step before it, over the size of that step.

    Ramp.of(run)        what was recorded of it
    svg(ramps)          the drawing, a panel for each: in a report, where it has the page's colours
    picture(ramps)      the same as an SVG file of its own, light or dark as its reader is

It is the picture that people know from learning rate finders, of a training that goes on. It needs no other package.
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path

from emo_hf.dashboards.jsonl import write_whole
from emo_hf.dashboards.report.runs import RecordedRun

AGREEMENT, END, SIZE, STEERING = "emo/agreement", "emo/agreement_end", "emo/lr", "emo/steering"
READING = (
    "The step size grows from left to right. Agreement is how much of the gradient along a step is left after it: 1"
    " where the slope is the same, 0 where the step went to the minimum along its direction. It is an average over"
    " some steps, so it comes late: what is found is half the size at which it fell below the dashed line. Where it"
    " was never above 0.2, the loss alone decides."
)
WIDTH, HEIGHT = 440, 260  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 30, 40  # around its axes
LEAST, GREATEST = -1.0, 1.5  # agreement that is drawn
COLUMNS = 2
LONGEST = 46  # characters of a title that fit


@dataclass(frozen=True, slots=True)
class Ramp:
    """A ramp, as far as it is recorded.

    Attributes:
        title: of what.
        sizes: step sizes that were used, > 0, at least two.
        agreements: what was measured by then, one for each.
        end: the agreement below which it ends; None if that is not recorded.
        found: the step size found; None before the end.
    """

    title: str
    sizes: tuple[float, ...]
    agreements: tuple[float, ...]
    end: float | None = None
    found: float | None = None

    @classmethod
    def of(cls, run: RecordedRun) -> "Ramp | None":
        """Returns the ramp of a run, None if it has none, or is in its first steps."""
        if AGREEMENT not in run.series:
            return None
        agreement, steering, used, end = (_by_step(run, key) for key in (AGREEMENT, STEERING, SIZE, END))
        steps = sorted(step for step in agreement if step in steering and step in used)
        ramp = [step for step in steps if steering[step] == 0]
        after = [step for step in steps if steering[step] == 1]
        points = [
            (used[before], agreement[step])  # what a step has measured is known at the next one
            for before, step in zip(ramp, [*ramp[1:], *after[:1]], strict=False)
            if used[before] > 0 and agreement[step]  # exactly 0: nothing was measured yet
        ]
        points = [(size, value) for size, value in points if math.isfinite(size) and math.isfinite(value)]
        if len(points) < 2:
            return None
        ends = [end.get(step) for step in (*ramp, *after[:1])]
        sizes, agreements = zip(*points, strict=True)
        return cls(run.name, sizes, agreements, ends[-1], run.found)


def _by_step(run: RecordedRun, key: str) -> dict[int, float]:
    return dict(run.series[key].items()) if key in run.series else {}


def svg(ramps: list[Ramp]) -> str:
    """Returns an SVG element with a panel for each ramp, `COLUMNS` in a row. Its colours are those around it."""
    columns = min(COLUMNS, len(ramps))
    width, height = columns * WIDTH, math.ceil(len(ramps) / columns) * HEIGHT
    panels = "".join(
        f'<g transform="translate({place % columns * WIDTH} {place // columns * HEIGHT})">{"".join(_panel(ramp))}</g>'
        for place, ramp in enumerate(ramps)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ramp" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" aria-label="{escape(_words(ramps))}">'
        f'<rect class="back" width="{width}" height="{height}"/>{panels}</svg>'
    )


def picture(ramps: list[Ramp]) -> str:
    """Returns the content of an SVG file."""
    opening, rest = svg(ramps).split(">", 1)
    return f"{opening}><style>{own_style()}{style()}</style>{rest}\n"


def write(ramps: list[Ramp], path: Path) -> None:
    """Writes an SVG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, picture(ramps).encode())


def style() -> str:
    """Returns the rules of the drawing, for colours of the names of page.css."""
    return _file("ramp.css")


def own_style() -> str:
    """Returns these colours for a file of its own."""
    return _file("ramp_colours.css")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _words(ramps: list[Ramp]) -> str:
    return "; ".join(f"{ramp.title}: {_found(ramp)}" for ramp in ramps)


def _found(ramp: Ramp) -> str:
    return "not ended" if ramp.found is None else f"found {ramp.found:.2g}"


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where a step size and an agreement lie in a panel."""

    x: tuple[float, float]  # step sizes at the ends
    y: tuple[float, float]

    @classmethod
    def around(cls, ramp: Ramp) -> "_Axes":
        sizes = [*ramp.sizes, *([ramp.found] if ramp.found else [])]
        low, high = min(ramp.agreements), max(ramp.agreements)
        x = min(sizes) / 1.1, max(sizes) * 1.25
        return cls(x, (max(min(low, 0) - 0.08, LEAST), min(max(high, 1) + 0.05, GREATEST)))

    def across(self, size: float) -> float:
        low, high = self.x
        return round(LEFT + (WIDTH - LEFT - RIGHT) * math.log(size / low) / math.log(high / low), 1)

    def down(self, agreement: float) -> float:
        low, high = self.y
        share = (min(max(agreement, low), high) - low) / (high - low)
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - share), 1)


def _panel(ramp: Ramp) -> Iterator[str]:
    axes, bottom, right = _Axes.around(ramp), HEIGHT - BOTTOM, WIDTH - RIGHT
    title = ramp.title if len(ramp.title) <= LONGEST else f"…{ramp.title[1 - LONGEST :]}"
    yield _text(LEFT, 18, title, "title")
    for size in _ticks(*axes.x):
        yield f'<line class="grid" x1="{axes.across(size)}" x2="{axes.across(size)}" y1="{TOP}" y2="{bottom}"/>'
        yield _text(axes.across(size), bottom + 15, f"{size:g}", "tick", "middle")
    for tenth in range(math.ceil(axes.y[0] * 5), math.floor(axes.y[1] * 5) + 1):
        height = axes.down(tenth / 5)
        yield f'<line class="{"grid" if tenth else "zero"}" x1="{LEFT}" x2="{right}" y1="{height}" y2="{height}"/>'
        yield _text(LEFT - 6, height + 4, f"{tenth / 5:g}", "tick", "end")
    yield _text((LEFT + right) / 2, HEIGHT - 8, "step size", "tick", "middle")
    middle = (TOP + bottom) / 2
    yield _text(13, middle, "agreement", "tick", "middle", f' transform="rotate(-90 13 {middle:g})"')
    if ramp.end is not None:
        height = axes.down(ramp.end)
        yield f'<line class="end" x1="{LEFT}" x2="{right}" y1="{height}" y2="{height}"/>'
        beside = 13 if statistics.fmean(ramp.agreements) > ramp.end else -5  # where the curve is not
        yield _text(LEFT + 5, height + beside, f"ends below {ramp.end:.2f}", "of-end")
    points = [(axes.across(size), axes.down(value)) for size, value in zip(ramp.sizes, ramp.agreements, strict=True)]
    yield f'<polyline class="curve" points="{" ".join(f"{x:g},{y:g}" for x, y in points)}"/>'
    yield from (f'<circle class="point" cx="{x:g}" cy="{y:g}" r="2"/>' for x, y in points)
    if ramp.found is not None:
        x = axes.across(ramp.found)
        yield f'<line class="found" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>'
        side, anchor = (-6, "end") if x > WIDTH / 2 else (6, "start")
        yield _text(x + side, TOP + 10, _found(ramp), "of-found", anchor)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start", more: str = "") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 of every decade."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for decade in decades for digit in (1, 2, 5) if low <= (tick := float(f"{digit}e{decade}")) <= high]
