"""The ramp of EmoFree on the task of a recipe, alone (`emo_hf.find_lr`): one seed, no arm of the recipe, no result.

Its folder holds ``config.yaml`` and what `emo_hf.hf.probing` writes, so that a report can show it.
"""

from pathlib import Path

import yaml
from transformers import set_seed

from emo_hf.dashboards.jsonl import write_whole
from emo_hf.hf import EmoTrainer
from emo_hf.hf.probing import FoundLr, find_lr
from emo_hf.lab import sources, tasks
from emo_hf.lab.recipe.arms import Arm
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.run.arguments import total_steps, training_arguments
from emo_hf.run_folder import RunFolder

ARM = Arm.model_validate({"optim": "emofree", "lr": 1.0, "tuning": "untuned"})


def of_task(run_config: RunConfig) -> RunConfig:
    """Returns what trains the task of `run_config` by EmoFree, in one process."""
    return run_config.model_copy(update={"arm": ARM, "name": "emofree", "processes": None, "replayed_seed": None})


def find(run_config: RunConfig, folder: Path) -> FoundLr:
    """Runs the ramp of a `RunConfig` of `of_task`, into a new folder.

    Raises:
        RecipeError: the data or the model is missing.
        RampError: the ramp did not end.
    """
    data = sources.examples(run_config)
    set_seed(run_config.seed)
    parts = tasks.build(run_config, data)
    steps = total_steps(run_config, len(parts.train_dataset))
    trainer = EmoTrainer(args=training_arguments(run_config, folder, steps, "none"), **vars(parts))
    config = run_config.model_dump(mode="json", exclude_none=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(RunFolder(folder).config, yaml.safe_dump(config, sort_keys=False).encode())
    return find_lr(trainer, folder)
