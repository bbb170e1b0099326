"""What ``run``, ``validate``, ``new``, ``find-lr``, ``cp`` and ``sweep`` do. It imports torch and transformers."""

import argparse
import errno
import itertools
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from emo_hf.cli.printing import print_plain
from emo_hf.cli.recipes import COLUMNS
from emo_hf.dashboards.jsonl import write_whole
from emo_hf.errors import RecipeError
from emo_hf.hf.probing import PICTURE
from emo_hf.lab import sources, tasks
from emo_hf.lab.analysis import comparison, results
from emo_hf.lab.analysis.results import ArmResult, Stat
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe import sweep as sweeps
from emo_hf.lab.recipe.schema import FunctionRecipe, Recipe, RunConfig, chosen_arms, chosen_size
from emo_hf.lab.report import comparison_text
from emo_hf.lab.run import functions, preflight, progress_table, ramps, runner
from emo_hf.lab.run.runner import Watch
from emo_hf.lab.tasks import first_recipe


def run(args: argparse.Namespace, console: Console) -> int:
    """Trains what is not finished, and tells the results."""
    recipe = loading.recipe(args.recipe)
    if isinstance(recipe, FunctionRecipe):
        return _run_function(recipe, args, console)
    run_configs = _cells(recipe, args)
    console.print(f"[bold]{recipe.name}[/] ({run_configs[0].size}): {escape(recipe.description)}")
    place = args.runs_dir / recipe.name / run_configs[0].size
    preflight.check(run_configs, place)  # where something is missing, nothing is written
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


def validate(args: argparse.Namespace, console: Console) -> int:
    """Tells what a recipe would train."""
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
        run_configs = _cells(recipe, args, data_dir=Path("DIR") if data.needs_folder else None)
        arms = {run_config.name: run_config.arm for run_config in run_configs}
        scale = run_configs[0].scale
        length = f"{scale.steps} steps" if scale.steps else f"{scale.epochs:g} epochs"
        seeds = len(run_configs) // len(arms)
        ending = f"Runs: {len(run_configs)} (arms: {len(arms)}, seeds: {seeds}), of {length} each."
        if args.data_dir:
            preflight.check(run_configs)
        else:
            if data.own:
                sources.examples(run_configs[0])
            if run_configs[0].model_dir:
                tasks.check_model(run_configs[0])
    for name, arm in arms.items():
        table.add_row(name, arm.optimizer, f"{arm.lr:g}", escape(str(arm.tuning)))
    console.print(table)
    print_plain(console, f"The recipe is valid. Sizes: {', '.join(recipe.sizes)}. {ending}")
    return 0


def new(args: argparse.Namespace, console: Console) -> int:
    """Writes a recipe for data of one's own."""
    data = args.data if args.data.name not in ("", "..") else args.data.resolve()
    output = args.output or data.with_suffix(".yaml")
    if output.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(output))
    given = {name: column for name in COLUMNS if (column := getattr(args, name))}
    made = first_recipe.write(data, args.model, output, given, args.test, args.model_dir)
    with output.open("x", encoding="utf-8") as file:
        file.write(made.text)
    try:
        loading.recipe(str(output))
    except RecipeError:  # what a file or a column is called, a recipe cannot hold
        output.unlink()
        raise
    for reason in made.reasons:
        print_plain(console, f"Guessed: {reason}.")
    print_plain(console, f"Written: {output}. Read it, and then:")
    command = f"emo-hf run {shlex.quote(str(output))}"
    print_plain(console, f"  {command} --size smoke --seeds 0{made.options}   # about a minute: does it run?")
    print_plain(console, f"  {command}{made.options}   # the comparison")
    return 0


def find_lr(args: argparse.Namespace, console: Console) -> int:
    """Runs the ramp of EmoFree on the task of a recipe, and tells the rate that it found."""
    recipe = loading.recipe(args.recipe)
    if isinstance(recipe, FunctionRecipe):
        raise RecipeError(f"{recipe.name} descends a function, without noise: give a recipe that trains a model.")
    args.seeds = [recipe.seeds[0] if args.seed is None else args.seed]
    run_config = ramps.of_task(_cells(recipe, args)[0])
    preflight.check([run_config])
    folder = args.output or _first_free(Path("find-lr", f"{recipe.name}-{run_config.size}"))
    if folder.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
    found = ramps.find(run_config, folder)
    print_plain(console, f"{recipe.name} ({run_config.size}), seed {run_config.seed}: {found}")
    print_plain(console, f"Learning rate for AdamW: {found.lr:.2g}")
    print_plain(console, f"Drawn: {folder / PICTURE}")
    return 0


def _first_free(folder: Path) -> Path:
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([folder], numbered) if not path.exists())


def copy(args: argparse.Namespace, console: Console) -> int:
    """Copies a shipped recipe."""
    source = loading.find(args.recipe)
    target = args.folder / source.name
    text = loading.standalone(source, target.name)
    args.folder.mkdir(parents=True, exist_ok=True)
    with target.open("x", encoding="utf-8") as file:
        file.write(text)
    print_plain(console, f"Written: {target}")
    return 0


def sweep(args: argparse.Namespace, console: Console) -> int:
    """Writes a recipe as a W&B sweep."""
    recipe = loading.recipe(args.recipe)
    if isinstance(recipe, FunctionRecipe):
        raise RecipeError(f"{recipe.name} descends a function, in seconds: use emo-hf run.")
    run_configs = _cells(recipe, args)
    if args.data_dir is None:  # each agent finds the recipe's folder by itself
        run_configs = [run_config.model_copy(update={"data_dir": None}) for run_config in run_configs]
    text = sweeps.text(run_configs, args.recipe, recipe.description)
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
    elif recipe.task.data.own:
        data_dir = loading.find(args.recipe).parent.resolve()
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
    table = Table(
        caption="means over n seeds, ± standard deviation; step size: median of a run; seconds: of its training"
    )
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
