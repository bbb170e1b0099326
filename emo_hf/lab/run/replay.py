"""The step sizes of an earlier run, for a run that takes them instead of its own.

If these sizes do as well when they come from another seed, in another order, all at their mean or as a plain cosine,
then a training gains nothing by hearing its own loss.
"""

import math

import numpy as np

from emo_hf import mechanism
from emo_hf.dashboards import read_signals
from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.arms import Replay
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.run_folder import RunFolder

# step size of a held pulse at a multiplier of 1
HELD = mechanism.V3_9.pulse.base  # type: ignore[union-attr]


def step_sizes(run_config: RunConfig, replay: Replay, folder: RunFolder, steps: int) -> list[float]:
    """Returns the size of each of `steps` optimizer steps.

    Args:
        run_config: the run that replays another one.
        replay: of its arm.
        folder: of the run; the other one's lies beside it.
        steps: of the whole training.

    Raises:
        RecipeError: the other run is missing or too short.
    """
    seed = run_config.seed if run_config.replayed_seed is None else run_config.replayed_seed
    source = RunFolder.in_comparison(folder.comparison, replay.of, seed)
    sizes = [row["emo/lr"] for row in read_signals(source.signals)] if source.is_finished else []
    if len(sizes) < steps:
        raise RecipeError(
            f"{run_config.name} replays {replay.of} with seed {seed}, which has recorded {len(sizes)} of {steps}"
            f" steps: run {replay.of} with that seed first."
        )
    return arranged(sizes[:steps], replay.order, run_config.seed)


def arranged(sizes: list[float], order: str, seed: int) -> list[float]:
    """Returns `sizes` in another order, or other sizes with the same sum; ``recorded`` changes nothing.

    Args:
        sizes: one per step, at least one.
        order: of `emo_hf.lab.recipe.arms.Replay`.
        seed: of the shuffling.
    """
    mean, count = sum(sizes) / len(sizes), len(sizes)
    match order:
        case "shuffled":
            return np.random.default_rng(seed).permutation(sizes).tolist()
        case "constant":
            return [mean] * count
        case "cosine":
            return [mean * (1 + math.cos(math.pi * (step + 0.5) / count)) for step in range(count)]
    return sizes
