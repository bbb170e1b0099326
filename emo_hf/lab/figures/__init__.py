"""Pictures, the only users of matplotlib in the lab:

    responses     how the step size of each generation responds to the loss
    formulas      pictures of these responses, and of the paths of the optimizers over test functions
    panels        a comparison's curves, laid out like the authors' published figures
    contrasts     its final numbers: over the learning rate, and as differences to the baseline
    profile       the final numbers of several comparisons that ask the same
    style         colours, labels, and how a file is written

Pictures of a comparison are drawn from the tables of `emo_hf.lab.analysis.histories` alone.
"""

from pathlib import Path

from emo_hf.extras import needing

with needing("A picture"):
    import matplotlib.axes
    import matplotlib.figure  # noqa: F401

from emo_hf.lab.analysis import histories
from emo_hf.lab.figures.contrasts import basin, differences
from emo_hf.lab.figures.formulas import broken, coefficients, paths
from emo_hf.lab.figures.panels import fluctuation, loss, three_panel, trajectory
from emo_hf.lab.figures.profile import profile

__all__ = [
    "basin",
    "broken",
    "coefficients",
    "differences",
    "draw",
    "fluctuation",
    "loss",
    "paths",
    "profile",
    "three_panel",
    "trajectory",
]


def draw(out: Path) -> list[Path]:
    """Draws the figures of the comparison in `out` next to its tables; returns their paths.

    `fluctuation` and `three_panel` are drawn on request only.
    """
    runs = histories.runs(out)
    swept = runs["family"].notna()
    # curves leave sweeps out, and a single curve has nothing to be compared with
    lines = histories.has(out, histories.CURVES) and not (swept.any() and runs.loc[~swept, "arm"].nunique() == 1)
    wanted = {
        loss: lines,
        trajectory: histories.has(out, histories.TRAJECTORY),
        basin: swept.any(),
        differences: runs["baseline"].any() and runs["arm"].nunique() > 1,
    }
    paths = {figure: out / f"{figure.__name__}.png" for figure, applies in wanted.items() if applies}
    for figure, path in paths.items():
        figure(out, path)
    return list(paths.values())
