"""The facts about the runs of one arm, for its model card, by where they come from:

given       the recipe: model, data, settings, claim
measured    the summaries of the runs, and the machines they ran on
computed    the verdict of the comparison
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emo_hf.errors import RecipeError, did_you_mean
from emo_hf.lab.analysis import comparison
from emo_hf.lab.analysis.comparison import Comparison
from emo_hf.lab.analysis.results import environment
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.schema import RunConfig

NEEDED = ("parameters", "train_examples", "test_examples", "data_sha256", "steps")  # of every summary


@dataclass(frozen=True, slots=True)
class ArmData:
    """The runs of one arm.

    Attributes:
        comparison: all runs of the recipe at this size.
        run_config: the settings of the arm's first run; the others differ in the seed.
        summaries: of the arm's finished runs, by seed.
        environments: where these runs ran; for a folder of results, where any run of the comparison ran.
        pictured: the folder of the run whose signals are drawn.
        from_hub: whether the data came from the hub; None if that is not known.
    """

    comparison: Comparison
    run_config: RunConfig
    summaries: list[dict[str, Any]]
    environments: list[dict[str, Any]]
    pictured: Path | None
    from_hub: bool | None

    @property
    def path(self) -> str:
        """The path of the recipe as it was given to emo-hf run, without what lies above its folder."""
        path = self.comparison.command.split()[2]
        inside = re.fullmatch(r"(?!.*\.\.)[\w.-]+(/[\w.-]+)*", path)
        return path if inside else Path(path.replace("\\", "/")).name


def read(folder: Path, arm: str | None = None) -> ArmData:
    """Reads the runs of one arm.

    Args:
        folder: RUNS/<recipe>/<size>/<arm>, the folder of its comparison, or a folder of results.
        arm: which of several.

    Raises:
        RecipeError: there is no finished run, no such arm, several arms and none named, or a file cannot be used.
    """
    if any(folder.glob("seed*/summary.json")):
        if arm not in (None, folder.name):
            raise RecipeError(f"{folder} holds the runs of {folder.name}: leave out --arm {arm}.")
        folder, arm = folder.parent, folder.name
    runs = comparison.read(folder)
    arm = _chosen(folder, arm, [row.arm for row in runs.rows])
    summaries = next(row.runs for row in runs.rows if row.arm == arm)
    for name in NEEDED:
        if any(run.get(name) is None for run in summaries):
            raise RecipeError(f"{folder}: a summary of {arm} has no {name}, which a card tells: run it again.")
    data = runs.recipe.task.data
    run_folders = [run_folder for key, run_folder in runs.folders.items() if key[0] == arm]
    if not run_folders:
        from_hub = None if data.hub and data.files else bool(data.hub)
        return ArmData(runs, runs.run_configs[arm], summaries, runs.environments, None, from_hub)
    run_config = loading.run_config(run_folders[0].config)
    return ArmData(
        comparison=runs,
        run_config=run_config,
        summaries=summaries,
        environments=_distinct([environment(each.environment) for each in run_folders if each.environment.exists()]),
        pictured=run_folders[0].path,
        from_hub=bool(data.hub) and run_config.data_dir is None,
    )


def _chosen(folder: Path, arm: str | None, known: list[str]) -> str:
    if arm in known:
        return arm
    if arm is None and len(known) == 1:
        return known[0]
    if arm is None:
        raise RecipeError(f"{folder} holds several arms: choose one by --arm. Known: {', '.join(known)}.")
    raise RecipeError(
        f"{folder} holds no finished run of {arm!r}.{did_you_mean(arm, known)} Known: {', '.join(known)}."
    )


def _distinct(environments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(each, sort_keys=True): each for each in environments}.values())
