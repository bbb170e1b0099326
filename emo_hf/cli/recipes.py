"""Recipes: ``run``, ``validate``, ``cp`` and ``sweep``."""

import argparse
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from emo_hf.cli.printing import print_plain
from emo_hf.dashboards.jsonl import write_whole
from emo_hf.errors import RecipeError
from emo_hf.lab import tasks
from emo_hf.lab.analysis import comparison, results
from emo_hf.lab.analysis.results import ArmResult, Stat
from emo_hf.lab.recipe import loading, sweep
from emo_hf.lab.recipe.schema import FunctionRecipe, Recipe, RunConfig, chosen_arms, chosen_size
from emo_hf.lab.report import comparison_text
from emo_hf.lab.run import functions, preflight, progress_table, runner
from emo_hf.lab.run.runner import Watch

MODELS = "EMO_HF_MODELS"


def add(commands: Any) -> None:
    """Adds the subcommands to those of the parser."""
    run_configs = argparse.ArgumentParser(add_help=False)
    run_configs.add_argument("recipe", help="a YAML file, or the name of a shipped recipe (emo-hf ls --recipes)")
    run_configs.add_argument("--size", help="smoke, small, base or paper (default: the recipe's)")
    run_configs.add_argument("--data-dir", type=Path, help="the folder of a data set's original files")
    run_configs.add_argument(
        "--model-dir",
        type=Path,
        default=os.environ.get(MODELS),
        help=f"the folder of models that emo-hf fetch-models made (default: the environment's {MODELS}, else the hub)",
    )
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
    recipe = loading.recipe(args.recipe)
    if isinstance(recipe, FunctionRecipe):
        return _run_function(recipe, args, console)
    run_configs = _cells(recipe, args)
    console.print(f"[bold]{recipe.name}[/] ({run_configs[0].size}): {escape(recipe.description)}")
    place = args.runs_dir / recipe.name / run_configs[0].size
    preflight.check(run_configs)  # where something is missing, nothing is written
    comparison.record(place, recipe, args.recipe)
    settings = runner.Settings(args.report_to, args.jobs, args.checkpoint_every, args.resume)
    with _shown(console) as watch:
        outcomes = runner.run(run_configs, args.runs_dir, settings, watch)
    failed = [outcome for outcome in outcomes if outcome.error]
    summaries = {outcome.folder: outcome.summary for outcome in outcomes if outcome.summary is not None}
    if summaries:
        console.print(_results(results.table(summaries.values()), recipe.judged))
        for line in comparison_text.ending(comparison.read(place, summaries)):
            print_plain(console, line)
    for outcome in failed:
        console.print(
            f"[bold red]failed:[/] {outcome.run_config.name} seed {outcome.run_config.seed}:"
            f" {escape(outcome.error or '')}"
        )
        print_plain(console, f"        see {outcome.folder.log}")
    if skipped := sum(outcome.skipped for outcome in outcomes):
        print_plain(console, f"{skipped} of {len(outcomes)} runs were finished before.")
    print_plain(console, f"Results: {outcomes[0].folder.comparison}")
    return 1 if failed else 0


def _validate(args: argparse.Namespace, console: Console) -> int:
    recipe = loading.recipe(args.recipe)
    size, names = chosen_size(recipe, args.size), chosen_arms(recipe, args.arms)
    table = Table(title=f"{recipe.name} ({size})", caption=escape(recipe.description))
    for column in ("arm", "optimizer", "lr", "tuning"):
        table.add_column(column)
    if isinstance(recipe, FunctionRecipe):
        _refuse_idle(recipe, args)
        arms = {name: recipe.arms[name] for name in names}
        ending = f"Paths: {len(arms)}, of {recipe.sizes[size].steps} steps each."
    else:
        data = recipe.task.data
        run_configs = _cells(recipe, args, data_dir=Path("DIR") if data.files and not data.hub else None)
        arms = {run_config.name: run_config.arm for run_config in run_configs}
        scale = run_configs[0].scale
        length = f"{scale.steps} steps" if scale.steps else f"{scale.epochs:g} epochs"
        seeds = len(run_configs) // len(arms)
        ending = f"Runs: {len(run_configs)} (arms: {len(arms)}, seeds: {seeds}), of {length} each."
        if args.data_dir:
            preflight.check(run_configs)
        elif run_configs[0].model_dir:
            tasks.check_model(run_configs[0])
    for name, arm in arms.items():
        table.add_row(name, arm.optimizer, f"{arm.lr:g}", escape(str(arm.tuning)))
    console.print(table)
    print_plain(console, f"The recipe is valid. Sizes: {', '.join(recipe.sizes)}. {ending}")
    return 0


