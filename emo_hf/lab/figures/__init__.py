"""Pictures, the only users of matplotlib:

    laws          what the laws answer to the loss, and the paths of the optimizers over test functions
    panels        a comparison's curves, laid out like the authors' published figures
    contrasts     its final numbers: over the learning rate, and as differences to the baseline
    look          colours, labels, and how a file is written

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
from emo_hf.lab.figures.panels import fluctuates, fluctuation, loss, three_panel, trajectory

__all__ = [
    "basin",
    "broken",
    "coefficients",
    "differences",
    "draw",
    "fluctuation",
    "loss",
    "paths",
    "three_panel",
    "trajectory",
]


def draw(out: Path) -> list[Path]:
    """Draws all figures that the tables in `out` allow beside them; returns their paths."""
    table = histories.read(out, histories.RUNS)
    known, swept = set(table["arm"]), table["family"].notna()
    # beside sweeps, one line by itself has nothing to be compared with
    lines = (out / histories.CURVES).exists() and not (swept.any() and table.loc[~swept, "arm"].nunique() == 1)
    wanted = {
        loss: lines,
        fluctuation: lines and fluctuates(histories.read(out, histories.CURVES)),
        trajectory: (out / histories.TRAJECTORY).exists(),
        basin: swept.any(),
        differences: table["baseline"].any() and len(known) > 1,
    }
    drawn = []
    for figure, applies in wanted.items():
        if applies:
            drawn.append(out / f"{figure.__name__}.png")
            figure(out, drawn[-1])
    return drawn
