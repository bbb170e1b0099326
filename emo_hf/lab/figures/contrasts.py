"""Final numbers of a comparison: over the learning rate, and as differences to the baseline."""

import math
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from emo_hf.errors import RecipeError
from emo_hf.lab.analysis import histories
from emo_hf.lab.analysis.verdicts import Estimate
from emo_hf.lab.figures.style import (
    CUT,
    GREY,
    OUTLIER,
    TEXT,
    WIDTH,
    bands,
    caption,
    label_lines,
    plain,
    save,
    seeds,
    styles,
)


def basin(folder: Path, path: Path) -> None:
    """Draws the final number of every sweep over its learning rates into the file `path`.

    Raises:
        RecipeError: the results in `folder` have no sweep.
    """
    runs = histories.runs(folder)
    runs = runs[runs["family"].notna()]
    if runs.empty:
        raise RecipeError(f"{folder} has no sweep: the recipe needs arms with sweep: [...].")
    metric = runs["metric"].iloc[0]
    family_styles, ends = styles(runs, by="family"), {}
    figure = Figure(figsize=(WIDTH, 5), layout="constrained")
    axes = figure.subplots()
    unfinished = []
    for family, rows in runs.groupby("family", sort=False):
        style = family_styles[family]
        by_rate = rows.groupby("lr")["value"]
        mean = by_rate.apply(lambda values: values.mean(skipna=False))
        sd = by_rate.apply(lambda values: values.std(skipna=False))
        axes.plot(mean.index, mean, linewidth=1.6, marker="o", markersize=4, **style)
        axes.fill_between(mean.index, mean - sd, mean + sd, color=style["color"], alpha=0.12, linewidth=0)
        unfinished += [(rate, style["color"]) for rate in mean.index[mean.isna()]]
        default = rows["default_lr"].iloc[0]
        if default in mean.index and math.isfinite(mean[default]):
            star = {"color": style["color"], "markeredgecolor": "black", "markeredgewidth": 0.8, "zorder": 4}
            axes.plot([default], [mean[default]], marker="*", markersize=15, linestyle="none", **star)
        ends[family] = (mean.index[-1], mean.iloc[-1], style)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if metric == "perplexity":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    for rate, colour in unfinished:
        axes.plot([rate], [1.0], marker="x", color=colour, transform=axes.get_xaxis_transform(), clip_on=False)
    axes.set(xlabel="learning rate, or multiplier of the pulse (log)", ylabel=metric.replace("_", " "))
    plain(axes)
    notes = "; crosses: a run was not finite" if unfinished else ""
    means = runs.groupby("arm")["value"].mean()
    if means.max() > (highest := OUTLIER * means.median()):  # a diverged arm would flatten all others
        axes.set_ylim(0.9 * means.min(), 1.1 * means[means <= highest].max())
        notes += f"; {CUT}"
    label_lines(axes, ends)
    caption(figure, f"{seeds(runs)}; {bands(runs)}; stars: default learning rates{notes}")
    save(figure, path)


def differences(folder: Path, path: Path) -> None:
    """Draws the difference of every arm to the baseline, each seed and the interval, into the file `path`.

    Raises:
        RecipeError: the results in `folder` have no baseline, or nothing to compare it with.
    """
    runs = histories.runs(folder)
    pairs = histories.differences(runs)
    if pairs.empty:
        raise RecipeError(f"{folder} has no baseline, or no other arm with its seeds.")
    arm_styles, metric = styles(runs), runs["metric"].iloc[0]
    better = "more" if runs["more_is_better"].iloc[0] else "less"
    arms = list(dict.fromkeys(pairs["arm"]))
    figure = Figure(figsize=(WIDTH, 0.36 * len(arms) + 1.9), layout="constrained")
    axes = figure.subplots()
    for place, arm in enumerate(arms):
        values = pairs.loc[pairs["arm"] == arm, "difference"]
        estimate = Estimate.from_values(values.dropna().tolist())
        if values.isna().any() or estimate.mean is None:
            axes.text(0, place, " a run was not finite", va="center", fontsize=TEXT, color=GREY)
            continue
        style = arm_styles[arm]
        hollow = style["linestyle"] != "-"
        axes.plot(values, [place] * len(values), "|", color=style["color"], alpha=0.55, markersize=9)
        bar = {"color": style["color"], "markersize": 8, "capsize": 3, "elinewidth": 1.8}
        inside = "white" if hollow else style["color"]
        reach = None if estimate.high is None else estimate.high - estimate.mean
        axes.errorbar(estimate.mean, place, xerr=reach, fmt="o", markerfacecolor=inside, **bar)
    axes.axvline(0, color="black", linewidth=0.9)
    axes.set_yticks(range(len(arms)), arms, fontsize=TEXT)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    baseline = runs.loc[runs["baseline"], "arm"].iloc[0]
    axes.set_xlabel(f"{metric.replace('_', ' ')} minus that of {baseline}, by seed ({better} is better)")
    plain(axes)
    hollow = "; hollow: the loss is withheld" if runs["withheld"].any() else ""
    caption(figure, f"{seeds(runs)}; dots: means, bars: 95 % intervals (Student's t), ticks: seeds{hollow}")
    save(figure, path)
