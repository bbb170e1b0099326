"""``completion``: a script that completes the subcommands and options of emo-hf in a shell."""

import argparse
from typing import Any

from rich.console import Console

from emo_hf.cli.printing import print_plain

SHELLS = ("bash", "zsh", "fish")


def add(commands: Any, parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand to those of the `parser` that it completes."""
    completion = commands.add_parser(
        "completion",
        help="print a script that completes emo-hf in a shell",
        description='For bash: eval "$(emo-hf completion bash)", in ~/.bashrc.',
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(command=_completion, parser=parser)


def _completion(args: argparse.Namespace, console: Console) -> int:
    import shtab

    print_plain(console, shtab.complete(args.parser, shell=args.shell))
    return 0
