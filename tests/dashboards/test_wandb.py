import contextlib
import os
import pty
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emo_hf.dashboards import Recorder, read_signals
from emo_hf.dashboards.wandb import _describe, describe, guard, label, open_run, prepare, summarize

pytestmark = pytest.mark.slow

KEY = "0" * 40
CONFIG = {"emo_optimizer": "emosens", "emo_version": "3.9", "seed": 3}


def numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name.startswith("emo/")}


def messages(caplog: pytest.LogCaptureFixture, level: str) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == level]


@pytest.mark.parametrize("total", [20, 12_000])
def test_the_offline_file_holds_the_rows_of_the_jsonl(tmp_path: Path, make, session, read_wandb, total: int) -> None:
    run = session.init(project="test")  # as Trainer's callback does
    session.define_metric("train/global_step")
    session.define_metric("*", step_metric="train/global_step", step_sync=True)
    recorder = Recorder(tmp_path, total, report_to=["tensorboard", "wandb"], config=CONFIG)
    for step in range(1, 21):
        recorder.write(step, make(lr=1 / step, loss=float("nan") if step == 4 else 1.0, ready=float(step >= 8)))
        if step % 5 == 0:
            session.log({"train/loss": 1.0, "train/global_step": step})
    recorder.close()
    assert session.run is run  # never finished: Trainer's callback may go on with it

    records = read_wandb(Path(run.settings.sync_dir))
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    emo = [item for item in history if "emo/lr" in item]
    rows = read_signals(recorder.path)
    assert len(rows) == {20: 20, 12_000: 7}[total]
    assert [(item["train/global_step"], numbers(item)) for item in emo] == [
        (row["step"], numbers(row)) for row in rows
    ]
    assert [item["train/global_step"] for item in history if "train/loss" in item] == [5, 10, 15, 20]
    assert ["emo/loss" in item for item in emo] == ["emo/loss" not in row.get("nonfinite", ()) for row in rows]

    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    assert [metric["step_metric"] for metric in metrics if metric.get("glob_name") == "emo/*"] == ["train/global_step"]
    config = {name: value for record in records for name, value in record.get("run", {}).get("config", {}).items()}
    updates = [record["config"]["update"] for record in records if record["type"] == "config"]
    assert CONFIG.items() <= {name: value for update in [config, *updates] for name, value in update.items()}.items()
    summary: dict[str, Any] = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    median = {20: (1 / 10 + 1 / 11) / 2, 12_000: (1 / 10 + 1 / 11 + 1 / 12) / 3}
    assert summary["emo/lr_median"] == pytest.approx(median[total], rel=1e-15)
    assert summary["emo/first_stop_step"] == {20: 8, 12_000: 9}[total]
    assert summary["emo/lr_ceiling_share"] == 0.0


