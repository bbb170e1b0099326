"""How flat EmoFree's results are around each of its constants, on training examples held out by ``recipes/tuning``.

    python -m scripts.emofree_constants --data-dir DIR      trains what is not on record yet
    python -m scripts.emofree_constants                     only writes the table anew

The runs are rows of ``docs/emofree_constants.csv``. The table stands in ``docs/emofree.md``, between
``<!-- constants -->`` and ``<!-- end -->``. A test compares the two.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from emo_hf import free
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.arms import Arm
from emo_hf.lab.recipe.schema import Recipe
from emo_hf.lab.run.training import train
from emo_hf.run_folder import RunFolder
from scripts.marked import between

RUNS, PAGE = Path("docs/emofree_constants.csv"), Path("docs/emofree.md")
TABLE = between("constants")
TASKS, SEEDS, FACTORS = ("trec", "shakespeare", "fashion"), (100, 101), (0.5, 2.0)
CONSTANTS = ("START", "NOISE_STOP", "PACE", "SPENT", "KEPT", "TRUSTED", "BRAKE")
NONE = "none"  # stands for the constants as they are
COLUMNS = ["constant", "factor", "task", "seed", "eval_loss"]
Run = tuple[str, float, str, int]  # what `COLUMNS` has before the loss
ARM = {"optim": "emofree", "lr": 1.0, "schedule": "linear", "warmup": 0.1, "tuning": "untuned"}


def wanted() -> list[Run]:
    """Returns all runs of the table: each constant by each factor, and the constants as they are."""
    changes = [(NONE, 1.0), *((name, factor) for name in CONSTANTS for factor in FACTORS)]
    return [(*change, task, seed) for seed in SEEDS for task in TASKS for change in changes]


def loss_of(run: Run, data_dir: Path) -> float:
    """Trains `run` in this process; returns its loss on the examples that were held out."""
    name, factor, task, seed = run
    recipe = loading.recipe(f"recipes/tuning/{task}.yaml")
    assert isinstance(recipe, Recipe)
    first = recipe.run_configs(seeds=[seed], data_dir=data_dir)[0]
    run_config = first.model_copy(update={"arm": Arm.model_validate(ARM), "name": "emofree"})
    before = getattr(free, name, None)
    if before is not None:
        scaled = tuple(factor * value for value in before) if isinstance(before, tuple) else factor * before
        setattr(free, name, scaled)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return float(train(run_config, RunFolder(Path(folder)), "none")["eval_loss"])
    finally:
        if before is not None:
            setattr(free, name, before)


def table(runs: pd.DataFrame) -> str:
    """Returns the Markdown table: the loss in percent of that with the constants as they are, seed by seed."""
    runs = runs[runs["seed"].isin(SEEDS)]
    key = ["task", "seed"]
    plain = runs[runs["constant"] == NONE].set_index(key)["eval_loss"]
    rows = [f"| constant | factor | {' | '.join(TASKS)} |", f"|---|---|{'---|' * len(TASKS)}"]
    for (name, factor), changed in runs[runs["constant"] != NONE].groupby(["constant", "factor"], sort=False):
        losses = changed.set_index(key)["eval_loss"]
        change = 100 * (losses / plain.loc[losses.index] - 1)
        of_tasks = change.groupby("task")
        cells = [f"{of_tasks.mean()[task]:+.1f} % ± {of_tasks.std()[task]:.1f}" for task in TASKS]
        rows.append(f"| `{name}` | {factor:g} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def filled(page: str, runs: pd.DataFrame) -> str:
    """Returns the page with its table written anew."""
    return TABLE.sub(lambda match: match[1] + table(runs) + match[3], page)


def _train(data_dir: Path) -> None:
    if not RUNS.exists():
        RUNS.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    done = {tuple(row) for row in pd.read_csv(RUNS)[COLUMNS[:-1]].itertuples(index=False)}
    for run in wanted():
        if run not in done:
            row: tuple[Any, ...] = (*run, f"{loss_of(run, data_dir):.6g}")
            with RUNS.open("a", encoding="utf-8") as file:
                file.write(",".join(map(str, row)) + "\n")


def main() -> None:
    """Trains what is missing, if there is a folder of data, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="see recipes/README.md")
    args = parser.parse_args()
    if args.data_dir:
        _train(args.data_dir)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), pd.read_csv(RUNS)), encoding="utf-8")


if __name__ == "__main__":
    main()
