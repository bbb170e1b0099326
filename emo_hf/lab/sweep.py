"""A recipe as a sweep of Weights & Biases: its agents, on as many machines as there are, train one cell after another.

The grid is arm x seed. An agent starts ``emo-hf run RECIPE --size SIZE --report-to wandb --arm=adamw --seed=3``: each
cell lands in its own folder of that machine, and in the sweep's project.
"""

from typing import Any

import yaml

from emo_hf.errors import RecipeError
from emo_hf.lab.spec import Cell

HOW = """\
# wandb sweep --project PROJECT FILE     prints ENTITY/PROJECT/ID
# wandb agent ENTITY/PROJECT/ID          on each machine, in the environment and the folder where emo-hf is run
"""


def text(cells: list[Cell], recipe: str, description: str) -> str:
    """Returns the YAML of a sweep.

    Args:
        cells: all of its runs.
        recipe: what `emo-hf run` is told to run: a file or a name.
        description: of the recipe.

    Raises:
        RecipeError: there is a cell that no machine can train without the files of another run.
    """
    if replaying := sorted({cell.name for cell in cells if cell.arm.replay}):
        raise RecipeError(
            f"{', '.join(replaying)}: needs what another run has written, maybe on another machine. Leave it out with"
            " --arms, or use emo-hf run on one machine."
        )
    return HOW + yaml.safe_dump(configuration(cells, recipe, description), sort_keys=False, allow_unicode=True)


def configuration(cells: list[Cell], recipe: str, description: str) -> dict[str, Any]:
    """Returns a sweep as W&B's agents want it; the arguments are those of `text`."""
    first = cells[0]
    data = ["--data-dir", first.data_dir] if first.data_dir else []
    return {
        "name": f"{first.recipe}/{first.size}",
        "description": description,
        "method": "grid",
        "parameters": {
            "arm": {"values": list(dict.fromkeys(cell.name for cell in cells))},
            "seed": {"values": list(dict.fromkeys(cell.seed for cell in cells))},
        },
        "program": "emo-hf",
        "command": [
            *("${env}", "${program}", "run", recipe, "--size", first.size, *data),
            *("--report-to", "wandb", "${args}"),
        ],
    }
