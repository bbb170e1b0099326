"""Pictures: ``plot``."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from emo_hf.cli.printing import print_plain
from emo_hf.errors import RecipeError, RecordError

RESULTS = {  # pictures of a folder of results
    "loss": "training and validation loss",
    "fluctuation": "fluctuation of the training loss; accuracy or perplexity",
    "three-panel": "accuracy of one comparison, perplexity of another, the trajectory of the first one's classifier",
    "trajectory": "the trajectory of the classifier in a plane",
    "basin": "the final number over the learning rate, for recipes with a sweep",
    "differences": "the final number minus the baseline's",
}


def add(commands: Any) -> None:
    """Adds the subcommand to those of the parser."""
    kinds = commands.add_parser("plot", help="draw a picture").add_subparsers(required=True, metavar="picture")
    coefficients = kinds.add_parser("coefficients", help="factors and pulses of all generations")
    coefficients.set_defaults(command=_plot_coefficients)
    paths = kinds.add_parser("functions", help="paths over a test function")
    paths.set_defaults(command=_plot_functions)
    paths.add_argument("paths", type=Path, help="a paths.json of emo-hf run")
    signals = kinds.add_parser("signals", help="loss, step size and emotion of one run")
    signals.set_defaults(command=_plot_signals)
    signals.add_argument("run", type=Path, metavar="RUN", help="a run folder, RUNS/<recipe>/<size>/<arm>/seed<k>")
    signals.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: RUN/figures/signals.png")
    text = "how EmoFree found its step size: agreement over step size"
    ramps = kinds.add_parser("ramp", help=text)
    ramps.set_defaults(command=_plot_ramps)
    ramps.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run folder, or a folder of runs")
    ramps.add_argument("-o", "--output", type=Path, metavar="FILE", help="an SVG file (default: ramp.svg)")
    text = "in how many comparisons that ask the same a method is how close to the best one"
    profile = kinds.add_parser("profile", help=text)
    profile.set_defaults(command=_plot_profile)
    profile.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folders of results, or of comparisons")
    drawn = [_plot_results(kinds, name, text) for name, text in RESULTS.items()]
    for kind in (coefficients, paths, profile, *drawn):
        kind.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: a PNG in the current folder")


def _plot_results(kinds: Any, name: str, text: str) -> argparse.ArgumentParser:
    kind = kinds.add_parser(name, help=text)
    kind.set_defaults(command=_plot_comparison, picture=name)
    count, more = (2, ": first the classification, then the language model") if name == "three-panel" else (1, "")
    folder = f"a folder of results, as emo-hf report writes it{more}"
    kind.add_argument("folders", type=Path, nargs=count, metavar="DIR", help=folder)
    return kind


def _plot_coefficients(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.lab import figures

    return _drawn(args.output or Path("coefficients.png"), figures.coefficients, console)


def _plot_functions(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.lab import figures
    from emo_hf.lab.run import functions

    result = functions.read(args.paths)
    return _drawn(args.output or Path(f"{result.recipe}.png"), partial(figures.paths, result), console)


def _plot_signals(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.dashboards import report

    runs = report.read([args.run])
    if len(runs) > 1:
        raise RecipeError(f"{args.run} holds {len(runs)} runs: give one of them. emo-hf report draws several at once.")
    path = args.output or args.run / "figures/signals.png"
    return _drawn(path, partial(report.write_png, runs), console)


def _plot_ramps(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.dashboards import report
    from emo_hf.dashboards.report import ramp

    found = [each for run in report.read(args.runs) if (each := ramp.Ramp.of(run)) is not None]
    if not found:
        raise RecordError(f"There is no ramp in {', '.join(map(str, args.runs))}: expected a run of emofree.")
    return _drawn(args.output or Path("ramp.svg"), partial(ramp.write, found), console)


def _plot_profile(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.lab import figures

    return _drawn(args.output or Path("profile.png"), partial(figures.profile, args.folders), console)


def _plot_comparison(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.lab import figures

    draw = getattr(figures, args.picture.replace("-", "_"))
    return _drawn(args.output or Path(f"{args.picture}.png"), partial(draw, *args.folders), console)


def _drawn(path: Path, draw: Callable[[Path], None], console: Console) -> int:
    draw(path)
    print_plain(console, f"Drawn: {path}")
    return 0
