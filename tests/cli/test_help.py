"""Every subcommand has a help text, and says what is wrong with its arguments. The parser itself gives the cases."""

import argparse
import subprocess
import sys
from collections.abc import Iterator

import pytest

from emo_hf import cli
from tests import ROOT
from tests.dashboards.recorded_runs import write_run

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


@pytest.mark.parametrize("path", [path for path in SUBCOMMANDS if path], ids=" ".join)
def test_a_slip_of_the_pen_is_understood(path, capsys):
    *before, name = path
    assert exit_code([*before, f"{name}x"]) == 2
    said = capsys.readouterr().err
    assert f"invalid choice: '{name}x'" in said
    assert f"'{name}'" in said.partition("Did you mean ")[2]


def alone(code, *args):
    """Runs code in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def test_only_what_is_called_is_imported():
    """torch and transformers take seconds, so no parser needs them."""
    code = f"""
import contextlib, io, sys
from emo_hf.__main__ import main
assert main(["--version"]) == 0
assert not {{"torch", "rich"}} & sys.modules.keys()
for path in {[list(path) for path in SUBCOMMANDS]!r}:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main([*path, "--help"])
assert not {{"torch", "transformers", "matplotlib", "numpy", "pydantic"}} & sys.modules.keys()
"""
    assert alone(code).startswith("emo-hf ")


def test_records_are_read_without_torch(tmp_path):
    """So that a report of a long run fits into memory, and ``watch`` is there at once."""
    code = """
import sys
from emo_hf.__main__ import main
assert main(["watch", sys.argv[1], "--once"]) == 0
assert main(["report", sys.argv[1], "-o", sys.argv[1] + "/report.html"]) == 0
assert not {"torch", "transformers"} & sys.modules.keys()
"""
    assert "Written" in alone(code, write_run(tmp_path / "run"))


def test_run_says_something_before_it_loads_torch():
    code = """
import contextlib, sys
from emo_hf.__main__ import main
sys.modules["emo_hf.cli.recipe_commands"] = None  # what takes seconds to import
with contextlib.suppress(ImportError):
    main(["run", "quickstart"])
assert "torch" not in sys.modules
"""
    assert alone(code) == "Loading torch and transformers ...\n"
