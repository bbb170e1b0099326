"""What the runs of a comparison left behind, as small tables that every figure is drawn from:

    runs.csv         arm x seed: its settings, and the number that the comparison is about
    curves.csv       arm x step: mean, standard deviation and count over the seeds of what was logged
    trajectory.csv   arm x evaluation: the way of the classifier of one seed, in the plane that shows most of it

A mean over seeds of which one is missing or not finite is missing: those that survive are no fair sample.
"""

import inspect
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import TrainingArguments

from emo_hf import registry
from emo_hf.dashboards.jsonl import write_whole
from emo_hf.errors import RecipeError
from emo_hf.lab.analysis import comparison
from emo_hf.lab.recipe import baselines, loading
from emo_hf.lab.recipe.arms import Arm
from emo_hf.lab.recipe.rules import METRICS
from emo_hf.lab.recipe.schema import Recipe, RunConfig
from emo_hf.run_folder import RunFolder

RUNS, CURVES, TRAJECTORY = "runs.csv", "curves.csv", "trajectory.csv"
LOGGED = {"loss": "loss", "eval_loss": "eval_loss", "eval_accuracy": "accuracy", "eval_perplexity": "perplexity"}
WINDOW = 20  # logged values in a rolling standard deviation
LARGEST = 145_000  # bytes of curves.csv
STRIDES = (1, 2, 3, 4, 5, 8, 10, 20, 50, 100)


@dataclass(frozen=True, slots=True)
class RunHistory:
    """One finished run."""

    folder: RunFolder
    run_config: RunConfig
    summary: dict[str, Any]


def recipe(folder: Path) -> Recipe | None:
    """Returns the recipe of a comparison's folder as it was when the runs started, if it was kept."""
    return loading.recipe(str(folder / comparison.RECIPE)) if comparison.is_comparison_folder(folder) else None


def finished(folder: Path) -> list[RunHistory]:
    """Returns the finished runs of a comparison, RUNS/<recipe>/<size>, in the order of the recipe.

    Runs of other settings than the recipe has now are left out, as the report does.

    Raises:
        RecipeError: there is none, or one cannot be read.
    """
    of, found = recipe(folder), []
    for run_folder, run_config in comparison.run_folders(folder):
        if run_config is None or not (of is None or of.matches(run_config)):
            continue
        if (summary := run_folder.read_summary()) is not None:
            found.append(RunHistory(run_folder, run_config, summary))
    if not found:
        raise RecipeError(f"{folder} holds no finished run: expected RUNS/<recipe>/<size>, as emo-hf run leaves it.")
    order = {name: place for place, name in enumerate(of.arms if of else [])}
    return sorted(
        found, key=lambda run: (order.get(run.run_config.name, len(order)), run.run_config.name, run.run_config.seed)
    )


def write(folder: Path, out: Path) -> None:
    """Writes the tables of the comparison in `folder` into the folder `out`."""
    runs = finished(folder)
    singles = [
        run for run in runs if not run.run_config.arm.family
    ]  # sweeps would be too many lines: they make the basin
    settings, way = described(runs, recipe(folder)), trajectory(singles)
    lines = _thinned(curves(singles)) if singles else None
    out.mkdir(parents=True, exist_ok=True)  # from here on nothing can be unreadable
    write_whole(out / RUNS, settings.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())
    if lines is not None:
        write_whole(out / CURVES, lines.encode())
    if way is not None:
        write_whole(out / TRAJECTORY, way.to_csv(index=False, float_format="%.5g", lineterminator="\n").encode())


