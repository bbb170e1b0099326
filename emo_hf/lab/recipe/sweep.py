"""A recipe as a sweep of Weights & Biases. Agents on any number of machines train one run after another.

The grid is arm x seed. An agent starts ``emo-hf run RECIPE --size SIZE --report-to wandb --arm=adamw --seed=3``. The
run lands in its own folder on that machine, and in the sweep's project.
"""

import yaml

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.schema import RunConfig

HOW = """\
# wandb sweep --project PROJECT FILE     prints ENTITY/PROJECT/ID
# wandb agent ENTITY/PROJECT/ID          on each machine, in the environment and the folder where emo-hf is run
"""


def text(run_configs: list[RunConfig], recipe: str, description: str) -> str:
    """Returns the YAML of a sweep.

    Args:
        run_configs: all of its runs.
        recipe: the argument of `emo-hf run`: a file or a name.
        description: of the recipe.

    Raises:
        RecipeError: a run needs the files of another run.
    """
    if replaying := sorted({run_config.name for run_config in run_configs if run_config.arm.replay}):
        raise RecipeError(
            f"{', '.join(replaying)}: needs what another run has written, maybe on another machine. Leave it out with"
            " --arms, or use emo-hf run on one machine."
        )
    first = run_configs[0]
    folders = [("--data-dir", first.data_dir), ("--model-dir", first.model_dir)]
    places = [word for option, folder in folders if folder for word in (option, folder)]
    content = {
        "name": f"{first.recipe}/{first.size}",
        "description": description,
        "method": "grid",
        "parameters": {
            "arm": {"values": list(dict.fromkeys(run_config.name for run_config in run_configs))},
            "seed": {"values": list(dict.fromkeys(run_config.seed for run_config in run_configs))},
        },
        "program": "emo-hf",
        "command": [
            *("${env}", "${program}", "run", recipe, "--size", first.size, *places),
            *("--report-to", "wandb", "${args}"),
        ],
    }
    return HOW + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
