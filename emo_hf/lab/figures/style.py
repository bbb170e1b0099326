"""What all pictures share: colours, labels at the ends of lines, and how a file is written.

An optimizer has the same colour everywhere (`emo_hf.dashboards.colours`). Arms whose loss is withheld are dashed.
"""

import math
import textwrap
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from emo_hf.dashboards.colours import assign, look
from emo_hf.dashboards.jsonl import write_whole

ORANGE, BLUE, RED, GREY = "#E69F00", "#0072B2", "#D55E00", "#6b6b6b"
WITHHELD = (0, (4, 1.6))
REPEATED = (0, (1, 1))  # when the colours are used up
WIDTH = 7.5  # inches: on a telephone, texts are still legible
TEXT = 10.5
OUTLIER = 3  # times the median of all arms: what lies higher may be cut off
CUT = "what lies higher is cut off"

Style = dict[str, Any]


def styles(runs: pd.DataFrame, by: str = "arm") -> dict[str, Style]:
    """Returns colour and dashes of every arm (or family) in the table of `histories.runs`.

    Arms that differ only in whether the loss is withheld share a colour.
    """
    lines = runs.drop_duplicates(by)
    alike = lines.drop_duplicates("like")
    looks = dict(zip(alike["like"], map(look, assign(list(alike["optimizer"]))), strict=True))
    by_name: dict[str, Style] = {}
    for row in lines.itertuples():
        colour, repeated = looks[row.like]
        line = WITHHELD if row.withheld else REPEATED if repeated else "-"
        by_name[getattr(row, by)] = {"color": colour, "linestyle": line}
    return by_name


def seeds(runs: pd.DataFrame) -> str:
    """Returns the number of seeds, in words for a caption."""
    counts = runs.groupby("arm")["seed"].nunique()
    low, high = counts.min(), counts.max()
    return f"n = {low} seed{'s' if low > 1 else ''}" if low == high else f"n = {low} to {high} seeds"


def bands(runs: pd.DataFrame) -> str:
    """Returns what lines and bands are, in words for a caption."""
    several = runs.groupby("arm")["seed"].nunique().max() > 1
    return "lines: means, bands: standard deviations over the seeds" if several else "one run each"


def label_ends(axes: Axes, ends: Mapping[str, tuple[float, Style]], size: float = TEXT) -> None:
    """Writes names to the right of `axes` at the heights of `ends`, moved apart, each with a piece of its line.

    Call it when the limits of `axes` are final. A height that is nan or outside the limits is moved to one of them.
    """
    low, high = axes.get_ylim()
    scale = axes.transScale.transform
    bottom, top = scale((1, low))[1], scale((1, high))[1]

    def height(value: float) -> float:
        if not math.isfinite(value) or value >= high:
            return 1.0
        return 0.0 if value <= low else (scale((1, value))[1] - bottom) / (top - bottom)

    places = {name: height(value) for name, (value, _) in ends.items()}
    inches = axes.bbox.height / axes.figure.dpi
    gap = min(size * 1.25 / 72 / inches, 1 / max(len(ends) - 1, 1))
    heights = _spread(sorted(places.values()), gap)
    for (name, place), at in zip(sorted(places.items(), key=lambda item: item[1]), heights, strict=True):
        style = ends[name][1]
        line = {**style, "linewidth": 1.6, "transform": axes.transAxes, "clip_on": False}
        axes.plot([1.0, 1.03], [place, at], **{**line, "linestyle": "-", "linewidth": 0.6})
        axes.plot([1.03, 1.10], [at, at], **line)
        axes.text(1.115, at, name, transform=axes.transAxes, va="center", fontsize=size, color="#222222")


def label_lines(axes: Axes, ends: Mapping[str, tuple[float, float, Style]]) -> None:
    """Writes names beside the right ends of lines that end at different places, moved apart where they would overlap.

    Call it when the limits of the y axis are final; it makes room to the right.

    Args:
        axes: with a logarithmic x axis.
        ends: name -> x, y and style of a line. A y that is nan or outside the limits is moved to one of them.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    axes.set_xlim(left, right * (right / left) ** (0.016 * max(map(len, ends))))
    assert isinstance(axes.figure, Figure)
    axes.figure.draw_without_rendering()  # places are known from here on
    height, wide = TEXT * 1.2, TEXT * 0.62  # of a line and of a character, in points
    points = 72 / axes.figure.dpi
    taken: list[tuple[float, float, float]] = []  # left and right end, and height
    for name, (x, y, style) in sorted(ends.items(), key=lambda end: end[1][1]):
        y = min(max(y, bottom), top) if math.isfinite(y) else top
        start, at = axes.transData.transform((x, y)) * points
        end, wanted = start + wide * len(name), at
        while any(one < end and start < other and abs(at - place) < height for one, other, place in taken):
            at += height / 8
        taken.append((start, end, at))
        axes.annotate(
            name,
            (x, y),
            (9, at - wanted),
            textcoords="offset points",
            va="center",
            fontsize=TEXT,
            color=style["color"],
            annotation_clip=False,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],  # where a line passes
        )


def _spread(heights: list[float], gap: float) -> list[float]:
    """Returns ascending `heights` at least `gap` apart, within [0, 1], moved as far up as down."""
    up, down = list(heights), list(heights)
    for i in range(1, len(heights)):
        up[i] = max(up[i], up[i - 1] + gap)
        down[-i - 1] = min(down[-i - 1], down[-i] - gap)
    middle = [max((high + low) / 2, i * gap) for i, (high, low) in enumerate(zip(up, down, strict=True))]
    return [min(height, 1 - above * gap) for above, height in zip(reversed(range(len(middle))), middle, strict=True)]


def plain(axes: Axes) -> None:
    """Draws a pale grid and no frame at the top and right."""
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def caption(figure: Figure, text: str) -> None:
    """Writes text below all panels."""
    width = round(11.5 * figure.get_figwidth())  # characters
    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=TEXT - 1, color=GREY)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG. It holds no date, so the same numbers give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = BytesIO()
    figure.savefig(picture, dpi=100)
    # a third of the bytes: overlapping pale bands have thousands of shades
    shades = Image.open(picture).convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small = BytesIO()
    shades.save(small, "PNG", optimize=True)
    write_whole(path, small.getvalue())
