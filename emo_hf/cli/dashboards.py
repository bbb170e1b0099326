"""Dashboards: ``dashboard`` for W&B's, ``watch`` for the one in the terminal."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from emo_hf.cli.printing import print_plain


def add(commands: Any) -> None:
    """Adds the subcommands to those of the parser."""
    dashboard = commands.add_parser("dashboard", help="the W&B workspace")
    actions = dashboard.add_subparsers(required=True, metavar="action")
    actions.add_parser("show", help="print its specification").set_defaults(command=_show_dashboard)
    push = actions.add_parser("push", help="save it in W&B and print its address")
    push.set_defaults(command=_push_dashboard)
    push.add_argument("--entity", required=True, help="user or team")
    push.add_argument("--project", required=True, help="e.g. huggingface, Trainer's default")
    push.add_argument("--update", metavar="URL", help="a view that it replaces (default: a new view)")

    run = commands.add_parser("watch", help="show a run under way in the terminal", description="Ctrl-C ends it.")
    run.set_defaults(command=_watch)
    run.add_argument("run", metavar="RUN", type=Path, help="a run folder, or a folder of runs: the newest of them")
    run.add_argument("--once", action="store_true", help="show what is there and return")


def _show_dashboard(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.dashboards import workspace

    console.print_json(data=workspace.specification())
    return 0


def _push_dashboard(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.dashboards import workspace

    url = workspace.push(args.entity, args.project, args.update)
    print_plain(console, f"Saved: {url}")
    return 0


def _watch(args: argparse.Namespace, console: Console) -> int:
    from emo_hf.dashboards.watch import watch

    watch(args.run, console, args.once)
    return 0
