"""What is shown of runs: the table on a terminal, the lines elsewhere, and how long the rest will take."""

import io
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from emo_hf.lab.recipe import loading
from emo_hf.lab.run import progress_table
from emo_hf.lab.run.runner import ActiveRun, Outcome, Progress
from emo_hf.run_folder import RunFolder


@pytest.fixture
def progress(recipe, write, tmp_path):
    """Of four runs: one was finished before, one took 10 s, one failed, one is half-way."""
    run_configs = loading.recipe(write(recipe)).run_configs("smoke")
    progress = Progress(run_configs, jobs=1)
    folder = RunFolder(tmp_path)
    folder.summary.write_text(
        json.dumps({"arm": "adamw", "optimizer": "adamw_torch", "tuning": "x", "accuracy": 0.7123, "seconds": 4.0})
    )
    progress.outcomes = {
        0: Outcome(run_configs[0], folder, skipped=True),
        2: Outcome(run_configs[2], folder, wall_seconds=10.0),
        1: Outcome(run_configs[1], folder, error="[bold] no room", wall_seconds=3.0),
    }
    half = ActiveRun(run_configs[3], RunFolder(Path("nowhere")), lock=None, worker=SimpleNamespace(), step=5, total=10)
    half.trains_since = time.monotonic() - 2
    half.last = {"loss": 0.123456, "eval_accuracy": 0.5}
    progress.running = {3: half}
    return progress


def test_table(progress):
    console = Console(width=100, record=True, force_terminal=True, file=io.StringIO())
    console.print(progress_table.table(progress))
    text = console.export_text()
    rows = [[word for word in line.split() if not set(word) & set("━╸╺")] for line in text.splitlines()]
    assert ["runs", "3/4", "about", "5", "s", "left"] in rows
    assert ["adamw", "seed", "1", "5/10", "0.123", "0.5", "2", "s"] in rows
    assert ["arm", "finished", "failed", "seeds", "accuracy"] in rows
    assert ["emosens", "1", "1", "2", "0.712"] in rows
    assert ["adamw", "1", "0", "2", "0.712"] in rows
    progress.outcomes[3] = Outcome(progress.run_configs[3], progress.outcomes[0].folder)
    console.print(progress_table.table(progress))
    assert "0.712 ± 0" in console.export_text()


def test_a_line_for_each_that_has_ended(progress):
    news = progress_table.News()
    assert list(news.lines(progress)) == [
        "[2/4] adamw seed 0: accuracy 0.712, 4 s",
        "[3/4] emosens seed 1: failed after 3 s: [bold] no room",
    ]
    assert list(news.lines(progress)) == []


def test_remaining(progress):
    assert progress_table.remaining(progress) == pytest.approx(5)
    progress.running[3].total = 0  # it has not said yet how far it will go
    assert progress_table.remaining(progress) == pytest.approx(10)
    del progress.outcomes[1]  # waits again
    assert progress_table.remaining(progress) == pytest.approx(20)
    progress.jobs = 2
    assert progress_table.remaining(progress) == pytest.approx(10)
    del progress.outcomes[2]
    assert progress_table.remaining(progress) is None


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (600, "10 min"), (7200, "2.0 h")])
def test_duration(seconds, text):
    assert progress_table.duration(seconds) == text
