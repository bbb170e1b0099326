"""Runs of several processes: what a recipe may say, how they start, fail and end."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emo_hf.dashboards import read_signals
from emo_hf.errors import RecipeError
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.schema import FunctionRecipe
from emo_hf.lab.run import processes, runner
from tests import ROOT

pytestmark = pytest.mark.slow

RECIPE = ROOT / "recipes/local_sgd/sentences.yaml"
BODY = """
    rank = int(os.environ.get("RANK", "0"))
    (folder / f"rank{rank}.json").write_text(json.dumps([os.getpid(), os.environ["WORLD_SIZE"]]))
    kind = os.environ["KIND"]
    if kind == "wrong" and rank == 1:
        time.sleep(0.5)
        sys.exit("[rank1]: ValueError: the message")
    if kind == "killed" and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind != "good":
        threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()  # as the real one does
        (folder / "history.jsonl").write_text(json.dumps({"step": 1, "total_steps": 3}) + "\\n")
        time.sleep(600)
    if rank == 0:
        (folder / "summary.json").write_text("{}")
"""


@pytest.fixture
def run_configs(recipe, write, stand_in):
    """Of a recipe with two processes, which run a small script instead of the training."""
    stand_in(BODY)
    return loading.recipe(write({**recipe, "processes": 2})).run_configs("smoke")


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(kind, run_configs, watch=lambda progress: None):
        monkeypatch.setenv("KIND", kind)
        return runner.run(run_configs, tmp_path / "runs", runner.Settings(), watch)

    return run


def test_local_sgd_at_smoke_size(tmp_path):
    command = [sys.executable, "-m", "emo_hf", "run", str(RECIPE), "--size", "smoke", "--seeds", "0", "--arms"]
    done = subprocess.run(
        [*command, "emosens-every-8"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs/local-sgd-sentences/smoke/emosens-every-8/seed0"
    result = json.loads((folder / "summary.json").read_text())
    assert (result["processes"], result["local_sgd_steps"]) == (2, 8)
    assert (result["steps"], result["train_examples"]) == (8, 128)  # 16 a step, 8 of them in each process
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in history if "learning_rate" in row] == list(range(1, 9))  # of one process only
    first, second = (read_signals(place / "emo_signals.jsonl") for place in (folder, folder / "rank1"))
    assert len(first) == len(second) == 8
    assert not {row["emo/loss"] for row in first} & {row["emo/loss"] for row in second}


def test_ranks_end_well_or_the_first_failure_is_told(run_configs, run, tmp_path):
    (outcome,) = run("wrong", run_configs[:1])
    assert outcome.error == "ValueError: the message"
    assert "Root Cause" in outcome.folder.read_log()
    (outcome,) = run("good", run_configs[:1])
    assert outcome.error is None
    assert [json.loads((outcome.folder.path / f"rank{k}.json").read_text())[1] for k in (0, 1)] == ["2", "2"]
    assert run("wrong", run_configs[:1])[0].skipped


def test_interrupt_ends_all_processes(run_configs, run, tmp_path):
    folder = tmp_path / "runs/tiny/smoke/emosens/seed0"

    def interrupt(progress):
        written = [path for path in folder.glob("rank*.json") if path.stat().st_size]
        if len(written) == 2 and all(run.step for run in progress.running.values()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("endless", run_configs[:1], interrupt)
    for rank in (0, 1):
        pid = json.loads((folder / f"rank{rank}.json").read_text())[0]
        for _ in range(300):
            if not Path(f"/proc/{pid}").exists():
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"rank {rank} lives on")


def test_command():
    assert processes.command("child", ["x"], None) == [sys.executable, "-m", "child", "x"]
    several = processes.command("child", ["x"], 3)
    assert several[-5:] == ["--nproc-per-node", "3", "-m", "child", "x"]
    assert "--standalone" in several  # a free port


def test_what_needs_the_hub_has_an_interpreter_of_its_own(stand_in, tmp_path, monkeypatch):
    """The server that others are forked from was told to keep off the network when it started."""
    stand_in('(folder / "offline").write_text(os.environ.get("HF_HUB_OFFLINE", "not set"))')
    monkeypatch.delenv("HF_HUB_OFFLINE")
    worker = processes.start("stand_in", [str(tmp_path)], tmp_path / "log.txt", offline=False)
    assert isinstance(worker, subprocess.Popen)
    assert worker.wait(60) == 0
    processes.end([worker])
    assert (tmp_path / "offline").read_text() == "not set"


@pytest.mark.parametrize(("code", "reason"), [(-9, "killed by SIGKILL (out of memory?)"), (1, "the last words")])
def test_explanation_skips_what_torchrun_says(code, reason):
    place = "torch/distributed/elastic/multiprocessing/api.py"
    log = f"the last words\nE1121 10:07:42.832000 16558 {place}:1002] failed (exitcode: {code}) local_rank: 0\n====\n"
    assert processes.explain(1, log) == reason


def test_what_processes_need(recipe, write):
    recipe |= {"processes": 3}
    recipe["arms"]["emosens"]["local_sgd_steps"] = 0
    with pytest.raises(RecipeError, match=r"arms\.emosens\.local_sgd_steps: expected greater than or equal to 1"):
        loading.recipe(write(recipe))
    recipe["arms"]["emosens"]["local_sgd_steps"] = 4
    with pytest.raises(RecipeError, match=r"(?s)smoke\.batch_size: not a multiple of the 3 proc.*small\.batch_size"):
        loading.recipe(write(recipe))
    recipe["processes"] = 1
    with pytest.raises(RecipeError, match=r"processes: expected greater than or equal to 2"):
        loading.recipe(write(recipe))
    recipe["processes"] = 2
    assert loading.recipe(write(recipe)).run_configs("smoke")[0].processes == 2
    del recipe["processes"]
    with pytest.raises(RecipeError, match=r"arms\.emosens\.local_sgd_steps: one process has nothing to average"):
        loading.recipe(write(recipe))


def test_a_function_has_no_processes(tmp_path):
    path = ROOT / "recipes/functions/rosenbrock.yaml"
    recipe = loading.recipe(str(path))
    assert isinstance(recipe, FunctionRecipe)
    changed = tmp_path / "recipe.yaml"
    changed.write_text(path.read_text().replace("    lr: 0.05\n", "    lr: 0.05\n    local_sgd_steps: 4\n", 1))
    with pytest.raises(RecipeError, match="local_sgd_steps: one process has nothing to average"):
        loading.recipe(str(changed))


def test_configuration_of_one_process_is_what_it_was(recipe, write):
    """So that runs finished by an earlier version are still skipped."""
    config = loading.recipe(write(recipe)).run_configs("smoke")[0].model_dump(mode="json", exclude_none=True)
    assert "processes" not in config
    assert "local_sgd_steps" not in config["arm"]


@pytest.mark.parametrize("folder", ["", ".venv/lib/python3.11/site-packages/"])
def test_the_cause_stands_before_the_report_of_torchrun(folder):
    mark = f"1121 11:35:42.4 57 {folder}torch/distributed/elastic/multiprocessing/api.py:10] "
    log = f"[rank1]: ValueError: the message\nW{mark}Sending process 9\nE{mark}failed (exitcode: 1) local\n=====\n"
    assert processes.explain(1, log) == "ValueError: the message"
    assert processes.explain(1, log.replace("exitcode: 1", "exitcode: -9")) == "killed by SIGKILL (out of memory?)"