def test_a_loop_without_a_trainer_gets_a_run(tmp_path: Path, make, session, monkeypatch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    recorder = Recorder(tmp_path, 10, report_to=["wandb"], config=CONFIG)
    assert session.run.offline
    assert session.run.project == "huggingface"
    recorder.write(1, make())
    recorder.close()
    assert session.run.summary["emo/lr_median"] == 1e-4


def test_disabled_by_the_user(tmp_path: Path, make, session, monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert prepare() == "disabled"
    recorder = Recorder(tmp_path, 10, report_to=["wandb"], config=CONFIG)
    recorder.write(1, make())
    recorder.close()
    assert [row["step"] for row in read_signals(recorder.path)] == [1]
    assert not messages(caplog, "WARNING") + messages(caplog, "ERROR")
    assert not list(Path(os.environ["WANDB_DIR"]).rglob("*.wandb"))


def test_offline_by_the_user(session, caplog) -> None:
    caplog.set_level("INFO")
    assert prepare() == prepare() == "offline"
    assert session.run is None
    folder = Path(os.environ["WANDB_DIR"]) / "wandb" / "latest-run"
    assert [message for message in messages(caplog, "INFO") if "W&B" in message] == [
        f"W&B is offline. Files: {folder}; view: `wandb leet {folder}`; "
        f"upload: `wandb login`, then `wandb sync {folder}`."
    ]
    run = session.init(project="test")
    assert folder.resolve() == Path(run.settings.sync_dir).resolve()  # it told the truth


@pytest.mark.parametrize("group", [None, "the user's"])
def test_runs_are_labelled_for_comparisons(session, monkeypatch, group: str | None) -> None:
    for name in ("WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_TAGS"):
        monkeypatch.setenv(name, "")  # so that it is gone after the test
        monkeypatch.delenv(name)
    if group:
        monkeypatch.setenv("WANDB_RUN_GROUP", group)
    describe(CONFIG)  # no run is open yet: nothing happens
    summarize({"best/eval_loss": 1.0})
    label("recipe/arm", "train", ("recipe", "emosens-3.9"))
    prepare()
    run = session.init(project="test")
    describe(CONFIG)
    summarize({"best/eval_loss": 0.5})
    assert (run.group, run.job_type) == (group or "recipe/arm", "train")
    assert set(run.tags) == {"recipe", "emosens-3.9"}
    assert dict(run.config) == CONFIG
    assert dict(run.summary) == {"best/eval_loss": 0.5}


def test_online_the_panels_are_one_command_away(session) -> None:
    run = session.init(entity="me", project="mine", mode="offline")
    panels = "`emo-hf dashboard push --entity me --project mine`"
    assert _describe("online", "") == (
        f"W&B is online. Files: {run.settings.sync_dir}; view: `wandb leet {run.settings.sync_dir}`; panels: {panels}."
    )


def test_an_open_run_is_respected(session, monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    run = session.init(project="mine", mode="offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert prepare() == "offline"
    assert session.run is run
    assert run.settings.sync_dir in caplog.text


@pytest.mark.parametrize("mode", [None, "online"])
def test_no_key_means_offline(session, monkeypatch, caplog, mode: str | None) -> None:
    monkeypatch.delenv("WANDB_MODE")
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    assert prepare() == "offline"
    (line,) = messages(caplog, "WARNING")
    assert line.startswith("W&B is offline (no API key). Files: ")
    assert "`wandb leet " in line
    assert "`wandb sync " in line
    assert session.init(project="test").offline


def test_a_malformed_key_means_offline(session, monkeypatch, caplog) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert prepare() == "offline"
    (line,) = messages(caplog, "WARNING")
    assert line.startswith("W&B is offline (WANDB_API_KEY invalid:")


def test_a_key_without_a_network_means_offline(session, monkeypatch, caplog) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr("emo_hf.dashboards.wandb.INIT_TIMEOUT", 1)
    monkeypatch.setattr("wandb.sdk.lib.identity._RESOLVE_TIMEOUT_SECONDS", 0.5, raising=False)  # three times 5 seconds
    assert prepare() == "online"
    assert session.run is None
    run = open_run(project="test", name="a run")
    assert (run.offline, run.project, run.name) == (True, "test", "a run")
    assert session.run is run
    (line,) = messages(caplog, "WARNING")
    assert "127.0.0.1:9" in line
    assert run.settings.sync_dir in line


def test_trainers_callback_opens_its_run_safely(session, monkeypatch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    given: dict[str, Any] = {}
    start = session.init

    def init(settings: Any, **options: Any) -> Any:
        given.update(options, init_timeout=settings.init_timeout)
        return start(mode="offline", **options)

    monkeypatch.setattr(session, "login", lambda prompt, verify: True)
    monkeypatch.setattr(session, "init", init)
    callback = SimpleNamespace(_wandb=session)
    assert guard(callback) is guard(callback) is callback._wandb
    assert guard(SimpleNamespace()) is guard(None) is None
    assert session.run is None
    callback._wandb.init(project="mine", name="a run", group="of mine")
    assert given == {"project": "mine", "name": "a run", "group": "of mine", "init_timeout": 30}
    assert callback._wandb.run is session.run
    assert (session.run.project, session.run.name, session.run.group) == ("mine", "a run", "of mine")


def test_w_and_b_that_cannot_start_is_disabled(tmp_path: Path, make, session, monkeypatch, caplog) -> None:
    def fail(*args: Any) -> None:
        raise OSError("no service")

    monkeypatch.setattr("wandb.sdk.lib.service.service_connection.connect_to_service", fail)
    assert prepare() == "disabled"
    assert messages(caplog, "WARNING") == ["W&B is disabled (OSError: no service): nothing is recorded there."]
    assert session.init(project="test").disabled  # what Trainer's callback does


def test_wandb_disabled_is_said_to_have_no_effect(session, monkeypatch, caplog) -> None:
    monkeypatch.setenv("WANDB_DISABLED", "true")
    assert prepare() == "offline"
    (line,) = messages(caplog, "WARNING")
    assert "WANDB_DISABLED has no effect" in line


NO_KEY = """
import os
from emo_hf.dashboards import wandb as ours
assert sys.stdin.isatty() == (sys.argv[2] == "terminal")
assert ours.prepare() == "offline"
import wandb
run = wandb.init(project="test")  # Trainer's callback
recorder = Recorder(sys.argv[1], 10, report_to=["wandb"])
recorder.write(1, signals)
recorder.close()
print("mode:", run.settings.mode)
"""


@pytest.mark.parametrize("place", ["terminal", "no terminal"])
def test_no_key_never_prompts(tmp_path: Path, alone, monkeypatch, place: str) -> None:
    monkeypatch.delenv("WANDB_MODE")
    command = alone(NO_KEY, tmp_path, place)
    if place == "no terminal":
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        code, output = done.returncode, done.stdout + done.stderr
    else:
        code, output = in_terminal(command)
    assert code == 0, output
    assert "mode: offline" in output
    assert "W&B is offline (no API key)" in output
    assert "environment variables will be ignored" not in output
    assert len(list(Path(os.environ["WANDB_DIR"]).rglob("offline-run-*/*.wandb"))) == 1


def in_terminal(command: list[str]) -> tuple[int, str]:
    """Runs a command on a terminal at which nobody types; a question would keep it there until it is killed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        patience = threading.Timer(30, process.kill)
        patience.start()
        output = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while chunk := os.read(ours, 4096):
                output += chunk
        os.close(ours)
        code = process.wait()
        patience.cancel()
    return code, output.decode()


DYING = """
import logging, os, signal, time
import wandb
logging.basicConfig(format="%(levelname)s %(message)s")
run = wandb.init(project="test")
recorder = Recorder(sys.argv[1], int(sys.argv[2]), report_to=["wandb"])
recorder.write(1, signals)
for task in os.listdir("/proc/self/task"):
    for child in open(f"/proc/self/task/{task}/children").read().split():  # W&B's service
        os.kill(int(child), signal.SIGKILL)
time.sleep(0.3)
for step in range(2, 7):
    recorder.write(step, signals)
    recorder.check()
    wandb.log({"train/loss": 1.0, "train/global_step": step})  # Trainer's callback
wandb.run.summary["train_loss"] = 1.0
recorder.close()
print("the training went on")
"""


@pytest.mark.parametrize(("total", "steps"), [(100, [1, 2, 3, 4, 5, 6]), (50_000, [6])])
def test_w_and_b_that_dies_is_dropped(tmp_path: Path, alone, total: int, steps: list[int]) -> None:
    done = subprocess.run(alone(DYING, tmp_path, total), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "the training went on" in done.stdout
    assert done.stderr.count("ERROR W&B failed and gets no more signals: ") == 1
    assert "ConnectionResetError: Connection lost." in done.stderr or "service process does not answer" in done.stderr
    assert done.stderr.count("ERROR") == 1
    assert [row["step"] for row in read_signals(tmp_path / "emo_signals.jsonl")] == steps


def test_a_sink_that_cannot_open_is_said(tmp_path: Path, make, session, monkeypatch, caplog) -> None:
    run = session.init(project="test")
    run.finish()
    monkeypatch.setattr(session, "run", run)  # an ended run refuses everything
    recorder = Recorder(tmp_path, 10, report_to=["wandb"], config=CONFIG)
    recorder.write(1, make())
    recorder.close()
    assert len(read_signals(recorder.path)) == 1
    (line,) = messages(caplog, "ERROR")
    assert line.startswith("The signals are not reported to wandb: ")
