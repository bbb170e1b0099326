"""What is known of the runs of one arm, for its model card, sorted by where it comes from:

    given       the recipe: model, data, settings, claim
    measured    the summaries of the runs, and the machines they ran on
    computed    the verdict of the comparison, if a report has been written

It lies in the folder of an arm (RUNS/<recipe>/<size>/<arm>), in that of its comparison, or in a folder of results:
recipe.yaml (or the recipe beside the folder), runs.jsonl or one JSON file per run, env.json.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emo_hf.errors import RecipeError, did_you_mean
from emo_hf.lab.analysis import comparison, histories
from emo_hf.lab.analysis.results import parsed, read_json
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.schema import Recipe, RunConfig


@dataclass(frozen=True, slots=True)
class ArmData:
    """The runs of one arm.

    Attributes:
        run_config: the first of them; the others differ in the seed.
        summaries: of the finished runs, by seed.
        environments: each distinct env.json of them.
        recipe: as it was when the runs started, if it was kept.
        path: of the recipe, relative; to be run again.
        report: report.json of the comparison, if it has been written.
        pictured: the folder of the run whose signals can be drawn.
        from_hub: whether the data came from the hub; None: nobody noted it.
    """

    run_config: RunConfig
    summaries: list[dict[str, Any]]
    environments: list[dict[str, Any]]
    recipe: Recipe | None
    path: str
    report: dict[str, Any] | None
    pictured: Path | None
    from_hub: bool | None


def read(folder: Path, arm: str | None = None) -> ArmData:
    """Reads the runs of one arm.

    Raises:
        RecipeError: there is no finished run, no such arm, several arms and none named, or a file cannot be used.
    """
    if any(folder.glob("seed*/summary.json")):
        if arm not in (None, folder.name):
            raise RecipeError(f"{folder} holds the runs of {folder.name}: leave out --arm {arm}.")
        return _of_runs(folder.parent, folder.name)
    if any(folder.glob("*/seed*/summary.json")):
        return _of_runs(folder, arm)
    return _of_results(folder, arm)


def _of_runs(folder: Path, arm: str | None) -> ArmData:
    found = histories.finished(folder)
    arm = _chosen(folder, arm, [run.run_config.name for run in found])
    runs = [run for run in found if run.run_config.name == arm]
    path = folder / comparison.RECIPE
    environments = [read_json(run.folder.environment) for run in runs if run.folder.environment.exists()]
    run_config = runs[0].run_config
    data = run_config.task.data
    return ArmData(
        run_config=run_config,
        summaries=[run.summary for run in runs],
        environments=_distinct(environments),
        recipe=histories.recipe(folder),
        path=_command(path) if path.exists() else "RECIPE.yaml",
        report=_report(folder, run_config),
        pictured=runs[0].folder.path,
        from_hub=bool(data.hub) and run_config.data_dir is None,
    )


def _of_results(folder: Path, arm: str | None) -> ArmData:
    summaries = _summaries(folder)
    arm = _chosen(folder, arm, [summary["arm"] for summary in summaries])
    summaries = sorted((each for each in summaries if each["arm"] == arm), key=lambda each: each["seed"])
    size, name = summaries[0]["size"], summaries[0]["recipe"]
    recipe, path = _recipe(folder, name)
    data, reads_hub = recipe.task.data, bool(recipe.task.data.hub)
    (run_config, *_) = recipe.run_configs(
        size, [arm], [summaries[0]["seed"]], None if reads_hub or data.embedded else Path("DIR")
    )
    environments = read_json(folder / "env.json") if (folder / "env.json").exists() else []
    return ArmData(
        run_config=run_config,
        summaries=summaries,
        environments=environments if isinstance(environments, list) else [environments],
        recipe=recipe,
        path=_command(path) if path.name == comparison.RECIPE else _relative(path),
        report=_report(folder, run_config),
        pictured=None,
        from_hub=None if data.hub and data.files else reads_hub,
    )


def _summaries(folder: Path) -> list[dict[str, Any]]:
    path = folder / "runs.jsonl"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [parsed(path, line) for line in lines]
    else:
        found = [read_json(path) for path in sorted(folder.glob("*-seed*.json"))]
    if not found:
        raise RecipeError(
            f"{folder} holds no finished run: expected RUNS/<recipe>/<size>/<arm>, or a folder of results with --arm."
        )
    for summary in found:
        if not {"arm", "seed", "size", "recipe"} <= summary.keys():
            raise RecipeError(f"{folder}: a summary lacks arm, seed, size or recipe.")
    return found


def _recipe(folder: Path, name: str) -> tuple[Recipe, Path]:
    """Returns the recipe called `name` in a folder of results or beside it, and its file."""
    for path in (folder / comparison.RECIPE, *sorted(folder.resolve().parent.glob("*.yaml"))):
        if path.exists():
            recipe = loading.recipe(str(path))
            if isinstance(recipe, Recipe) and recipe.name == name:
                return recipe, path
    raise RecipeError(f"{folder} has no recipe.yaml, and no recipe called {name} lies beside it.")


def _chosen(folder: Path, arm: str | None, known: list[str]) -> str:
    known = list(dict.fromkeys(known))
    if arm in known:
        return arm
    if arm is None and len(known) == 1:
        return known[0]
    if arm is None:
        raise RecipeError(f"{folder} holds several arms: choose one by --arm. Known: {', '.join(known)}.")
    raise RecipeError(
        f"{folder} holds no finished run of {arm!r}.{did_you_mean(arm, known)} Known: {', '.join(known)}."
    )


def _command(path: Path) -> str:
    """Returns the recipe's path out of the command in the first line of its copy."""
    head = path.read_text(encoding="utf-8").partition("\n")[0]
    words = head.removeprefix(comparison.COMMAND).split() if head.startswith(comparison.COMMAND) else []
    return _inside(words[0]) if words else "RECIPE.yaml"


def _relative(path: Path) -> str:
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.name


def _inside(path: str) -> str:
    """A path that leads out of the current folder says where somebody's files lie: its name is enough."""
    return path if re.fullmatch(r"(?!.*\.\.)[\w.-]+(/[\w.-]+)*", path) else Path(path.replace("\\", "/")).name


def _report(folder: Path, run_config: RunConfig) -> dict[str, Any] | None:
    for path in (folder / "report.json", folder / "report" / "report.json"):
        if path.exists():
            found = read_json(path)
            if (found.get("recipe"), found.get("size")) == (run_config.recipe, run_config.size):
                return found
    return None


def _distinct(environments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(each, sort_keys=True): each for each in environments}.values())
