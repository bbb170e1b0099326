"""What happens to folders and processes. A small script stands in for the training, so that these are fast."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from filelock import FileLock

from emo_hf.lab.recipe import loading
from emo_hf.lab.run import processes, runner
from emo_hf.lab.run.runner import Settings
from tests import ROOT

pytestmark = pytest.mark.slow

BODY = """
    kind = os.environ.get("KIND", "good")
    (folder / "about.json").write_text(json.dumps([os.getpid(), os.environ.get("HF_HUB_OFFLINE"), arguments[1:]]))
    with (folder / "history.jsonl").open("a") as file:
        file.write(json.dumps({"step": 0, "total_steps": 3}) + "\\n")
        file.write(json.dumps({"step": 3, "loss": 1.0}) + "\\n")
        file.write('{"step": ')
    print("said", flush=True)
    os.system("echo said by another process >&2")
    if kind == "wrong":
        raise ValueError("the message")
    if kind == "exit":
        sys.exit("the last words")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "silent":
        os.truncate(1, 0)
        os._exit(3)
    if kind == "endless":
        time.sleep(600)
    if kind == "meeting":  # ends when two are at work at once
        while len(list(folder.parents[1].glob("*/*/about.json"))) < 2:
            time.sleep(0.05)
    time.sleep(0.3)
    (folder / "summary.json").write_text(json.dumps({"accuracy": 0.5, "made": time.time_ns()}))
