"""Small tables of a comparison, which every figure is drawn from:

    runs          arm x seed: its settings, and the judged value; read from the recipe and the summaries
    curves        arm x step: mean, standard deviation and count over the seeds of what was logged
    trajectory    arm x evaluation: the classifier's weights of one seed, projected onto a plane

`write` keeps the last two next to a report, as compressed CSV. If a seed is missing or not finite, so is the mean: the
seeds that survive are no fair sample.
"""

import gzip
import inspect
import json
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import TrainingArguments

from emo_hf import registry
from emo_hf.dashboards import jsonl
from emo_hf.dashboards.jsonl import write_whole
from emo_hf.errors import RecipeError, RecordError
from emo_hf.lab.analysis import comparison
from emo_hf.lab.analysis.comparison import Comparison
from emo_hf.lab.recipe import baselines
from emo_hf.lab.recipe.arms import Arm
from emo_hf.lab.recipe.rules import METRICS
from emo_hf.reading import GREATEST, is_number, shown
from emo_hf.run_folder import RunFolder

CURVES, TRAJECTORY = "curves.csv.gz", "trajectory.csv.gz"
COLUMNS = {  # that a table cannot do without
    CURVES: ("arm", "step"),
    TRAJECTORY: ("arm", "step", "seed", "pc1", "pc2", "share1", "share2"),
}
LOGGED = {"loss": "loss", "learning_rate": "step_size", "eval_loss": "eval_loss", "eval_accuracy": "accuracy"}
LOGGED |= {"eval_perplexity": "perplexity"}
SPREAD = (*LOGGED.values(), "fluctuation")  # have a standard deviation
WINDOW = 20  # logged values in a rolling standard deviation
LARGEST = 145_000  # bytes of the curves before they are compressed
STRIDES = (1, 2, 3, 4, 5, 8, 10, 20, 50, 100)

Folders = dict[tuple[str, int], RunFolder]  # by arm and seed


def write(results: Comparison, out: Path) -> None:
    """Writes the curves and trajectories of a comparison into the folder `out`.

    Raises:
        RecipeError: the history of a run cannot be read.
    """
    # the curves of sweeps would be too many: their final values make the basin
    singles = {key: folder for key, folder in results.folders.items() if not results.recipe.arms[key[0]].family}
    tables = {}
    if singles:
        tables[CURVES] = _thinned(curves(singles))
    if (plane := trajectory(singles)) is not None:
        tables[TRAJECTORY] = plane.to_csv(index=False, float_format="%.5g", lineterminator="\n")
    out.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        write_whole(out / name, gzip.compress(text.encode(), mtime=0))  # no date: the same numbers, the same file


def has(folder: Path, name: str) -> bool:
    """Whether `folder` has one of the tables of `write`."""
    return _path(folder, name).exists()


def read(folder: Path, name: str) -> pd.DataFrame:
    """Reads one of the tables of `write`; earlier versions did not compress them.

    Raises:
        RecipeError: it is not there, or is no table.
    """
    path = _path(folder, name)
    if not path.exists():
        raise RecipeError(f"{folder} has no {name}: expected a folder of results, as emo-hf report writes it.")
    try:
        # an arm may be called "3" or "null"
        table = pd.read_csv(path, comment="#", dtype={"arm": str}, keep_default_na=False, na_values=[""])
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise RecipeError(f"{path} is no table: {error}") from None
    columns = [*COLUMNS[name], *(f"{column}_sd" for column in SPREAD if column in table)]
    if missing := [column for column in columns if column not in table]:
        raise RecipeError(f"{path} has no column {', '.join(missing)}: make the report again.")
    if table.empty:
        raise RecipeError(f"{path} has no row: make the report again.")
    for column in table.columns.drop("arm"):
        numbers = pd.to_numeric(table[column], errors="coerce")
        wrong = ~np.isfinite(numbers) if column in COLUMNS[name] else numbers.isna() & table[column].notna()
        wrong |= numbers.abs() > GREATEST if column in ("step", "seed") else np.isinf(numbers)
        if wrong.any():
            row = int(wrong.argmax())
            value = shown(table[column].iloc[row])
            raise RecipeError(f"{path}, row {row + 1}, {shown(column)}: expected a number, got {value}.")
        table[column] = numbers
    if table["arm"].isna().any():
        raise RecipeError(f"{path}, row {int(table['arm'].isna().argmax()) + 1}: there is no arm.")
    return table


