"""What the runs of a comparison need. It is checked before the first run starts."""

from emo_hf.lab import sources, tasks
from emo_hf.lab.recipe import baselines
from emo_hf.lab.recipe.schema import RunConfig


def check(run_configs: list[RunConfig]) -> None:
    """Reads the data, and checks that model and optimizers are there. All runs are of one recipe and size.

    Raises:
        RecipeError: something is missing, malformed or out of reach.
    """
    sources.examples(run_configs[0])  # all of them read the same data, and begin with the same model
    tasks.check_model(run_configs[0])
    for name in dict.fromkeys(run_config.arm.optim for run_config in run_configs):
        if name in baselines.ALIASES:
            baselines.load(name)