def read(folder: Path, name: str) -> pd.DataFrame:
    """Reads one of the tables of `write`.

    Raises:
        RecipeError: it is not there, or is no table.
    """
    path = folder / name
    if not path.exists():
        raise RecipeError(f"{folder} has no {name}: expected a folder of results, as emo-hf report writes it.")
    try:
        words = dict.fromkeys(("arm", "like", "family"), str)  # an arm may be called "3" or "null"
        return pd.read_csv(path, comment="#", dtype=words, keep_default_na=False, na_values=[""])
    except (ValueError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is no table: {error}") from None


def described(runs: list[RunHistory], of: Recipe | None) -> pd.DataFrame:
    """Returns one row per run: what a figure has to know of its arm, and its result.

    ``like`` names the first arm with the same settings, but for ``withhold_loss`` and, in a sweep, the learning rate.
    """
    first: dict[str, str] = {}
    rows = []
    for run in runs:
        arm, metric = run.run_config.arm, of.judged if of else run.run_config.task.metric
        settings = arm.model_dump(
            mode="json", exclude={"withhold_loss", "tuning", "family", *(["lr"] if arm.family else [])}
        )
        rows.append(
            {
                "arm": run.run_config.name,
                "seed": run.run_config.seed,
                "like": first.setdefault(json.dumps([settings, bool(arm.family)]), run.run_config.name),
                "optimizer": arm.optimizer,
                "emo": arm.has_emotion,
                "feed": not arm.withhold_loss,
                "family": arm.family,
                "lr": arm.lr,
                "default_lr": default_lr(arm),
                "baseline": of is not None and run.run_config.name == of.baseline,
                "metric": metric,
                "more_is_better": METRICS[metric],
                "value": run.summary.get(metric),
            }
        )
    return pd.DataFrame(rows)


def default_lr(arm: Arm) -> float | None:
    """Returns the learning rate that the arm's optimizer has if nobody gives one: its own, or Trainer's."""
    if arm.is_emo:
        return registry.find(arm.optim).options["lr"]
    if arm.optim not in baselines.ALIASES:
        return TrainingArguments.learning_rate
    try:
        default = inspect.signature(baselines.load(arm.optim)).parameters["lr"].default
    except RecipeError:  # its package is not installed
        return None
    return default if isinstance(default, float | int) else None


def curves(runs: list[RunHistory]) -> pd.DataFrame:
    """Returns one row per arm and step, with mean, ``_sd`` and ``_n`` (finite values) of everything that was logged.

    ``fluctuation`` is the standard deviation of the last `WINDOW` training losses of a run.
    """
    arms: dict[str, list[RunHistory]] = {}
    for run in runs:
        arms.setdefault(run.run_config.name, []).append(run)
    return pd.concat([_curve(arm, of_arm) for arm, of_arm in arms.items()], ignore_index=True)


def _curve(arm: str, runs: list[RunHistory]) -> pd.DataFrame:
    histories = [_history(run.folder.history) for run in runs]
    columns: dict[str, pd.Series] = {}
    for name in dict.fromkeys(name for history in histories for name in history):
        seeds = pd.DataFrame(dict(enumerate(history.get(name, pd.Series(dtype=float)) for history in histories)))
        columns |= _moments(name, seeds.sort_index())
        if name == "loss":
            rolling = _moments("fluctuation", seeds.sort_index().rolling(WINDOW).std())
            columns |= {key: rolling[key] for key in ("fluctuation", "fluctuation_sd")}
    table = pd.DataFrame(columns)
    table.index.name = "step"
    table = table.reset_index()
    table.insert(0, "arm", arm)
    return table


def _history(path: Path) -> dict[str, pd.Series]:
    """Returns every logged number by step; what was not finite is nan."""
    found: dict[str, dict[int, float]] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for key in LOGGED.keys() & row.keys():
                found.setdefault(LOGGED[key], {})[row["step"]] = math.nan if row[key] is None else float(row[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path} is no history of a run ({error}): remove its folder and run again.") from None
    return {name: pd.Series(found[name]) for name in LOGGED.values() if name in found}


def _moments(name: str, seeds: pd.DataFrame) -> dict[str, pd.Series]:
    return {
        name: seeds.mean(axis=1, skipna=False),
        f"{name}_sd": seeds.std(axis=1, skipna=False),
        f"{name}_n": seeds.count(axis=1),
    }


def _thinned(table: pd.DataFrame) -> str:
    """Returns `table` as CSV, with every evaluation but so few of the other steps that it stays small."""
    evaluated = table["eval_loss_n"].notna() if "eval_loss_n" in table else False
    for name in [name for name in table if name.endswith("_n")]:
        table[name] = table[name].astype("Int64")  # empty where there was no evaluation
    for stride in STRIDES:
        kept = table[evaluated | (table["step"] % stride == 0) | (table["step"] == table["step"].min())]
        steps = "every step" if stride == 1 else f"every {stride} steps, and evaluations"
        head = (
            f"# {steps}; mean, sd and n (finite values) over the seeds;"
            f" fluctuation: sd of the last {WINDOW} training losses of a run, before thinning\n"
        )
        text = head + kept.to_csv(index=False, float_format="%.4g", lineterminator="\n")
        if len(text) <= LARGEST:
            break
    return text


def trajectory(runs: list[RunHistory]) -> pd.DataFrame | None:
    """Returns the ways of all arms in the plane of their first two principal components, None if none was recorded.

    All arms together make the plane. The seed is the first that all of them have: other seeds start elsewhere.
    """
    recorded = [run for run in runs if run.folder.trajectory.exists()]
    arms = dict.fromkeys(run.run_config.name for run in recorded)
    seeds = [{run.run_config.seed for run in recorded if run.run_config.name == arm} for arm in arms]
    common = set.intersection(*seeds) if seeds else set()
    if not common:
        return None
    seed = min(common)
    parts = [
        (run.run_config.name, *_weights(run.folder.trajectory)) for run in recorded if run.run_config.seed == seed
    ]
    labels = pd.DataFrame([(arm, int(step)) for arm, steps, _ in parts for step in steps], columns=["arm", "step"])
    points = np.concatenate([weights for _, _, weights in parts]).astype(np.float64)
    finite = np.isfinite(points).all(axis=1)
    labels, points = labels[finite].reset_index(drop=True), points[finite]
    if len(points) < 3:
        return None
    centred = points - points.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]  # else a sign is chance
    plane = centred @ axes.T
    shares = sizes[:2] ** 2 / max(float((sizes**2).sum()), 1e-300)
    return labels.assign(seed=seed, pc1=plane[:, 0], pc2=plane[:, 1], share1=shares[0], share2=shares[1])


def _weights(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["steps"], file["weights"].reshape(len(file["steps"]), -1)
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(f"{path} is no trajectory ({error}): remove its folder and run again.") from None


def differences(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns arm, seed and ``difference`` to the baseline with the same seed, from the table `RUNS`."""
    baseline = runs[runs["baseline"]].set_index("seed")["value"]
    others = runs[~runs["baseline"] & runs["family"].isna() & runs["seed"].isin(baseline.index)]
    return others.assign(difference=others["value"] - others["seed"].map(baseline))[["arm", "seed", "difference"]]
