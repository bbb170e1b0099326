"""The command line:

    emo-hf run quickstart                   trains every arm of a recipe and ends with a table
    emo-hf validate quickstart              checks a recipe, and shows what it would train
    emo-hf new train.csv                    a commented recipe for data of your own
    emo-hf find-lr quickstart               a learning rate for a recipe's task, in seconds
    emo-hf cp quickstart                    copies a shipped recipe into the current folder
    emo-hf fetch-models DIR                 small trained models, for recipes that fine-tune
    emo-hf sweep quickstart                 a recipe as a W&B sweep, for agents on several machines
    emo-hf ls                               the optimizers; with --recipes, the shipped recipes
    emo-hf show emosens-3.9                 one of them
    emo-hf plot coefficients                factors and pulses of all generations
    emo-hf plot functions FILE              the paths of a recipe of recipes/functions/
    emo-hf plot signals RUN                 loss, step size and emotion of one run
    emo-hf plot ramp RUN [RUN ...]          how EmoFree found its step size, in one run or several
    emo-hf plot loss DIR                    curves of a comparison, from a folder of results; also fluctuation,
                                            three-panel, trajectory, basin, differences
    emo-hf report RUNS/<recipe>/<size>      the verdict on a recipe's claim, its tables, and the numbers behind them
    emo-hf report RUN [RUN ...]             one HTML file with the curves of one run or several
    emo-hf card RUNS/<recipe>/<size>/<arm>  the model card of an arm
    emo-hf dashboard push --entity ME --project MINE      the workspace, saved in W&B
    emo-hf watch RUN                        a run under way, in the terminal
    emo-hf completion bash                  a script that completes emo-hf in a shell

A subcommand imports what it needs when it is called: torch and transformers take seconds.

Exit codes: 0, 1 a run failed, 2 the input cannot be used, 130 interrupted.
"""

import argparse
import logging
from typing import NoReturn

from rich.logging import RichHandler
from rich.markup import escape

import emo_hf
from emo_hf.cli import completion, dashboards, models, optimizers, pictures, recipes, reports
from emo_hf.cli.printing import SafeConsole, plain
from emo_hf.errors import EmoError, did_you_mean


class Parser(argparse.ArgumentParser):
    """A parser that knows what might have been meant. Its subparsers are of this class, too."""

    def _check_value(self, action: argparse.Action, value: object) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            meant = did_you_mean(str(value), map(str, action.choices or ()))
            raise argparse.ArgumentError(action, error.message + meant) from None

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
    args = parser().parse_args(argv)
    errors = SafeConsole(stderr=True, soft_wrap=True)
    handler = RichHandler(console=errors, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    try:
        return args.command(args, SafeConsole())
    except EmoError as error:
        errors.print(f"[bold red]emo-hf:[/] {escape(str(error))}")
        return 2
    except FileExistsError as error:
        told = f"{error.filename} exists already: nothing was written. Give another place, or move it away."
        errors.print(f"[bold red]emo-hf:[/] {escape(told)}")
        return 1
    except OSError as error:  # a folder that cannot be written, or no space left
        errors.print(f"[bold red]emo-hf:[/] {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        errors.print("Interrupted. Finished runs are kept; the same command goes on with the rest.")
        return 130


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all subcommands; each sets `command`, a function of the arguments and a console."""
    whole = Parser(prog="emo-hf", description="Emotion-driven optimizers for Hugging Face Trainer.")
    whole.add_argument("--version", action="version", version=f"emo-hf {emo_hf.__version__}")
    commands = whole.add_subparsers(required=True, metavar="command")
    recipes.add(commands)
    models.add(commands)
    optimizers.add(commands)
    pictures.add(commands)
    reports.add(commands)
    dashboards.add(commands)
    completion.add(commands, whole)
    return whole
