"""Recipes: ``run``, ``validate``, ``new``, ``find-lr``, ``cp`` and ``sweep``. `recipe_commands` is what they do."""

import argparse
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from emo_hf.cli.printing import print_plain

MODELS = "EMO_HF_MODELS"
COLUMNS = {"text": "texts", "label": "classes", "prompt": "prompts", "completion": "completions"}


def add(commands: Any) -> None:
    """Adds the subcommands to those of the parser."""
    task = argparse.ArgumentParser(add_help=False)
    task.add_argument("recipe", help="a YAML file, or the name of a shipped recipe (emo-hf ls --recipes)")
    task.add_argument("--size", help="smoke, small, base or paper (default: the recipe's)")
    task.add_argument("--data-dir", type=Path, help="the folder of a data set's original files")
    task.add_argument(
        "--model-dir",
        type=Path,
        default=os.environ.get(MODELS),
        help=f"the folder of models that emo-hf fetch-models made (default: the environment's {MODELS}, else the hub)",
    )
    run_configs = argparse.ArgumentParser(add_help=False, parents=[task])
    run_configs.add_argument(
        "--seeds", "--seed", type=_seed, nargs="+", metavar="K", help="other seeds than the recipe's"
    )
    run_configs.add_argument("--arms", "--arm", nargs="+", metavar="ARM", help="only these arms")

    trains = "Trains every arm x seed that is not finished."
    run = commands.add_parser("run", parents=[run_configs], help="run a recipe", description=trains)
    run.set_defaults(command=_run)
    run.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where results go (default: runs)")
    run.add_argument("--jobs", type=_count, default=1, metavar="N", help="how many runs at once (default: 1)")
    run.add_argument("--checkpoint-every", type=_count, metavar="STEPS", help="save after so many steps")
    run.add_argument("--resume", action="store_true", help="go on from the checkpoints of runs that broke off")
    run.add_argument("--report-to", choices=["none", "trackio", "wandb"], default="none", help="live dashboard")

    check = commands.add_parser(
        "validate",
        parents=[run_configs],
        help="check a recipe, and show what it would train",
        description="Trains nothing. Checks the data and the model too with --data-dir, the model with --model-dir.",
    )
    check.set_defaults(command=_validate)

    writes = (
        "Writes a commented recipe from a data file and the name of a model, says what it guessed, and what to run"
        " next. Overwrites nothing."
    )
    new = commands.add_parser("new", help="write a recipe for data of your own", description=writes)
    new.set_defaults(command=_new)
    new.add_argument(
        "data", type=Path, metavar="DATAFILE", help=".csv, .tsv, .json, .jsonl, .parquet, .txt, or a folder"
    )
    new.add_argument(
        "--model", metavar="NAME_OR_DIR", help="of the hub, or a copy's folder (default: a small new GPT-2)"
    )
    new.add_argument("--model-dir", type=Path, default=os.environ.get(MODELS), help="as in emo-hf run")
    new.add_argument("-o", "--output", type=Path, metavar="FILE", help="a new file (default: beside the data, .yaml)")
    new.add_argument("--test", type=Path, metavar="FILE", help="what to evaluate on (default: a tenth, held out)")
    for name, meaning in COLUMNS.items():
        new.add_argument(f"--{name}", metavar="COLUMN", help=f"the column of the {meaning} (default: guessed)")

    finds = (
        "Runs only the ramp of EmoFree on the task of a recipe, which takes seconds, whatever the recipe's arms are."
        " Prints the learning rate that it found, for AdamW or as a start for another grid, and draws agreement over"
        " step size."
    )
    ramp = commands.add_parser("find-lr", parents=[task], help="find a learning rate for a recipe", description=finds)
    ramp.set_defaults(command=_find_lr, seeds=None, arms=None)
    ramp.add_argument("--seed", type=_seed, metavar="K", help="another one than the recipe's first")
    where = "a new folder (default: find-lr/<recipe>-<size>, or the first free number after it)"
    ramp.add_argument("-o", "--output", type=Path, metavar="DIR", help=where)

    copy = commands.add_parser("cp", help="copy a shipped recipe", description="Overwrites nothing.")
    copy.set_defaults(command=_copy)
    copy.add_argument("recipe", metavar="NAME", help="of a shipped recipe (emo-hf ls --recipes)")
    copy.add_argument(
        "folder", type=Path, nargs="?", default=Path(), metavar="DIR", help="default: the current folder"
    )

    agents = commands.add_parser("sweep", parents=[run_configs], help="write a recipe as a W&B sweep, for agents")
    agents.set_defaults(command=_sweep)
    agents.add_argument("-o", "--output", type=Path, metavar="FILE", help="a new file (default: print it)")


def _seed(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: expected an integer from 0 to 2**32 - 1")
    return int(text)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected an integer from 1 on")
    return int(text)


def _run(args: argparse.Namespace, console: Console) -> int:
    words = "Loading torch and transformers ..."
    if console.is_terminal:
        with console.status(words):
            from emo_hf.cli import recipe_commands
    else:
        print_plain(console, words)
        from emo_hf.cli import recipe_commands
    return recipe_commands.run(args, console)


def _validate(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.cli import recipe_commands

    return recipe_commands.validate(args, console)


def _new(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.cli import recipe_commands

    return recipe_commands.new(args, console)


def _find_lr(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.cli import recipe_commands

    return recipe_commands.find_lr(args, console)


def _copy(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.cli import recipe_commands

    return recipe_commands.copy(args, console)


def _sweep(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.cli import recipe_commands

    return recipe_commands.sweep(args, console)
