"""Every subcommand has a help text, and says what is wrong with its arguments. The parser itself gives the cases."""

import argparse
import subprocess
import sys
from collections.abc import Iterator

import pytest

from emo_hf import cli
from tests import ROOT

Path = tuple[str, ...]


def subcommands(parser: argparse.ArgumentParser, path: Path = ()) -> Iterator[tuple[Path, argparse.ArgumentParser]]:
    """Yields every parser with the words that lead to it."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from subcommands(child, (*path, name))


SUBCOMMANDS = dict(subcommands(cli.parser()))


def needs_more(parser: argparse.ArgumentParser) -> bool:
    return any(action.required for action in parser._actions)


def exit_code(args: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        cli.main(args)
    return stop.value.code


def test_all_subcommands_are_found():
    assert {("run",), ("plot", "three-panel"), ("dashboard", "push"), ("completion",)} < SUBCOMMANDS.keys()


@pytest.mark.parametrize("path", SUBCOMMANDS, ids=" ".join)
def test_help(path, capsys):
    assert exit_code([*path, "--help"]) == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: emo-hf", *path]))


@pytest.mark.parametrize("path", [path for path, parser in SUBCOMMANDS.items() if needs_more(parser)], ids=" ".join)
def test_no_argument(path, capsys):
    assert exit_code([*path]) == 2
    assert "the following arguments are required" in capsys.readouterr().err


@pytest.mark.parametrize("path", SUBCOMMANDS, ids=" ".join)
def test_wrong_argument(path, capsys):
    assert exit_code([*path, "--no-such-option"]) == 2
    assert "usage: emo-hf" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in ("emo-hf", "three-panel", "--runs-dir"))


def test_version_needs_no_torch():
    code = """
import sys
from emo_hf.__main__ import main
assert main(["--version"]) == 0
assert not {"torch", "rich"} & sys.modules.keys()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("emo-hf ")
