"""The performance profile of several comparisons: in how many of them a method is how close to the best one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from emo_hf.dashboards.colours import assign, look
from emo_hf.lab.analysis import comparison
from emo_hf.lab.analysis.standings import Standing, standings
from emo_hf.lab.figures.style import WIDTH, WITHHELD, Style, caption, label_ends, plain, save

CLOSE, FAR = 0.01, 0.3  # the axis is linear up to the first, logarithmic from there, and ends at the second
APART = 0.03  # comparisons, between lines that coincide


def profile(folders: Sequence[Path], path: Path) -> None:
    """Draws the comparisons in `folders` into the file `path`.

    Raises:
        RecipeError: they do not ask the same question.
    """
    comparisons = [comparison.read(folder) for folder in folders]
    methods = standings(comparisons)
    styles = _styles(methods)
    figure = Figure(figsize=(WIDTH, 5), layout="constrained")
    axes = figure.subplots()
    excess = np.concatenate([[0], np.geomspace(CLOSE / 30, FAR, 400)])
    axes.set_xscale("symlog", linthresh=CLOSE)
    count = len(comparisons)
    ends = {}
    for place, method in enumerate(methods):
        style, lift = styles[method.name], APART * (len(methods) / 2 - place)
        heights = np.array([count * method.share_within(1 + each) for each in excess]) + lift
        axes.step(excess, heights, where="post", linewidth=1.5 if place else 2.6, **style)
        ends[f"{method.name} for all" if method.sweep else method.name] = (heights[-1], style)
    axes.set(xlim=(0, FAR), ylim=(-0.3, count + 0.3), xlabel="above the best method", ylabel="comparisons")
    ticks = [0, CLOSE / 2, CLOSE, 0.02, 0.05, 0.1, FAR]
    axes.set_xticks(ticks, [f"{tick:.3g} %" for tick in np.multiply(ticks, 100)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(count + 1))
    plain(axes)
    label_ends(axes, ends)
    metric = comparisons[0].recipe.judged.replace("_", " ")
    caption(
        figure, f"{metric} of {count} comparisons; sweeps with the best rate of each, dashed with one rate for all"
    )
    save(figure, path)


def _styles(methods: Sequence[Standing]) -> dict[str, Style]:
    tuned = [method for method in methods if not method.sweep]
    places = assign([method.optimizer for method in tuned])
    colours = {method.name: look(place)[0] for method, place in zip(tuned, places, strict=True)}
    return {
        method.name: {"color": colours[method.sweep or method.name], "linestyle": WITHHELD if method.sweep else "-"}
        for method in methods
    }
