"""What the runs of a comparison need, looked for before the first of them starts and anything is written."""

from emo_hf.lab import optimizers, sources, tasks
from emo_hf.lab.spec import Cell


def check(cells: list[Cell]) -> None:
    """Reads the data, and looks for the model and the optimizers of `cells`, which are of one recipe and one size.

    Raises:
        RecipeError: something is missing, malformed or out of reach.
    """
    sources.examples(cells[0])  # all cells read the same data, and begin with the same model
    tasks.check_model(cells[0])
    for name in dict.fromkeys(cell.arm.optim for cell in cells):
        if name in optimizers.ALIASES:
            optimizers.load(name)
