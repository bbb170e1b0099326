"""Reads a comparison from either of its two forms:

    RUNS/<recipe>/<size>/     recipe.yaml, and the folders of the runs (`emo_hf.run_folder`)
    a folder of results       recipe.yaml, runs.jsonl (a summary per line), and report.json, which says what else there
                              is to know: the machines, and the runs that failed

`record` writes recipe.yaml when the first run starts, so that the rule is fixed before the results. If the rule
changes later, the earlier recipe is kept as ``recipe.aside-N.yaml``. A report writes the second form, small enough to
commit.
"""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, NonNegativeInt

from emo_hf.dashboards.jsonl import write_whole
from emo_hf.errors import RecipeError
from emo_hf.hf.confidential import masked_of_log
from emo_hf.lab.analysis import results, verdicts
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.schema import Recipe, RunConfig, SizeName
from emo_hf.lab.run import processes
from emo_hf.reading import read_text
from emo_hf.run_folder import RECIPE, RunFolder, is_comparison_folder, parse_summary

logger = logging.getLogger(__name__)

RUNS, REPORT = "runs.jsonl", "report.json"
# what may not change after the first run
DECIDES = ("claim", "source", "metric", "baseline", "rule", "secondary", "judged_sweeps", "seeds")
COMMAND = "# emo-hf run "
DIVERGED = "NonFiniteLossError"  # in the last line of a run that an emo optimizer ended
LONGEST = 200  # characters of a reason

Summary = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class FailedRun:
    """A run without a result."""

    arm: str
    seed: int
    reason: str

    @property
    def diverged(self) -> bool:
        return DIVERGED in self.reason


@dataclass(frozen=True, slots=True)
class Comparison:
    """The runs of a recipe at one size.

    Attributes:
        command: what ran them, without --size.
        text: the content of recipe.yaml.
        rows: one per arm with a finished run, in the order of the recipe.
        failed: runs that were started and have no summary.
        ignored: folders of runs whose settings are not the recipe's.
        rule_changes: how often the rule changed after the first run (`DECIDES` lists what counts).
        environments: each distinct env.json, and the number of its runs.
        folders: the folder of each finished run by arm and seed; empty for a folder of results.
    """

    recipe: Recipe
    size: SizeName
    command: str
    text: str
    rows: list[results.ArmResult]
    failed: list[FailedRun] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    rule_changes: int = 0
    environments: list[dict[str, Any]] = field(default_factory=list)
    folders: dict[tuple[str, int], RunFolder] = field(default_factory=dict)

    @property
    def runs(self) -> list[Summary]:
        """The summaries of all finished runs."""
        return [run for row in self.rows for run in row.runs]

    @property
    def run_configs(self) -> dict[str, RunConfig]:
        """The settings of each arm at this size, with the first seed. If its data is local, it lies in DIR."""
        data_dir = Path("DIR") if self.recipe.task.data.needs_folder else None
        run_configs = self.recipe.run_configs(self.size, data_dir=data_dir)
        return {run_config.name: run_config for run_config in reversed(run_configs)}

    @property
    def missing(self) -> list[tuple[str, int]]:
        """Arm and seed of the recipe's runs that were not started."""
        started = {(run["arm"], run["seed"]) for run in self.runs} | {(run.arm, run.seed) for run in self.failed}
        return [(arm, seed) for arm in self.recipe.arms for seed in self.recipe.seeds if (arm, seed) not in started]

    @property
    def complete(self) -> bool:
        """Whether every run of the recipe has a result."""
        return not (self.failed or self.missing)

    @property
    def extra_seeds(self) -> list[int]:
        """Seeds of runs that are none of the recipe's."""
        return sorted({run["seed"] for run in self.runs} - set(self.recipe.seeds))

    @property
    def metrics(self) -> list[str]:
        """The numbers that a report shows of each arm, the judged one first."""
        judged = [line.metric for line in (*self.recipe.rule, *self.recipe.secondary) if line.metric]
        return list(dict.fromkeys([self.recipe.judged, *judged, "eval_loss", "step_size_median", "seconds"]))

    @property
    def full_command(self) -> str:
        """The command that makes the runs again; DIR and MODELS stand for local folders of data and models."""
        text = f"{self.command} --size {self.size}"
        if self.recipe.reads_folder(self.size):
            text += " --data-dir DIR"
        if (hub := self.recipe.sizes[self.size].model.hub) and hub.config:
            text += " --model-dir MODELS"
        if self.extra_seeds:
            text += f" --seeds {' '.join(map(str, sorted({run['seed'] for run in self.runs})))}"
        return text

    @property
    def verdict(self) -> verdicts.Verdict:
        return verdicts.judge(self.recipe, self.size, self._judged_values)

    def values(self, arm: str, metric: str) -> dict[int, float]:
        """Returns the metric of an arm by seed: the worst value where it is not finite, nothing where it has none."""
        values = {run.seed: verdicts.worst(metric) for run in self.failed if run.arm == arm and run.diverged}
        for run in self.runs:
            if run["arm"] == arm and metric in run:
                value = results.number(run[metric])
                values[run["seed"]] = verdicts.worst(metric) if value is None else value
        return values

    def _judged_values(self, arm: str, metric: str) -> dict[int, float]:
        """Returns the `values` of the recipe's seeds: otherwise one could add seeds until a line passes."""
        return {seed: value for seed, value in self.values(arm, metric).items() if seed in self.recipe.seeds}

    def difference(self, arm: str) -> tuple[verdicts.Estimate | None, int]:
        """Returns arm - baseline over the seeds that both have, and the number of seeds where one of them diverged."""
        if self.recipe.baseline is None or arm == self.recipe.baseline:
            return None, 0
        own, baseline = (self.values(name, self.recipe.judged) for name in (arm, self.recipe.baseline))
        differences = [own[seed] - baseline[seed] for seed in sorted(own.keys() & baseline.keys())]
        finite = [value for value in differences if math.isfinite(value)]
        return verdicts.Estimate.from_values(finite), len(differences) - len(finite)