"""


@pytest.fixture
def run_configs(recipe, write, stand_in, monkeypatch):
    stand_in(BODY)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return loading.recipe(write(recipe)).run_configs("smoke")


@pytest.fixture
def run(tmp_path):
    def run(run_configs, watch=lambda progress: None, **settings):
        return runner.run(run_configs, tmp_path / "runs", Settings(**settings), watch)

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def about(folder: Path) -> list:
    """What the stand-in of the training says about itself: its process, HF_HUB_OFFLINE, its further arguments."""
    return json.loads((folder / "about.json").read_text())


def is_alive(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_every_cell_has_a_folder(run_configs, run, tmp_path):
    seen = []

    def watch(progress):
        assert len(progress.running) <= 1
        seen.extend((number, run.step, run.total, run.last.get("loss")) for number, run in progress.running.items())

    outcomes = run(run_configs, watch)
    place = tmp_path / "runs/tiny/smoke"
    assert [o.folder.path for o in outcomes] == [
        place / f"{arm}/seed{k}" for arm in ("emosens", "adamw") for k in (0, 1)
    ]
    assert not any(outcome.skipped or outcome.error for outcome in outcomes)
    assert all((number, 3, 3, 1.0) in seen for number in range(4))
    for outcome in outcomes:
        assert loading.run_config(outcome.folder.config) == outcome.run_config
        assert about(outcome.folder.path)[1] == "1"  # embedded data, own model: nothing asks the hub
        assert outcome.folder.read_log() == "said\nsaid by another process\n"
        assert outcome.wall_seconds > 0.3


def test_finished_runs_are_skipped(run_configs, run, tmp_path):
    run(run_configs[:1])
    before = files(tmp_path / "runs")
    outcomes = run(run_configs[:2])
    assert [outcome.skipped for outcome in outcomes] == [True, False]
    after = files(tmp_path / "runs")
    assert {name: after[name] for name in before} == before


def test_a_run_with_former_keys_is_finished(run_configs, run):
    (outcome,) = run(run_configs[:1])
    text = outcome.folder.config.read_text()
    assert "withhold_loss: false" in text
    outcome.folder.config.write_text(text.replace("withhold_loss: false", "feed: true"))
    (again,) = run(run_configs[:1])
    assert again.skipped


def test_broken_run_starts_anew(run_configs, run, tmp_path, caplog):
    (folder,) = (outcome.folder.path for outcome in run(run_configs[:1]))
    (folder / "summary.json").unlink()
    (folder / "note").write_text("mine")
    broken = files(folder)
    with caplog.at_level(logging.WARNING):
        (outcome,) = run(run_configs[:1])
    assert (outcome.skipped, outcome.error) == (False, None)
    assert files(folder.with_name("seed0.aside-1")) == broken
    assert "did not finish: moved to seed0.aside-1" in caplog.text
    assert not (folder / "note").exists()


def test_another_configuration_is_moved_aside(run_configs, run, caplog):
    (outcome,) = run(run_configs[:1])
    kept = []
    for epochs in (2.0, 3.0):
        kept.append(files(outcome.folder.path))
        changed = run_configs[0].model_copy(
            update={"scale": run_configs[0].scale.model_copy(update={"epochs": epochs})}
        )
        (outcome,) = run([changed])
        assert not outcome.skipped
        assert yaml.safe_load(outcome.folder.config.read_text())["scale"]["epochs"] == epochs
    assert [files(outcome.folder.path.with_name(f"seed0.aside-{n}")) for n in (1, 2)] == kept
    assert "has another configuration" in caplog.text


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("wrong", "ValueError: the message"),
        ("exit", "the last words"),
        ("killed", "killed by SIGKILL (out of memory?)"),
        ("silent", "exit code 3 without a message"),
    ],
)
def test_failed_run(run_configs, run, monkeypatch, kind, error):
    monkeypatch.setenv("KIND", kind)
    assert [outcome.error for outcome in run(run_configs[:2])] == [error, error]  # the second one is tried as well
    monkeypatch.setenv("KIND", "good")
    assert [outcome.error for outcome in run(run_configs[:2])] == [None, None]


def test_a_full_disk_is_told_of_a_run_that_could_not_say_so(run_configs, run, monkeypatch):
    monkeypatch.setenv("KIND", "silent")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4000))
    (outcome,) = run(run_configs[:1])
    assert outcome.error == f"exit code 3 without a message (no space is left on the disk of {outcome.folder})"


def test_a_configuration_that_cannot_be_written_is_named(run_configs, run, tmp_path, full_disk):
    with full_disk(), pytest.raises(OSError, match=r"No space left on device: '.*seed0/config\.yaml'"):
        run(run_configs[:1])
    assert not list(tmp_path.rglob("*.part"))
    assert run(run_configs[:1])[0].error is None


def test_jobs(run_configs, run, monkeypatch):
    monkeypatch.setenv("KIND", "meeting")
    most = []
    outcomes = run(run_configs, lambda progress: most.append(len(progress.running)), jobs=2)
    assert max(most) == 2
    assert [outcome.run_config for outcome in outcomes] == run_configs
    assert not any(outcome.skipped or outcome.error for outcome in outcomes)


@pytest.mark.parametrize(
    ("jobs", "chosen", "expected"), [(1, None, None), (3, None, 4), (99, None, 1), (3, "2", None)]
)
def test_threads(monkeypatch, jobs, chosen, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 12)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    assert Settings(jobs=jobs).threads == expected


def test_what_is_replayed_ends_first(recipe, write, run_configs, run):
    again = {**recipe["arms"]["emosens"], "replay": {"of": "emosens"}}
    recipe |= {"arms": {"again": again, **recipe["arms"]}, "seeds": [0]}
    seen = []
    outcomes = run(
        loading.recipe(write(recipe)).run_configs("smoke"),
        lambda progress: seen.append({run.run_config.name for run in progress.running.values()}),
        jobs=3,
    )
    assert {"emosens", "adamw"} in seen
    assert not any({"again", "emosens"} <= names for names in seen)
    assert [outcome.run_config.name for outcome in outcomes] == ["again", "emosens", "adamw"]
    assert not any(outcome.error for outcome in outcomes)


def lock_of(outcome) -> FileLock:
    place = outcome.folder.comparison
    return FileLock(place / ".locks" / f"{outcome.run_config.name}-seed{outcome.run_config.seed}")


def test_two_at_work_share_the_runs(run_configs, run, caplog):
    """A run that another emo-hf is at is waited for; all others are done meanwhile."""
    (other,) = run(run_configs[:1])
    result = other.folder.summary.read_text()
    other.folder.summary.unlink()
    lock = lock_of(other)
    lock.acquire(timeout=0)

    def watch(progress):
        if len(progress.outcomes) == 3:
            other.folder.summary.write_text(result)

    outcomes = run(run_configs, watch)
    lock.release()
    assert [outcome.skipped for outcome in outcomes] == [True, False, False, False]
    assert not any(outcome.error for outcome in outcomes)
    assert caplog.text.count("waiting for its result") == 1


def test_results_stay_in_place_while_another_is_at_work(run_configs, run):
    changed = run_configs[0].model_copy(update={"scale": run_configs[0].scale.model_copy(update={"epochs": 3.0})})
    seen = []

    def watch(progress):
        if len(progress.outcomes) == 1 and not seen:
            seen.extend(run([changed]))

    first, _ = run(run_configs[:2], watch)
    assert seen[0].error.startswith("another emo-hf is at work on another configuration")
    assert first.error is None
    assert loading.run_config(first.folder.config) == run_configs[0]


def test_interrupt_ends_the_children(run_configs, run, tmp_path, monkeypatch):
    monkeypatch.setenv("KIND", "endless")
    started = []

    def interrupt(progress):
        if len(progress.running) == 2 and all(run.step for run in progress.running.values()):
            started.extend(run.worker.pid for run in progress.running.values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(run_configs, interrupt, jobs=2)
    assert len(started) == 2
    assert not any(map(is_alive, started))
    monkeypatch.setenv("KIND", "good")
    assert not any(outcome.skipped or outcome.error for outcome in run(run_configs[:1]))  # and the lock is free


PARENT = """
import json, os, sys, time
from emo_hf.lab.run import worker, processes, runner
from emo_hf.lab.recipe import loading
pids = []
def watch(progress):
    for run in progress.running.values():
        server = int(open(f"/proc/{run.worker.pid}/stat").read().split()[3])
        print("these", json.dumps([run.worker.pid, server, os.listdir(f"/proc/{server}/task")]), flush=True)
        time.sleep(600)
