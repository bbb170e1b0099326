"""What happens to folders and processes. A small script stands in for the training, so that these are fast."""

import logging
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from emo_hf.errors import RecipeError
from emo_hf.lab import load, runner

SCRIPT = """
    import json, os, signal, sys, time
    from pathlib import Path
    folder = Path(sys.argv[1])
    kind = os.environ.get("KIND", "good")
    (folder / "offline").write_text(os.environ.get("HF_HUB_OFFLINE", ""))
    with (folder / "history.jsonl").open("a") as file:
        file.write(json.dumps({"step": 0, "total_steps": 3}) + "\\n")
        file.write(json.dumps({"step": 3, "loss": 1.0}) + "\\n")
        file.write('{"step": ')
    if kind == "wrong":
        sys.exit("Traceback\\n\\nValueError: the message")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "silent":
        os._exit(3)
    if kind == "endless":
        time.sleep(600)
    time.sleep(0.3)
    (folder / "summary.json").write_text(json.dumps({"made": time.time_ns()}))
"""


@pytest.fixture
def cells(recipe, write, tmp_path, monkeypatch):
    (tmp_path / "child.py").write_text(textwrap.dedent(SCRIPT))
    monkeypatch.setattr(runner, "CHILD", (str(tmp_path / "child.py"),))
    monkeypatch.setattr(runner, "POLL", 0.05)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return load.recipe(write(recipe)).cells("smoke")


@pytest.fixture
def run(tmp_path):
    def run(cells, watch=lambda *_: None):
        return runner.run(cells, tmp_path / "runs", "none", watch)

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_cell_has_a_folder(cells, run, tmp_path):
    seen = []
    outcomes = run(cells, lambda cell, step, total: seen.append((cell, step, total)))
    place = tmp_path / "runs/tiny/smoke"
    assert [o.folder for o in outcomes] == [place / f"{arm}/seed{k}" for arm in ("emosens", "adamw") for k in (0, 1)]
    assert not any(outcome.skipped or outcome.error for outcome in outcomes)
    assert all((cell, 3, 3) in seen for cell in cells)
    for outcome in outcomes:
        assert load.cell(outcome.folder / "config.yaml") == outcome.cell
        assert (outcome.folder / "offline").read_text() == "1"  # embedded data, own model: nothing asks the hub


def test_finished_runs_are_skipped(cells, run, tmp_path):
    run(cells[:1])
    before = files(tmp_path / "runs")
    outcomes = run(cells[:2])
    assert [outcome.skipped for outcome in outcomes] == [True, False]
    after = files(tmp_path / "runs")
    assert {name: after[name] for name in before} == before


def test_broken_run_starts_anew(cells, run, tmp_path, caplog):
    (folder,) = (outcome.folder for outcome in run(cells[:1]))
    (folder / "summary.json").unlink()
    (folder / "note").write_text("mine")
    broken = files(folder)
    with caplog.at_level(logging.WARNING):
        (outcome,) = run(cells[:1])
    assert (outcome.skipped, outcome.error) == (False, None)
    assert files(folder.with_name("seed0.aside-1")) == broken
    assert "did not finish: moved to seed0.aside-1" in caplog.text
    assert not (folder / "note").exists()


def test_another_configuration_is_moved_aside(cells, run, caplog):
    (outcome,) = run(cells[:1])
    kept = []
    for epochs in (2.0, 3.0):
        kept.append(files(outcome.folder))
        changed = cells[0].model_copy(update={"scale": cells[0].scale.model_copy(update={"epochs": epochs})})
        (outcome,) = run([changed])
        assert not outcome.skipped
        assert yaml.safe_load((outcome.folder / "config.yaml").read_text())["scale"]["epochs"] == epochs
    assert [files(outcome.folder.with_name(f"seed0.aside-{n}")) for n in (1, 2)] == kept
    assert "has another configuration" in caplog.text


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("wrong", "ValueError: the message"),
        ("killed", "killed by SIGKILL (out of memory?)"),
        ("silent", "exit code 3 without a message"),
    ],
)
def test_failed_run(cells, run, monkeypatch, kind, error):
    monkeypatch.setenv("KIND", kind)
    assert [outcome.error for outcome in run(cells[:2])] == [error, error]  # the second one is tried as well
    monkeypatch.setenv("KIND", "good")
    assert [outcome.error for outcome in run(cells[:2])] == [None, None]


def test_one_at_a_time(cells, run, tmp_path):
    place = tmp_path / "runs/tiny/smoke"
    place.mkdir(parents=True)
    with FileLock(place / ".lock"), pytest.raises(RecipeError, match="Another emo-hf is at work in"):
        run(cells)
    assert files(place) == {".lock": b""}


def test_bad_data_writes_nothing(run, tmp_path):
    recipe = load.recipe(str(Path(__file__).parents[2] / "recipes/trec/gpt2-emosens.yaml"))
    with pytest.raises(RecipeError, match="is no folder"):
        run(recipe.cells("smoke", data_dir=tmp_path / "nowhere"))
    assert not (tmp_path / "runs").exists()


def test_interrupt_ends_the_child(cells, run, tmp_path, monkeypatch):
    monkeypatch.setenv("KIND", "endless")
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *args, **kwargs: started.append(popen(*args, **kwargs)) or started[-1]
    )

    def interrupt(cell, step, total):
        if step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cells, interrupt)
    assert len(started) == 1
    assert started[0].poll() is not None
    monkeypatch.setenv("KIND", "good")
    assert not any(outcome.skipped or outcome.error for outcome in run(cells[:1]))  # and the lock is free


def test_child_dies_with_its_parent(tmp_path):
    """kill -9 of the parent closes the pipe that the child reads."""
    code = "import time; from emo_hf.lab import child; child.end_with_parent(); print(1, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert b"1\n" in iter(child.stdout.readline, b"")  # lines before it are the libraries'
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(timeout=30) == 1
