"""Curves of a comparison, laid out like the figures that the authors published:

    loss           training loss of every step, step size, and validation loss of every evaluation
    fluctuation    rolling standard deviation of the training loss; accuracy (or perplexity)
    three_panel    accuracy; perplexity of a second comparison; the path of the first one's classifier in a plane

A line is the mean over the seeds, its band their standard deviation. Of training losses there is a smoothed line, with
the mean that it smooths as a faint one. Where no run has a second value, there is no panel.
"""

import math
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from emo_hf.errors import RecipeError
from emo_hf.lab.analysis import histories
from emo_hf.lab.figures.style import (
    CUT,
    OUTLIER,
    TEXT,
    WIDTH,
    Style,
    bands,
    caption,
    label_ends,
    plain,
    save,
    seeds,
    styles,
)

NAMES = {
    "loss": "training loss",
    "step_size": "step size",
    "eval_loss": "validation loss",
    "fluctuation": f"standard deviation of {histories.WINDOW} training losses",
    "accuracy": "validation accuracy",
    "perplexity": "validation perplexity",
}


def loss(folder: Path, path: Path) -> None:
    """Draws losses and step sizes of the results in `folder` into the file `path`, as far as there are curves."""
    table = histories.read(folder, histories.CURVES)
    curves = [name for name in ("loss", "step_size", "eval_loss") if name in table and _goes_on(table, name)]
    _stacked(folder, path, table, curves or ["loss"])


def fluctuation(folder: Path, path: Path) -> None:
    """Draws how much the training loss fluctuates, and the task's metric, into the file `path`.

    Raises:
        RecipeError: no run in `folder` is long enough.
    """
    table = histories.read(folder, histories.CURVES)
    if "fluctuation" not in table or not table["fluctuation"].notna().any():
        raise RecipeError(f"{folder} has no fluctuation: expected runs with {histories.WINDOW} logged losses.")
    _stacked(folder, path, table, ["fluctuation", _metric(table, folder)])


