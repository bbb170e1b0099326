"""Pictures of how the step size responds to the loss, and of the paths of optimizers over test functions."""

import math
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MultipleLocator

from emo_hf.lab.figures import responses
from emo_hf.lab.figures.style import BLUE, GREY, ORANGE, RED, Style, plain, save
from emo_hf.lab.run.functions import FUNCTIONS, ArmPath, Function, Result
from emo_hf.mechanism import V3_6

HEIGHTS = ["#aab5c2", "#b8c2cd", "#c5cdd7", "#d2d9e0", "#dfe4e9", "#ebeef2", "#f6f7f9"]  # of a landscape, low to high
STYLES = [  # one per generation
    {"color": GREY, "linestyle": (0, (1, 1.2)), "linewidth": 2.0},
    {"color": ORANGE, "linestyle": (0, (5, 1.5)), "linewidth": 2.8},
    {"color": BLUE, "linestyle": (0, (6, 1.5, 1, 1.5)), "linewidth": 1.6},
    {"color": RED, "linestyle": "-", "linewidth": 1.8},
]


def coefficients(path: Path) -> None:
    """Draws the factors of the damped generations and the step sizes of the pulses into the file `path`."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.3), hspace=0.03).flat
    _draw_factors(top)
    _draw_pulses(bottom)
    save(figure, path)


def _draw_factors(figure: SubFigure) -> None:
    figure.suptitle("Up to 3.6 the emotion multiplies the learning rate by a factor", fontsize=13, weight="bold")
    scalars = [step / 1000 for step in range(-1000, 1001)]
    left, right = figure.subplots(1, 2)
    for (label, mechanism), style in zip(responses.DAMPERS.items(), STYLES, strict=True):
        axes = right if mechanism is V3_6 else left
        axes.plot(scalars, broken(responses.factors(mechanism, scalars)), label=label, **style)
    for axes, top in ((left, 1.8), (right, 7.0)):
        axes.set(xlim=(-1, 1), ylim=(0, top), ylabel="factor on the learning rate")
        axes.xaxis.set_major_locator(MultipleLocator(0.25))
        plain(axes)
    left.legend(loc="upper left", frameon=False, fontsize=9)
    right.axhline(1.0, color=GREY, linewidth=0.8, linestyle=":")
    right.legend(loc="upper left", frameon=False, fontsize=9)
    left.set_xlabel("emotion scalar (3.1: positive when the loss falls; before: when it rises)")
    right.set_xlabel("emotion scalar (positive when the loss falls)")


def _draw_pulses(figure: SubFigure) -> None:
    title = "From 3.7.0 on the emotion is the step size (emoPulse, at a multiplier of 1)"
    figure.suptitle(title, fontsize=13, weight="bold")
    grid = figure.subplots(2, 4, sharex=True, sharey="row", height_ratios=(1, 2.6))
    for (name, losses), (above, below) in zip(responses.LOSSES.items(), grid.T, strict=True):
        above.plot(losses, color="black", linewidth=1.3)
        above.set(ylim=(0, 3.3))
        above.set_title(name, fontsize=10.5)
        for (version, mechanism), style in zip(responses.PULSES.items(), STYLES, strict=True):
            below.plot(responses.step_sizes(mechanism, losses), label=version, **style)
        below.set(yscale="log", ylim=(3e-6, 1.5e-2), xlim=(0, responses.STEPS), xlabel="step")
        below.axhline(3e-3, color=GREY, linewidth=0.8, linestyle=":")
        for axes in (above, below):
            plain(axes)
    grid[0, 0].set_ylabel("loss")
    grid[1, 0].set_ylabel("step size (log)")
    grid[1, 1].annotate(
        "cap of 3.7 to 3.9", (responses.STEPS, 3.2e-3), ha="right", va="bottom", color=GREY, fontsize=9
    )
    grid[1, 1].legend(loc="lower center", ncols=2, frameon=False, fontsize=9, handlelength=3.2)


def paths(result: Result, path: Path) -> None:
    """Draws the path of every arm of `result` over the function's contour lines into the file `path`."""
    function = FUNCTIONS[result.function]
    columns = min(4, len(result.paths))
    rows = math.ceil(len(result.paths) / columns)
    figure = Figure(figsize=(2.75 * columns, 2.95 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, arm in zip(grid.flat, result.paths, strict=False):
        _draw_contours(axes, function)
        _draw_path(axes, function, arm)
    for axes in grid.flat[len(result.paths) :]:
        axes.set_axis_off()
    figure.suptitle(f"{result.function.title()}: {result.steps} steps", fontsize=13, weight="bold")
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=10
    )
    save(figure, path)


def _draw_contours(axes: Axes, function: Function) -> None:
    x, y = (torch.linspace(*limits, 220, dtype=torch.float64) for limits in (function.x, function.y))
    height = function.value(x[None, :], y[:, None])
    axes.contourf(x, y, height, levels=[0, *function.levels], colors=HEIGHTS, extend="max", antialiased=False)


def _draw_path(axes: Axes, function: Function, arm: ArmPath) -> None:
    x, y = zip(*arm.points, strict=True)
    axes.plot(x, y, color=BLUE, linewidth=0.8, marker="o", markersize=1.6)
    for (px, py), marker, color, size, label in (
        (function.minimum, "*", ORANGE, 13, "minimum"),
        (arm.points[0], "o", "black", 6, "start"),
        (arm.points[-1], "D", RED, 6, "end"),
    ):
        mark: Style = {"marker": marker, "color": color, "markersize": size, "markeredgecolor": "white"}
        axes.plot([px], [py], label=label, linestyle="none", **mark)
    axes.set(xlim=function.x, ylim=function.y)
    axes.set_title(f"{arm.optimizer}\nlr {arm.lr:g}, {arm.distance:.2g} from the minimum", fontsize=9.5)


def broken(values: list[float]) -> list[float]:
    """Leaves a gap where a curve jumps, instead of a vertical line."""
    return [math.nan if abs(b - a) > 0.1 else a for a, b in zip(values, [*values[1:], values[-1]], strict=True)]
