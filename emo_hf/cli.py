"""The command line:

    emo-hf run recipes/quickstart.yaml      trains every arm of a recipe and ends with a table
    emo-hf sweep recipes/quickstart.yaml    the same as a W&B sweep, for agents on several machines
    emo-hf ls                               the optimizers
    emo-hf show emosens-3.9                 one of them
    emo-hf plot coefficients                what the laws answer to the loss
    emo-hf plot functions FILE              the paths that a recipe of recipes/functions/ found
    emo-hf plot loss DIR                    curves of a comparison, from a folder of results; also fluctuation,
                                            three-panel, trajectory, basin, differences
    emo-hf dashboard push --entity ME --project MINE      the W&B workspace, saved where you look at it
    emo-hf report RUNS/<recipe>/<size>      the verdict on a recipe's claim, its tables, and the numbers behind them
    emo-hf report RUN [RUN ...]             one HTML file with the curves of one run or several
    emo-hf card RUNS/<recipe>/<size>/<arm>  the model card of an arm
    emo-hf watch RUN                        a run under way, in the terminal

Exit codes: 0, 1 a run failed, 2 the input cannot be used, 130 interrupted.
"""

import argparse
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

import emo_hf
from emo_hf import catalog
from emo_hf.dashboards import report, workspace
from emo_hf.dashboards.watch import watch
from emo_hf.errors import EmoError, RecipeError
from emo_hf.lab import (
    card,
    card_data,
    comparison,
    comparison_report,
    comparison_text,
    functions,
    histories,
    live,
    load,
    pages,
    results,
    runner,
    sweep,
)
from emo_hf.lab.results import Row, Stat
from emo_hf.lab.runner import Watch
from emo_hf.lab.spec import Cell, FunctionRecipe, Recipe