def three_panel(classified: Path, modelled: Path, path: Path) -> None:
    """Draws accuracy and trajectory of the results in `classified`, and perplexity of those in `modelled`.

    Raises:
        RecipeError: the one has no accuracy or trajectory, or the other no perplexity.
    """
    tables = [histories.read(folder, histories.CURVES) for folder in (classified, modelled)]
    for folder, table, metric in zip((classified, modelled), tables, ("accuracy", "perplexity"), strict=True):
        if metric not in table:
            raise RecipeError(f"{folder} has no {metric}: expected results with accuracy, then some with perplexity.")
    runs = pd.concat([_drawn(folder) for folder in (classified, modelled)])
    arm_styles = styles(runs)
    figure = Figure(figsize=(16, 5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw(left, tables[0], "accuracy", arm_styles)
    _draw(middle, tables[1], "perplexity", arm_styles)
    for axes, folder in ((left, classified), (middle, modelled)):
        axes.set_title(f"{axes.get_title()}\n{seeds(_drawn(folder))}", fontsize=TEXT)
    _draw_trajectory(right, histories.read(classified, histories.TRAJECTORY), arm_styles)
    handles = [Line2D([], [], label=arm, linewidth=1.8, **style) for arm, style in arm_styles.items()]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=TEXT, handlelength=3)
    caption(figure, _legend(runs).partition("; ")[2])
    save(figure, path)


def trajectory(folder: Path, path: Path) -> None:
    """Draws the path of the classifier of the results in `folder` into the file `path`."""
    table, arm_styles = histories.read(folder, histories.TRAJECTORY), styles(_drawn(folder))
    figure = Figure(figsize=(8.5, 5.5), layout="constrained")
    axes = figure.subplots()
    _draw_trajectory(axes, table, arm_styles)
    handles = [
        Line2D([], [], label=arm, linewidth=1.8, **_style(arm_styles, arm)) for arm in dict.fromkeys(table["arm"])
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=TEXT, handlelength=3)
    caption(figure, "dashed: the loss is withheld" if _drawn(folder)["withheld"].any() else "")
    save(figure, path)


def _goes_on(table: pd.DataFrame, name: str) -> bool:
    """Whether some arm has more than one value."""
    return bool(table.groupby("arm")[name].count().max() > 1)


def _stacked(folder: Path, path: Path, table: pd.DataFrame, columns: list[str]) -> None:
    """Draws panels one below the other, which can be read on a telephone."""
    runs = _drawn(folder)
    if missing := [name for name in columns if name not in table]:
        raise RecipeError(f"The curves in {folder} have no {', '.join(missing)}: give the folder of other results.")
    arm_styles = styles(runs)
    height = max(3.2, 0.17 * len(arm_styles) + 0.6)  # of a panel: the names beside it need it
    figure = Figure(figsize=(WIDTH, height * len(columns) + 0.6), layout="constrained")
    panels = list(figure.subplots(len(columns), 1, squeeze=False).flat)
    for axes, name in zip(panels, columns, strict=True):
        label_ends(axes, _draw(axes, table, name, arm_styles))
        axes.set_xlabel("step" if axes is panels[-1] else "")
    notes = ["faint: before smoothing"] if "loss" in columns else []
    notes += ["fluctuation: means only"] if "fluctuation" in columns else []
    notes += [CUT] if any(map(_is_cut, panels)) else []
    caption(figure, "; ".join([_legend(runs), *notes]))
    save(figure, path)


def _drawn(folder: Path) -> pd.DataFrame:
    """Returns the runs whose curves are kept: those of no sweep."""
    runs = histories.runs(folder)
    return runs[runs["family"].isna()]


def _metric(table: pd.DataFrame, folder: Path) -> str:
    for name in ("accuracy", "perplexity"):
        if name in table:
            return name
    raise RecipeError(f"{folder} has neither accuracy nor perplexity.")


def _legend(runs: pd.DataFrame) -> str:
    """Returns what the lines and bands are, in words for a caption."""
    return "; ".join([seeds(runs), bands(runs), *(["dashed: the loss is withheld"] if runs["withheld"].any() else [])])


def _draw(axes: Axes, table: pd.DataFrame, name: str, arm_styles: dict[str, Style]) -> dict[str, tuple[float, Style]]:
    """Draws one column of the curves; returns the last value and the style of each arm."""
    ends = {}
    noisy = name in ("loss", "fluctuation")
    faint = min(0.25, 1.2 / table["arm"].nunique())  # many bands overlap
    wanted = table[table[f"{name}_n"].notna() if f"{name}_n" in table else table[name].notna()]
    for arm, rows in wanted.groupby("arm", sort=False):
        style = _style(arm_styles, arm)
        y = rows[name]
        if name == "loss":
            axes.plot(rows["step"], y, linewidth=0.7, alpha=faint, **style)
            y = y.rolling(2 * (len(y) // 60) + 1, center=True, min_periods=1).mean().where(y.notna())
        axes.plot(rows["step"], y, linewidth=1.2 if noisy else 1.5, **style)
        if not noisy:  # their own deviations would hide the lines
            low, high = rows[name] - rows[f"{name}_sd"], rows[name] + rows[f"{name}_sd"]
            axes.fill_between(rows["step"], low, high, color=style["color"], alpha=faint, linewidth=0)
        if len(rows) == 1:  # a single evaluation makes neither line nor band
            axes.errorbar(rows["step"], rows[name], rows[f"{name}_sd"], fmt="o", color=style["color"], clip_on=False)
        value = y.iloc[-1]
        ends[arm if math.isfinite(value) else f"{arm} (not finite)"] = (value, style)
    axes.set_title(NAMES[name][0].upper() + NAMES[name][1:], fontsize=TEXT)
    axes.set(xlabel="step", xlim=(0, table["step"].max()))
    plain(axes)
    _limit(axes, table, name)
    return ends


def _style(arm_styles: dict[str, Style], arm: str) -> Style:
    if arm not in arm_styles:
        raise RecipeError(f"The curves hold an arm {arm!r}, of which there is no run: make the report again.")
    return arm_styles[arm]


def _limit(axes: Axes, table: pd.DataFrame, name: str) -> None:
    """Sets the limits so that a diverging arm leaves the panel instead of flattening all others."""
    values = table[name].dropna()
    if values.empty:
        return
    if name in ("perplexity", "step_size"):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "235" else "")
        return
    if name == "fluctuation":
        axes.set_ylim(0.85 * values.min(), 1.15 * values.quantile(0.995))
        return
    if name in ("loss", "eval_loss"):
        of_arms = table[table[name].notna()].groupby("arm")[name]
        seen = max(_largest(heights) for heights in (of_arms.max(), of_arms.last()))
        low, high = axes.get_ylim()
        axes.set_ylim(low, min(high, max(1.3 * of_arms.first().median(), 1.05 * seen)))


def _largest(heights: pd.Series) -> float:
    """Returns the largest of the arms' `heights` that is no outlier."""
    return heights[heights <= OUTLIER * heights.median()].max()


def _is_cut(axes: Axes) -> bool:
    """Whether a line or band goes on above the panel."""
    return bool(axes.dataLim.ymax > axes.get_ylim()[1])


def _draw_trajectory(axes: Axes, table: pd.DataFrame, arm_styles: dict[str, Style]) -> None:
    for number, (arm, rows) in enumerate(table.groupby("arm", sort=False)):
        style = _style(arm_styles, arm)
        axes.plot(rows["pc1"], rows["pc2"], linewidth=1.3, **style)
        marks = {"color": style["color"], "linestyle": "none", "markeredgecolor": "white", "zorder": 3}
        for place, marker, label in ((0, "o", "start"), (-1, "D", "end")):
            at = rows.iloc[place]
            axes.plot(
                [at["pc1"]], [at["pc2"]], marker=marker, markersize=7, label=label if not number else None, **marks
            )
    shares = table[["share1", "share2"]].iloc[0]
    axes.set(xlabel=f"PC 1 ({shares.iloc[0]:.0%} of the variance)", ylabel=f"PC 2 ({shares.iloc[1]:.0%})")
    axes.set_title(f"Weights of the classifier, seed {table['seed'].iloc[0]}", fontsize=TEXT)
    plain(axes)
    legend = axes.legend(frameon=False, fontsize=TEXT)
    for handle in legend.get_lines():
        handle.set_color("black")