def _path(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else path.with_suffix("")


def runs(folder: Path) -> pd.DataFrame:
    """Returns one row per finished run of the comparison in `folder`: its settings, and the judged value.

    ``like`` names the first arm with the same settings, but for ``withhold_loss`` and, in a sweep, the learning rate.

    Raises:
        RecipeError: `folder` holds no comparison.
    """
    results = comparison.read(folder)
    recipe, run_configs = results.recipe, results.run_configs
    first: dict[str, str] = {}  # the first arm with some settings
    rows = []
    for run in results.runs:
        arm = run_configs[run["arm"]].arm
        exclude = {"withhold_loss", "tuning", "family", *(["lr"] if arm.family else [])}
        settings = arm.model_dump(mode="json", exclude=exclude)
        rows.append(
            {
                "arm": run["arm"],
                "seed": run["seed"],
                "like": first.setdefault(json.dumps([settings, bool(arm.family)]), run["arm"]),
                "optimizer": arm.optimizer,
                "emo": arm.has_emotion,
                "withheld": arm.withhold_loss,
                "family": arm.family,
                "lr": arm.lr,
                "default_lr": default_lr(arm),
                "baseline": run["arm"] == recipe.baseline,
                "metric": recipe.judged,
                "more_is_better": METRICS[recipe.judged],
                "value": run.get(recipe.judged),
            }
        )
    return pd.DataFrame(rows).astype({"value": float, "default_lr": float})


def default_lr(arm: Arm) -> float | None:
    """Returns the default learning rate of the arm's optimizer, or of Trainer if it takes Trainer's."""
    if arm.is_emo:
        return float(registry.find(arm.optim).options["lr"])
    if arm.optim not in baselines.ALIASES:
        return float(TrainingArguments.learning_rate)
    try:
        default = inspect.signature(baselines.load(arm.optim)).parameters["lr"].default
    except RecipeError:  # its package is not installed
        return None
    return default if isinstance(default, float | int) else None


def curves(folders: Folders) -> pd.DataFrame:
    """Returns one row per arm and step, with mean, ``_sd`` and ``_n`` (number of finite values) of all logged values.

    ``fluctuation`` is the standard deviation of the last `WINDOW` training losses of a run.
    """
    arms: dict[str, list[RunFolder]] = {}
    for (arm, _), folder in folders.items():
        arms.setdefault(arm, []).append(folder)
    return pd.concat([_curve(arm, of_arm) for arm, of_arm in arms.items()], ignore_index=True)


def _curve(arm: str, folders: list[RunFolder]) -> pd.DataFrame:
    histories = [_history(folder.history) for folder in folders]
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
    """Returns every logged number by step; nan stands for what was not finite."""
    values: dict[str, dict[int, float]] = {}
    try:
        if not path.read_bytes().endswith(jsonl.NEWLINE):
            raise RecordError("Its last line is cut off.")
        for number, row in enumerate(jsonl.iterate(path), start=1):
            for key in LOGGED.keys() & row.keys():
                if not (row[key] is None or is_number(row[key])):
                    raise RecordError(f"Line {number}, {key}: expected a number, got {shown(row[key])}.")
                values.setdefault(LOGGED[key], {})[row["step"]] = math.nan if row[key] is None else float(row[key])
    except (OSError, RecordError) as error:
        raise RecipeError(f"{path} is no history of a run: remove its folder and run again. {error}") from None
    return {name: pd.Series(values[name]) for name in LOGGED.values() if name in values}


def _moments(name: str, seeds: pd.DataFrame) -> dict[str, pd.Series]:
    return {
        name: seeds.mean(axis=1, skipna=False),
        f"{name}_sd": seeds.std(axis=1, skipna=False),
        f"{name}_n": seeds.count(axis=1),
    }


def _thinned(table: pd.DataFrame) -> str:
    """Returns `table` as CSV, with every evaluation, and as many of the other steps as `LARGEST` allows."""
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


def trajectory(folders: Folders) -> pd.DataFrame | None:
    """Returns the paths of all arms in the plane of their first two principal components, None if none was recorded.

    All arms together make the plane. The seed is the first that all of them have: other seeds start elsewhere.
    """
    recorded = {key: folder.trajectory for key, folder in folders.items() if folder.trajectory.exists()}
    arms = dict.fromkeys(arm for arm, _ in recorded)
    seeds = [{seed for other, seed in recorded if other == arm} for arm in arms]
    common = set.intersection(*seeds) if seeds else set()
    if not common:
        return None
    seed = min(common)
    parts = [(arm, *_weights(recorded[arm, seed])) for arm in arms]
    if len({weights.shape[1] for _, _, weights in parts}) > 1:
        raise RecipeError(
            f"The trajectories of seed {seed} are of classifiers of several sizes: run the recipe again."
        )
    labels = pd.DataFrame([(arm, int(step)) for arm, steps, _ in parts for step in steps], columns=["arm", "step"])
    points = np.concatenate([weights for _, _, weights in parts]).astype(np.float64)
    finite = np.isfinite(points).all(axis=1)
    labels, points = labels[finite].reset_index(drop=True), points[finite]
    if len(points) < 3:
        return None
    centred = points - points.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = (
        axes[:2] * np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    )  # else the signs are arbitrary
    plane = centred @ axes.T
    shares = sizes[:2] ** 2 / max(float((sizes**2).sum()), 1e-300)
    return labels.assign(seed=seed, pc1=plane[:, 0], pc2=plane[:, 1], share1=shares[0], share2=shares[1])


def _weights(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            steps, weights = file["steps"], file["weights"]
        if steps.ndim != 1 or steps.dtype.kind not in "iu" or weights.dtype.kind != "f":
            raise ValueError("expected whole numbers as steps, and weights")
        return steps, weights.reshape(len(steps), -1)
    except (OSError, ValueError, KeyError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RecipeError(f"{path} is no trajectory ({error}): remove its folder and run again.") from None


def differences(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns arm, seed and ``difference`` to the baseline with the same seed, from the table of `runs`."""
    baseline = runs[runs["baseline"]].set_index("seed")["value"]
    others = runs[~runs["baseline"] & runs["family"].isna() & runs["seed"].isin(baseline.index)]
    return others.assign(difference=others["value"] - others["seed"].map(baseline))[["arm", "seed", "difference"]]
