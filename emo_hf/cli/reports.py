"""The results of runs: ``report`` and ``card``."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from emo_hf.cli.printing import print_plain
from emo_hf.errors import RecipeError
from emo_hf.run_folder import is_comparison_folder


def add(commands: Any) -> None:
    """Adds the subcommands to those of the parser."""
    text = (
        "For a comparison's folder, RUNS/<recipe>/<size> or an earlier report: the verdict by the recipe's rule, its"
        " tables and their numbers, as Markdown, HTML (with the PNG files in DIR) and JSON. For anything else, or with"
        " -o FILE.html: one HTML file with the curves of all runs."
    )
    of_runs = commands.add_parser(
        "report", help="the verdict of a comparison, or the curves of runs", description=text
    )
    of_runs.set_defaults(command=_report)
    places = "a comparison's folder, a run folder, a folder of runs, trainer_state.json or a W&B run"
    of_runs.add_argument("runs", nargs="+", metavar="RUN", type=Path, help=places)
    where = "default: RUN/report for a comparison's runs, RUN for an earlier report, otherwise report.html"
    of_runs.add_argument("-o", "--output", type=Path, metavar="DIR", help=where)
    of_runs.add_argument("--png", action="store_true", help="also a picture, for a model card")

    of_arm = commands.add_parser(
        "card", help="the model card of an arm", description="One arm of a recipe, all seeds."
    )
    of_arm.set_defaults(command=_card)
    text = "the runs of an arm (RUNS/<recipe>/<size>/<arm>), or with --arm a comparison's folder or results"
    of_arm.add_argument("folder", type=Path, metavar="RUNS", help=text)
    of_arm.add_argument("--arm", help="which, where there are several")
    of_arm.add_argument("--license", help="of the model, as the hub spells it")
    of_arm.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: <recipe>-<size>-<arm>.md")
    of_arm.add_argument("-f", "--force", action="store_true", help="replace the card and its picture")


def _report(args: argparse.Namespace, console: Console) -> int:
    output = args.output or Path("report.html")
    if len(args.runs) == 1 and is_comparison_folder(args.runs[0]) and (not args.output or output.suffix != ".html"):
        if args.png:
            raise RecipeError("The report of a comparison draws no picture: leave out --png, or give -o FILE.html.")
        return _report_comparison(args.runs[0], args.output, console)
    from emo_hf.dashboards import report

    runs = report.read(args.runs)
    report.write_html(runs, output)
    written = [output]
    if args.png:
        written.append(output.with_suffix(".png"))
        report.write_png(runs, written[1])
    print_plain(console, f"Written: {', '.join(map(str, written))}")
    return 0


def _report_comparison(place: Path, output: Path | None, console: Console) -> int:
    from emo_hf.lab.analysis import comparison
    from emo_hf.lab.report import comparison_report, comparison_text

    results = comparison.read(place)
    folder = output or (place / "report" if results.folders else place)
    if results.folders:
        written, problem = comparison_report.write_with_pictures(results, folder)
    else:
        written, problem = comparison_report.write(results, folder), None
    print_plain(console, comparison_text.sentence(results, results.verdict))
    print_plain(console, f"Written: {', '.join(map(str, written))}")
    if problem:
        print_plain(console, f"There are no new pictures: {problem}")
    return 0


def _card(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.lab.report import card, card_data

    data = card_data.read(args.folder, args.arm)
    path = args.output or Path(f"{data.run_config.recipe}-{data.run_config.size}-{data.run_config.name}.md")
    written = card.write(data, path, args.license, args.force)
    print_plain(console, f"Written: {', '.join(map(str, written))}")
    return 0