configs = loading.recipe(sys.argv[1]).run_configs("small")
runner.run(configs, __import__("pathlib").Path(sys.argv[2]), runner.Settings(), watch)
"""


def test_a_run_is_forked_and_dies_with_its_parent(recipe, write, tmp_path):
    """kill -9 of the parent ends the run, and the server that it is forked from; that one has no second thread."""
    recipe["sizes"]["small"]["epochs"] = 1e5
    command = [sys.executable, "-c", PARENT, write(recipe), str(tmp_path / "runs")]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment | {"PYTHONPATH": str(ROOT)}) as parent:
        try:
            pid, server, threads = json.loads(next(line for line in parent.stdout if line.startswith(b"these"))[5:])
            wait_for((tmp_path / "runs/tiny/small/emosens/seed0/history.jsonl").exists)  # it trains
            assert threads == [str(server)]
            assert os.getsid(pid) == pid  # ctrl-C in a terminal does not reach it
        finally:
            parent.kill()
    wait_for(lambda: not (is_alive(pid) or is_alive(server)))


def wait_for(happened) -> None:
    for _ in range(1200):  # two minutes, for a machine under load
        if happened():
            return
        time.sleep(0.1)
    pytest.fail("it did not happen within two minutes")


def kill_server() -> None:
    """Does what the system does when it runs out of memory."""
    pid = forkserver._forkserver._forkserver_pid
    os.kill(pid, signal.SIGKILL)
    while is_alive(pid):
        time.sleep(0.01)


@pytest.mark.skipif(not processes.FORKS, reason="no server")
def test_a_killed_server_fails_its_runs_and_no_others(run_configs, run, monkeypatch):
    """Those that it had forked would go on unseen, and write into a folder that is used again."""
    monkeypatch.setenv("KIND", "meeting")
    pids = []

    def watch(progress):
        under_way = [run.folder.path / "about.json" for run in progress.running.values()]
        if not pids and len(under_way) == 1 and under_way[0].exists() and under_way[0].stat().st_size:
            pids.append(about(under_way[0].parent)[0])
            kill_server()

    outcomes = run(run_configs[:3], watch)
    assert [outcome.error for outcome in outcomes] == ["killed by SIGKILL (out of memory?)", None, None]
    assert not is_alive(pids[0])


@pytest.mark.parametrize(
    "error", [EOFError(), BrokenPipeError(32, "Broken pipe"), OSError(12, "Cannot allocate memory")]
)
def test_where_no_process_can_be_started_finished_runs_are_kept(error, run_configs, run, monkeypatch):
    started = []

    def forked(*arguments, made=processes.Forked):
        if len(started) == 1:
            raise error
        started.append(made(*arguments))
        return started[-1]

    monkeypatch.setattr(processes, "FORKS", True)
    monkeypatch.setattr(processes, "Forked", forked)
    monkeypatch.setattr(processes, "end", lambda workers, end=processes.end: end([w for w in workers if w.pid]))
    first, *rest = run(run_configs[:3])
    assert first.error is None
    assert first.folder.is_finished
    for outcome in rest:
        assert outcome.error.startswith("no process could be started: ")
        assert outcome.error.endswith("(out of memory?)")


@pytest.mark.skipif(not processes.FORKS, reason="no server")
def test_a_server_that_dies_while_it_forks_is_one_clear_error(run_configs, run, monkeypatch):
    """What multiprocessing then raises is an EOFError without a word."""

    def dies(fds, connect=forkserver.connect_to_new_process):
        forkserver.ensure_running()
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGSTOP)  # it takes no request any more
        found = connect(fds)
        kill_server()
        return found

    monkeypatch.setattr(forkserver, "connect_to_new_process", dies)
    (outcome,) = run(run_configs[:1])
    assert outcome.error.startswith("no process could be started: ")