def record(place: Path, recipe: Recipe, path: str) -> None:
    """Writes ``recipe.yaml`` into the folder of a comparison, and keeps an earlier one whose rule differs.

    Args:
        place: the folder, RUNS/<recipe>/<size>.
        recipe: what is about to be run.
        path: the file that the recipe came from.
    """
    content = yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)
    text = f"{COMMAND}{_shown(path)}\n{content}"
    file = place / RECIPE
    if file.exists():
        if _without_command(file.read_text(encoding="utf-8")) == content:
            return
        changed = _changed(file, recipe)
        if changed and any(place.glob("*/seed*")):
            number = 1
            while (aside := place / f"recipe.aside-{number}.yaml").exists():
                number += 1
            write_whole(aside, file.read_bytes())
            message = "%s: the recipe's %s changed after runs were made. %s is the earlier one; reports will say so."
            logger.warning(message, place, ", ".join(changed), aside.name)
    place.mkdir(parents=True, exist_ok=True)
    write_whole(file, text.encode())


def _shown(path: str) -> str:
    """Returns a path without what lies above the current folder."""
    resolved = Path(path).resolve()
    inside = resolved.is_relative_to(Path.cwd())
    return resolved.relative_to(Path.cwd()).as_posix() if inside else resolved.name


def _without_command(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(COMMAND) else text


def _changed(file: Path, recipe: Recipe) -> list[str]:
    try:
        before = loading.recipe(str(file))
        return [name for name in DECIDES if getattr(before, name) != getattr(recipe, name)]
    except (RecipeError, AttributeError):  # of an earlier version of the schema
        return ["format"]


def read(place: Path, known: Mapping[RunFolder, Summary] = MappingProxyType({})) -> Comparison:
    """Reads the comparison in a folder.

    Args:
        place: the folder.
        known: summaries that were read before.

    Raises:
        RecipeError: a file of it cannot be used, or no run is finished.
    """
    if not is_comparison_folder(place):
        raise RecipeError(f"{place} has no {RECIPE}: expected RUNS/<recipe>/<size>, or what emo-hf report wrote.")
    text = read_text(place / RECIPE, RecipeError)
    recipe = loading.recipe(str(place / RECIPE))
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"{place / RECIPE} descends a function: its picture is drawn by emo-hf plot functions.")
    head = text.partition("\n")[0]
    command = head.removeprefix("# ") if head.startswith(COMMAND) else f"emo-hf run {RECIPE}"
    has_folders = any(place.glob("*/seed*/config.yaml"))
    if not has_folders and not (place / RUNS).exists():
        raise RecipeError(f"{place} holds no run, neither <arm>/seed<k>/ nor {RUNS}: emo-hf run makes them.")
    runs, rest = _from_folders(place, recipe, known) if has_folders else _from_results(place)
    if not runs:
        failed = "".join(f"\n  {run.arm} seed {run.seed}: {run.reason}" for run in rest["failed"])
        raise RecipeError(f"No run in {place} is finished.{failed}")
    sizes = {run.get("size") for run in runs}
    if len(sizes) != 1 or not sizes <= recipe.sizes.keys() or {run.get("recipe") for run in runs} != {recipe.name}:
        raise RecipeError(f"{place} mixes runs of several recipes or sizes, or its {RECIPE} is not theirs.")
    keys = [(run["arm"], run.get("seed")) for run in runs]
    if not all(isinstance(seed, int) for _, seed in keys):
        raise RecipeError(f"{place}: a summary has no seed.")
    if len(set(keys)) != len(keys) or not {arm for arm, _ in keys} <= recipe.arms.keys():
        raise RecipeError(f"{place}: a run is there twice, or its arm is not in {RECIPE}.")
    places = {arm: place for place, arm in enumerate(recipe.arms)}
    runs.sort(key=lambda run: (places[run["arm"]], run["seed"]))
    folders = {key: rest["folders"][key] for key in ((run["arm"], run["seed"]) for run in runs) if rest["folders"]}
    return Comparison(recipe, runs[0]["size"], command, text, results.table(runs), **{**rest, "folders": folders})