def _copy(args: argparse.Namespace, console: Console) -> int:
    source = loading.find(args.recipe)
    target = args.folder / source.name
    text = loading.standalone(source, target.name)
    args.folder.mkdir(parents=True, exist_ok=True)
    with target.open("x", encoding="utf-8") as file:
        file.write(text)
    print_plain(console, f"Written: {target}")
    return 0


def _sweep(args: argparse.Namespace, console: Console) -> int:
    recipe = loading.recipe(args.recipe)
    if isinstance(recipe, FunctionRecipe):
        raise RecipeError(f"{recipe.name} descends a function, in seconds: use emo-hf run.")
    text = sweep.text(_cells(recipe, args), args.recipe, recipe.description)
    if args.output is None:
        print_plain(console, text, end="")
        return 0
    if args.output.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(args.output))
    write_whole(args.output, text.encode())
    print_plain(console, f"Written: {args.output}")
    return 0


def _cells(recipe: Recipe, args: argparse.Namespace, data_dir: Path | None = None) -> list[RunConfig]:
    if args.data_dir:
        data_dir = args.data_dir.resolve()
    return recipe.run_configs(
        args.size, args.arms, args.seeds, data_dir, args.model_dir.resolve() if args.model_dir else None
    )


def _refuse_idle(recipe: FunctionRecipe, args: argparse.Namespace) -> None:
    if args.data_dir or args.seeds or getattr(args, "report_to", "none") != "none":
        raise RecipeError(f"{recipe.name} descends a function: leave out --data-dir, --seeds and --report-to.")


def _run_function(recipe: FunctionRecipe, args: argparse.Namespace, console: Console) -> int:
    _refuse_idle(recipe, args)
    path = functions.run(recipe, args.runs_dir, args.size, args.arms)
    result = functions.read(path)
    table = Table(title=recipe.name, caption=f"mean distance of the last {functions.SETTLED} points to the minimum")
    for column in ("arm", "lr", recipe.metric):
        table.add_column(column)
    tunings: dict[str, list[str]] = {}
    for arm in result.paths:
        table.add_row(arm.arm, f"{arm.lr:g}", f"{arm.distance:.2g}")
        tunings.setdefault(arm.tuning, []).append(arm.arm)
    console.print(table)
    for tuning, arms in tunings.items():
        print_plain(console, f"{tuning}: {', '.join(arms)}")
    print_plain(console, f"Results: {path}. Draw them: emo-hf plot functions {path}")
    return 0


@contextmanager
def _shown(console: Console) -> Iterator[Watch]:
    """Yields what shows the runs: a live table on a terminal, elsewhere one line for each run that has ended."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as shown:
            yield lambda progress: shown.update(progress_table.table(progress), refresh=True)
        return
    news = progress_table.News()

    def tell(progress: runner.Progress) -> None:
        for line in news.lines(progress):
            print_plain(console, line)

    yield tell


def _results(rows: list[ArmResult], metric: str) -> Table:
    table = Table(caption="means over n seeds, ± standard deviation; step size: median of a run")
    judged = list(dict.fromkeys([metric, "eval_loss"]))
    for column in ("arm", "n", *judged, "step size", "seconds"):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
    table.add_column("tuning", min_width=10)
    for row in rows:
        numbers = [_number(row.stat(name), ".3f") for name in judged]
        means = (("step_size_median", ".1e"), ("seconds", ".0f"))
        numbers += [_number(row.stat(name), form, spread=False) for name, form in means]
        table.add_row(row.arm, str(row.n), *numbers, escape(row.tuning))
    return table


def _number(stat: Stat | None, form: str, spread: bool = True) -> str:
    if stat is None:
        return "-"
    if stat.mean is None:
        return "not finite"
    return stat.text(form) if spread else f"{stat.mean:{form}}"
