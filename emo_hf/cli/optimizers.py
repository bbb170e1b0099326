"""What there is: ``ls`` for optimizers and recipes, ``show`` for one optimizer."""

import argparse
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emo_hf.cli.printing import print_plain


def add(commands: Any) -> None:
    """Adds the subcommands to those of the parser."""
    listing = commands.add_parser("ls", help="list the optimizers, or the shipped recipes")
    listing.set_defaults(command=_ls)
    listing.add_argument("--recipes", action="store_true", help="list the recipes instead")
    show = commands.add_parser("show", help="show one optimizer")
    show.set_defaults(command=_show)
    show.add_argument("name", help="e.g. emosens or emosens-3.7")
    show.add_argument("--markdown", action="store_true", help="as in docs/optimizers/, with its formulas")


def _ls(args: argparse.Namespace, console: Console) -> int:
    if args.recipes:
        return _ls_recipes(console)
    from emo_hf import registry

    table = _narrow("state: bytes per byte of a parameter matrix. A name without version is the newest.")
    for column in ("name", "lr", "state", "source"):
        table.add_column(column, no_wrap=column != "lr")
    for spec in registry.specs():
        table.add_row(spec.key, spec.recommended_lr, f"{spec.state_ratio:.3g}", spec.source)
    console.print(table)
    return 0


def _narrow(caption: str) -> Table:
    """Returns a table of few marks, so that a line of most optimizers fits into 80 columns."""
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption=caption, caption_justify="left")


def _ls_recipes(console: Console) -> int:
    from emo_hf.lab.recipe import loading

    table = _narrow("emo-hf run NAME trains one, emo-hf cp NAME copies it")
    table.add_column("name", no_wrap=True)
    table.add_column("description")
    for name, path in loading.shipped_names().items():
        table.add_row(name, escape(loading.recipe(str(path)).description))
    console.print(table)
    return 0


def _show(args: argparse.Namespace, console: Console) -> int:
    from emo_hf import registry

    spec = registry.find(args.name)
    if args.markdown:
        from emo_hf.lab.report import optimizer_page

        print_plain(console, optimizer_page.section(spec))
        return 0
    table = Table(title=spec.key, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=100)
    table.add_row("learning rate", spec.recommended_lr)
    table.add_row("options", escape("\n".join(f"{name} = {value!r}" for name, value in spec.options.items())))
    if spec.dead:
        table.add_row("without effect", ", ".join(spec.dead))
    table.add_row("state", f"{spec.state_ratio:.3g} bytes per byte of a parameter matrix, without shadow")
    table.add_row("source", spec.source)
    table.add_row("quirks", escape("\n".join(f"* {quirk}" for quirk in spec.quirks)))
    console.print(table)
    return 0