def _from_folders(
    place: Path, recipe: Recipe, known: Mapping[RunFolder, Summary]
) -> tuple[list[Summary], dict[str, Any]]:
    runs, failed, ignored, folders = [], [], [], {}
    counts: dict[str, int] = {}
    machines: dict[str, Any] = {}
    for folder in RunFolder.all_in_comparison(place):
        try:
            run_config = loading.run_config(folder.config)
        except RecipeError:  # written by an earlier version of the schema
            run_config = None
        if run_config is None or run_config.size != place.name or not recipe.matches(run_config):
            ignored.append(f"{folder.path.parent.name}/{folder.path.name}")
        elif (summary := known.get(folder) or folder.read_summary()) is not None:
            runs.append(summary)
            folders[run_config.name, run_config.seed] = folder
            environment = results.environment(folder.environment)
            machine = json.dumps(environment, sort_keys=True)
            counts[machine] = counts.get(machine, 0) + 1
            machines[machine] = environment
        else:
            failed.append(FailedRun(run_config.name, run_config.seed, _reason(folder)))
    environments = [{"runs": count, **machines[machine]} for machine, count in sorted(counts.items())]
    changes = len(list(place.glob("recipe.aside-*.yaml")))
    rest = {"failed": sorted(failed), "ignored": ignored, "rule_changes": changes, "environments": environments}
    return runs, {**rest, "folders": folders}


def _reason(folder: RunFolder) -> str:
    """Returns why a run has no summary, without what may be a key or a path: a log can hold anything."""
    text = folder.read_log()
    if not text.strip():
        return "broke off without a message"
    return masked_of_log(processes.explain(1, text))[:LONGEST]


class Report(BaseModel):
    """What ``report.json`` tells of a comparison that its summaries do not."""

    model_config = ConfigDict(strict=True)

    environments: list[dict[str, Any]] = []
    failed: list[FailedRun] = []
    ignored: list[str] = []
    rule_changes: NonNegativeInt = 0


def _from_results(place: Path) -> tuple[list[Summary], dict[str, Any]]:
    path = place / REPORT
    report = results.checked(Report, read_text(path, RecipeError) if path.exists() else "{}", path)
    for environment in report.environments:
        results.checked(results.Environment, json.dumps(environment), path)
    lines = read_text(place / RUNS, RecipeError).splitlines()
    runs = [parse_summary(line, place / RUNS, number) for number, line in enumerate(lines, start=1)]
    rest = {name: getattr(report, name) for name in ("environments", "ignored", "rule_changes")}
    return runs, {**rest, "failed": sorted(report.failed), "folders": {}}