RESULTS = {  # pictures of a folder of results
    "loss": "training and validation loss",
    "fluctuation": "fluctuation of the training loss; accuracy or perplexity",
    "three-panel": "accuracy of one comparison, perplexity of another, the way of the first one's classifier",
    "trajectory": "the way of the classifier in a plane",
    "basin": "the final number over the learning rate, for recipes with a sweep",
    "differences": "the final number minus the baseline's",
}


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
    args = _parser().parse_args(argv)
    errors = Console(stderr=True, soft_wrap=True)
    handler = RichHandler(console=errors, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    try:
        return args.command(args, Console())
    except EmoError as error:
        errors.print(f"[bold red]emo-hf:[/] {escape(str(error))}")
        return 2
    except OSError as error:  # a folder that cannot be written, no space left
        errors.print(f"[bold red]emo-hf:[/] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        errors.print("Interrupted. Finished runs are kept; the same command goes on with the rest.")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emo-hf", description="Emotion-driven optimizers for Hugging Face Trainer.")
    parser.add_argument("--version", action="version", version=f"emo-hf {emo_hf.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    cells = argparse.ArgumentParser(add_help=False)
    cells.add_argument("recipe", help="a YAML file, or the name of one below recipes/")
    cells.add_argument("--size", help="smoke, small or paper, as far as the recipe has them (default: the recipe's)")
    cells.add_argument("--data-dir", type=Path, help="folder of original files, or of one folder a set")
    cells.add_argument("--seeds", "--seed", type=_seed, nargs="+", metavar="K", help="other seeds than the recipe's")
    cells.add_argument("--arms", "--arm", nargs="+", metavar="ARM", help="only these arms")

    trains = "Trains every arm x seed that is not finished."
    run = commands.add_parser("run", parents=[cells], help="run a recipe", description=trains)
    run.set_defaults(command=_run)
    run.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where results go (default: runs)")
    run.add_argument("--jobs", type=_count, default=1, metavar="N", help="so many runs at once (default: 1)")
    run.add_argument("--checkpoint-every", type=_count, metavar="STEPS", help="save so often (default: never)")
    run.add_argument("--resume", action="store_true", help="go on from the checkpoints of runs that broke off")
    run.add_argument("--report-to", choices=["none", "trackio", "wandb"], default="none", help="live dashboard")

    sweep = commands.add_parser("sweep", parents=[cells], help="write a recipe as a W&B sweep, for agents")
    sweep.set_defaults(command=_sweep)
    sweep.add_argument("-o", "--output", type=Path, metavar="FILE", help="a new file (default: print it)")

    ls = commands.add_parser("ls", help="list the optimizers")
    ls.set_defaults(command=_ls)
    show = commands.add_parser("show", help="show one optimizer")
    show.set_defaults(command=_show)
    show.add_argument("name", help="e.g. emosens or emosens-3.7")
    show.add_argument("--markdown", action="store_true", help="as it stands in docs/optimizers/, with its formulas")

    kinds = commands.add_parser("plot", help="draw a picture").add_subparsers(required=True, metavar="picture")
    coefficients = kinds.add_parser("coefficients", help="factors and pulses of all generations")
    coefficients.set_defaults(command=_plot_coefficients)
    functions = kinds.add_parser("functions", help="paths over a test function")
    functions.set_defaults(command=_plot_functions)
    functions.add_argument("paths", type=Path, help="a paths.json of emo-hf run")
    drawn = [_plot_results(kinds, name, text) for name, text in RESULTS.items()]
    for kind in (coefficients, functions, *drawn):
        kind.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: a PNG in the current folder")

    dashboard = commands.add_parser("dashboard", help="the W&B workspace")
    actions = dashboard.add_subparsers(required=True, metavar="action")
    actions.add_parser("show", help="print its specification").set_defaults(command=_show_dashboard)
    push = actions.add_parser("push", help="save it in W&B and print its address")
    push.set_defaults(command=_push_dashboard)
    push.add_argument("--entity", required=True, help="user or team")
    push.add_argument("--project", required=True, help="e.g. huggingface, Trainer's default")
    push.add_argument("--update", metavar="URL", help="a view that it replaces (default: a new view)")

    text = (
        "Of a comparison's folder, RUNS/<recipe>/<size> or one that this has written: the verdict by the recipe's"
        " rule, its tables and the numbers behind them, as Markdown, HTML (with the PNG files in DIR) and JSON. Of"
        " anything else, or with -o FILE.html: one HTML file with the curves of all runs."
    )
    report = commands.add_parser("report", help="the verdict of a comparison, or the curves of runs", description=text)
    report.set_defaults(command=_report)
    places = "a comparison's folder, a run folder, a folder of runs, trainer_state.json or a W&B run"
    report.add_argument("runs", nargs="+", metavar="RUN", type=Path, help=places)
    where = "default: RUN/report for a comparison's runs, RUN for what this has written, else report.html"
    report.add_argument("-o", "--output", type=Path, metavar="DIR", help=where)
    report.add_argument("--png", action="store_true", help="a picture beside it, for a model card")
    card = commands.add_parser("card", help="the model card of an arm", description="One arm of a recipe, all seeds.")
    card.set_defaults(command=_card)
    text = "the runs of an arm (RUNS/<recipe>/<size>/<arm>), or a comparison's folder or results with --arm"
    card.add_argument("folder", type=Path, metavar="RUNS", help=text)
    card.add_argument("--arm", help="which, where there are several")
    card.add_argument("--license", help="of the model, as the hub spells it")
    card.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: <recipe>-<size>-<arm>.md")
    card.add_argument("-f", "--force", action="store_true", help="replace the card and its picture")
    watch = commands.add_parser("watch", help="show a run under way in the terminal", description="Ctrl-C ends it.")
    watch.set_defaults(command=_watch_run)
    watch.add_argument("run", metavar="RUN", type=Path, help="a run folder, or a folder of runs: the newest of them")
    watch.add_argument("--once", action="store_true", help="show what is there and return")
    return parser


def _plot_results(kinds: Any, name: str, text: str) -> argparse.ArgumentParser:
    kind = kinds.add_parser(name, help=text)
    kind.set_defaults(command=_plot_comparison, picture=name)
    folder = "a folder of results with curves.csv and runs.csv"
    if name == "three-panel":
        kind.add_argument("folders", type=Path, nargs=2, metavar=("DIR_TREC", "DIR_LM"), help=folder)
    else:
        kind.add_argument("folders", type=Path, nargs=1, metavar="DIR", help=folder)
    return kind


def _seed(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: expected an integer from 0 to 2**32 - 1")
    return int(text)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected an integer from 1 on")
    return int(text)


def _run(args: argparse.Namespace, console: Console) -> int:
    recipe = load.recipe(args.recipe)
    if isinstance(recipe, FunctionRecipe):
        return _run_function(recipe, args, console)
    cells = _cells(recipe, args)
    console.print(f"[bold]{recipe.name}[/] ({cells[0].size}): {escape(recipe.description)}")
    place = args.runs_dir / recipe.name / cells[0].size
    comparison.record(place, recipe, cells[0], args.recipe)
    settings = runner.Settings(args.report_to, args.jobs, args.checkpoint_every, args.resume)
    with _shown(console) as watch:
        outcomes = runner.run(cells, args.runs_dir, settings, watch)
    failed = [outcome for outcome in outcomes if outcome.error]
    rows = results.table(results.read(outcome.folder for outcome in outcomes))
    if rows:
        console.print(_results(rows, recipe.judged))
        for line in comparison_text.ending(comparison.read(place)):
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    for outcome in failed:
        console.print(f"[bold red]failed:[/] {outcome.cell.name} seed {outcome.cell.seed}: {escape(outcome.error)}")
        console.print(f"        see {outcome.folder / 'log.txt'}", soft_wrap=True)
    if skipped := sum(outcome.skipped for outcome in outcomes):
        console.print(f"{skipped} of {len(outcomes)} runs were finished before.")
    console.print(f"Results: {outcomes[0].folder.parents[1]}", soft_wrap=True)
    return 1 if failed else 0


def _sweep(args: argparse.Namespace, console: Console) -> int:
    recipe = load.recipe(args.recipe)
    if isinstance(recipe, FunctionRecipe):
        raise RecipeError(f"{recipe.name} descends a function, in seconds: use emo-hf run.")
    text = sweep.text(_cells(recipe, args), args.recipe, recipe.description)
    if args.output is None:
        console.print(text, end="", markup=False, highlight=False, soft_wrap=True)
        return 0
    with args.output.open("x", encoding="utf-8") as file:  # never over a file
        file.write(text)
    console.print(f"Written: {args.output}", soft_wrap=True)
    return 0


def _cells(recipe: Recipe, args: argparse.Namespace) -> list[Cell]:
    data_dir = args.data_dir.resolve() if args.data_dir else None
    return recipe.cells(args.size, args.arms, args.seeds, data_dir)


def _run_function(recipe: FunctionRecipe, args: argparse.Namespace, console: Console) -> int:
    if args.data_dir or args.seeds or args.report_to != "none":
        raise RecipeError(f"{recipe.name} descends a function: leave out --data-dir, --seeds and --report-to.")
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
        console.print(f"{escape(tuning)}: {', '.join(arms)}", soft_wrap=True)
    console.print(f"Results: {path}. Draw them: emo-hf plot functions {path}", soft_wrap=True)
    return 0


@contextmanager
def _shown(console: Console) -> Iterator[Watch]:
    """Yields what shows the runs: a table that changes on a terminal, elsewhere a line for each that has ended."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as shown:
            yield lambda board: shown.update(live.table(board), refresh=True)
        return
    news = live.News()

    def tell(board: runner.Board) -> None:
        for line in news.lines(board):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    yield tell


def _results(rows: list[Row], metric: str) -> Table:
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
    return f"{stat.mean:{form}}" + (f" ± {stat.sd:{form}}" if spread and stat.sd is not None else "")


def _report(args: argparse.Namespace, console: Console) -> int:
    output = args.output or Path("report.html")
    if len(args.runs) == 1 and comparison.is_one(args.runs[0]) and (not args.output or output.suffix != ".html"):
        if args.png:
            raise RecipeError("The report of a comparison draws no picture: leave out --png, or give -o FILE.html.")
        return _report_comparison(args.runs[0], args.output, console)
    runs = report.read(args.runs)
    report.write_html(runs, output)
    written = [output]
    if args.png:
        written.append(output.with_suffix(".png"))
        report.write_png(runs, written[1])
    console.print(f"Written: {', '.join(map(str, written))}", soft_wrap=True)
    return 0


def _report_comparison(place: Path, output: Path | None, console: Console) -> int:
    found = comparison.read(place)
    folder = output or (place / "report" if found.from_folders else place)
    written = comparison_report.write(found, folder)  # refuses a folder that holds something else
    pictures, problem = _draw_comparison(place, folder) if found.from_folders else ([], None)
    if pictures:
        written = [*comparison_report.write(found, folder), *pictures]  # with the pictures in it
    console.print(comparison_text.sentence(found, found.verdict), soft_wrap=True, markup=False, highlight=False)
    console.print(f"Written: {', '.join(map(str, written))}", soft_wrap=True, markup=False, highlight=False)
    if problem:
        console.print(f"There are no new pictures: {problem}", soft_wrap=True, markup=False, highlight=False)
    return 0


def _draw_comparison(place: Path, folder: Path) -> tuple[list[Path], EmoError | None]:
    """Writes the tables of a comparison's curves and draws them; a report without pictures is still one."""
    try:
        histories.write(place, folder)
        from emo_hf.lab import figures  # needs the extra `plot`

        return figures.draw(folder), None
    except EmoError as error:
        return [], error


def _card(args: argparse.Namespace, console: Console) -> int:
    data = card_data.read(args.folder, args.arm)
    path = args.output or Path(f"{data.cell.recipe}-{data.cell.size}-{data.cell.name}.md")
    written = card.write(data, path, args.license, args.force)
    console.print(f"Written: {', '.join(map(str, written))}", soft_wrap=True, markup=False, highlight=False)
    return 0


def _watch_run(args: argparse.Namespace, console: Console) -> int:
    watch(args.run, console, args.once)
    return 0


def _ls(args: argparse.Namespace, console: Console) -> int:
    table = Table()
    for column in ("name", "lr", "state", "source"):
        table.add_column(column)
    for row in catalog.rows():
        table.add_row(row.key, row.recommended_lr, f"{row.state_ratio:.3g}", row.source)
    table.caption = "state: bytes per byte of a parameter matrix. A name without version is the newest."
    console.print(table)
    return 0


def _show(args: argparse.Namespace, console: Console) -> int:
    row = catalog.find(args.name)
    if args.markdown:
        console.print(pages.section(row), markup=False, highlight=False, soft_wrap=True)
        return 0
    table = Table(title=row.key, show_header=False)
    table.add_row("learning rate", row.recommended_lr)
    table.add_row("options", escape("\n".join(f"{name} = {value!r}" for name, value in row.options.items())))
    if row.dead:
        table.add_row("without effect", ", ".join(row.dead))
    table.add_row("state", f"{row.state_ratio:.3g} bytes per byte of a parameter matrix, without shadow")
    table.add_row("source", row.source)
    table.add_row("quirks", escape("\n".join(row.quirks)))
    console.print(table)
    return 0


def _show_dashboard(args: argparse.Namespace, console: Console) -> int:
    console.print_json(data=workspace.specification())
    return 0


def _push_dashboard(args: argparse.Namespace, console: Console) -> int:
    url = workspace.push(args.entity, args.project, args.update)
    console.print(f"Saved: {url}", soft_wrap=True, markup=False, highlight=False)
    return 0


def _plot_coefficients(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.lab import figures  # needs the extra `plot`

    return _drawn(args.output or Path("coefficients.png"), figures.coefficients, console)


def _plot_functions(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.lab import figures  # needs the extra `plot`

    result = functions.read(args.paths)
    return _drawn(args.output or Path(f"{result.recipe}.png"), partial(figures.paths, result), console)


def _plot_comparison(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.lab import figures  # needs the extra `plot`

    draw = getattr(figures, args.picture.replace("-", "_"))
    return _drawn(args.output or Path(f"{args.picture}.png"), partial(draw, *args.folders), console)


def _drawn(path: Path, draw: Callable[[Path], None], console: Console) -> int:
    draw(path)
    console.print(f"Drawn: {path}", soft_wrap=True)
    return 0
