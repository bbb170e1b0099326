"""Runs cells one after the other, each in a process (or several) and a folder of its own:

    RUNS/<recipe>/<size>/<arm>/seed<k>/    config.yaml env.json emo_signals.jsonl history.jsonl log.txt summary.json

A folder with a summary and the same configuration is finished and skipped. Any other folder found there (a run that
broke off, or one of another configuration) is moved aside, never overwritten. An interrupt or the death of this
process costs the run that is under way, no more.
"""

import json
import logging
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from emo_hf.errors import RecipeError
from emo_hf.lab import processes, sources
from emo_hf.lab.spec import Cell

logger = logging.getLogger(__name__)

CHILD = ("-m", "emo_hf.lab.child")  # what trains a cell: arguments of the Python interpreter
POLL = 0.2  # seconds between two looks at a run


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: finished, or with an error in one line. `skipped` means that it was finished before."""

    cell: Cell
    folder: Path
    skipped: bool = False
    error: str | None = None


# told about the run under way: its cell, its step, and the steps it will take (0 while unknown)
Watch = Callable[[Cell, int, int], None]


def run(cells: list[Cell], runs: Path, report_to: str, watch: Watch) -> list[Outcome]:
    """Runs what is not finished, in order; a run that fails does not stop the next ones.

    Args:
        cells: of one recipe and one size.
        runs: the folder of all runs.
        report_to: "none" or "wandb".

    Raises:
        RecipeError: the data cannot be read (before anything is written), or another process is running these.
    """
    sources.examples(cells[0])  # all cells of a recipe read the same data
    place = runs / cells[0].recipe / cells[0].size
    place.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place / ".lock", timeout=0):
            return [_run(cell, place / cell.name / f"seed{cell.seed}", report_to, watch) for cell in cells]
    except Timeout:
        raise RecipeError(f"Another emo-hf is at work in {place}: wait for it, or give another --runs-dir.") from None


def _run(cell: Cell, folder: Path, report_to: str, watch: Watch) -> Outcome:
    config = cell.model_dump(mode="json", exclude_none=True)
    if folder.exists():
        if (folder / "summary.json").exists() and _config(folder) == config:
            return Outcome(cell, folder, skipped=True)
        _move_aside(folder, _config(folder) == config)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    code = _train(cell, folder, report_to, watch)
    if (folder / "summary.json").exists():
        return Outcome(cell, folder)
    log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    return Outcome(cell, folder, error=processes.explain(code, log))


def _config(folder: Path) -> Any:
    """Returns the configuration of the run in `folder`, None if it has none."""
    try:
        return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None


def _move_aside(folder: Path, same_config: bool) -> None:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.aside-{number}")).exists():
        number += 1
    folder.rename(aside)
    why = "did not finish" if same_config else "has another configuration"
    logger.warning("The run in %s %s: moved to %s.", folder, why, aside.name)


def _train(cell: Cell, folder: Path, report_to: str, watch: Watch) -> int:
    """Trains in a child process; returns its exit code."""
    command = processes.command((*CHILD, str(folder), "--report-to", report_to), cell.processes)
    offline = {} if cell.needs_hub else {"HF_HUB_OFFLINE": "1"}  # else every library may try, and wait, by itself
    with (folder / "log.txt").open("wb") as log:
        # a session of its own: ctrl-C reaches this process only, which then ends the child
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **offline},
            start_new_session=True,
        )
    try:
        step, total, seen = 0, 0, 0
        while process.poll() is None:
            time.sleep(POLL)
            rows, seen = _new_rows(folder / "history.jsonl", seen)
            for row in rows:
                step, total = row["step"], row.get("total_steps", total)
            watch(cell, step, total)
        return process.returncode
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdin.close()


def _new_rows(path: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """Returns the whole lines of a growing JSONL file from byte `start` on, and where they end."""
    if not path.exists():
        return [], start
    with path.open("rb") as file:
        file.seek(start)
        whole, newline, _ = file.read().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()], start + len(whole) + len(newline)
