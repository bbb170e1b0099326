"""What the catalog holds: ``ls`` and ``show``."""

import argparse
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emo_hf import catalog
from emo_hf.cli.say import say
from emo_hf.lab import pages


def add(commands: Any) -> None:
    """Adds the subcommands to those of the parser."""
    commands.add_parser("ls", help="list the optimizers").set_defaults(command=_ls)
    show = commands.add_parser("show", help="show one optimizer")
    show.set_defaults(command=_show)
    show.add_argument("name", help="e.g. emosens or emosens-3.7")
    show.add_argument("--markdown", action="store_true", help="as it stands in docs/optimizers/, with its formulas")


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
        say(console, pages.section(row))
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
