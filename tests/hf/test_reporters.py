"""Trainer's reporters: the signals join the run that Trainer opens, at the step that they belong to."""

import importlib.util
import json
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from emo_hf.dashboards import Recorder
from emo_hf.hf import EmotionCallback, registration
from tests import ROOT

STEPS = 14
Points = list[tuple[int, str, float]]  # step, key, value


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the reporter writes."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tensorboard"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("COMET_OFFLINE_DIRECTORY", str(tmp_path / "comet"))
    monkeypatch.setenv("COMET_START_ONLINE", "0")
    monkeypatch.setenv("COMET_LOGGING_CONSOLE", "critical")
    return tmp_path


def points_of(points: Points, prefix: str = "") -> dict[int, dict[str, float]]:
    rows: dict[int, dict[str, float]] = {}
    for step, key, value in points:
        if key.startswith(prefix):
            rows.setdefault(step, {})[key] = value
    return rows


def train(make_trainer: Callable[..., Any], reporter: str) -> None:
    make_trainer(report_to=[reporter], max_steps=STEPS, logging_steps=7, run_name="mine", seed=3).train()


def emo(row: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key.startswith("emo/")}


def test_trackio(make_trainer, read_signals, home: Path, monkeypatch) -> None:
    trackio = pytest.importorskip("trackio")
    for module in (trackio, trackio.utils, trackio.sqlite_storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", home / "trackio", raising=False)
    train(make_trainer, "trackio")
    with sqlite3.connect(home / "trackio" / "huggingface.db") as database:
        logged = [(step, json.loads(row)) for step, row in database.execute("SELECT step, metrics FROM metrics")]
        (config,) = database.execute("SELECT config FROM configs").fetchone()
    rows = [(step, row) for step, row in logged if emo(row)]
    assert [(step, emo(row)) for step, row in rows] == [(row["step"], emo(row)) for row in read_signals(home / "run")]
    assert all(row["train/global_step"] == step for step, row in rows)
    assert [row["train/global_step"] for _, row in logged if "train/loss" in row] == [7, 14]
    assert json.loads(config).items() >= {"emo_optimizer": "emosens", "emo_version": "3.9", "seed": 3}.items()


def test_tensorboard(make_trainer, read_signals, home: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(make_trainer, "tensorboard")
    (file,) = home.rglob("events.out.tfevents.*")  # Trainer's own file, no second one
    events = accumulator.EventAccumulator(str(file)).Reload()
    scalars = events.Tags()["scalars"]
    points = [(event.step, tag, event.value) for tag in scalars for event in events.Scalars(tag)]
    check_windows(points, read_signals(home / "run"), tolerance=1e-6)
    assert points_of(points).keys() == {7, 10, 14}
    assert "train/loss" in points_of(points)[7]


@pytest.mark.filterwarnings("ignore")  # MLflow has many of its own
def test_mlflow(make_trainer, read_signals, home: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(None)
    train(make_trainer, "mlflow")
    with sqlite3.connect(home / "mlflow.db") as database:
        points = database.execute("SELECT step, key, value FROM metrics").fetchall()
        tags = dict(database.execute("SELECT key, value FROM tags").fetchall())
    summary = points_of([point for point in points if point[0] == 0])[0]
    check_windows([point for point in points if point[0]], read_signals(home / "run"))
    assert summary.keys() == {"emo/lr_median", "emo/lr_ceiling_share"}
    assert tags.items() >= {"emo_optimizer": "emosens", "emo_version": "3.9", "seed": "3"}.items()


def check_windows(points: Points, rows: list[dict[str, Any]], tolerance: float = 1e-12) -> None:
    """Slow reporters get a row per 10 steps, and what is left at the end."""
    windows = points_of(points, "emo/")
    assert windows.keys() == {10, 14}
    for last, steps in ((10, rows[:10]), (14, rows[10:])):
        assert windows[last].keys() >= emo(rows[0]).keys()
        for key in ("emo/lr", "emo/loss", "emo/scalar"):
            assert windows[last][key] == pytest.approx(sum(row[key] for row in steps) / len(steps), rel=tolerance)
        assert windows[last]["emo/lr_max"] == pytest.approx(max(row["emo/lr"] for row in steps), rel=tolerance)


COMET = """
import sys
import comet_ml
from transformers import Trainer, TrainingArguments
import emo_hf
sys.path.insert(0, sys.argv[1])
from tests.hf.tiny_gpt2 import make_data, make_model

args = TrainingArguments("run", optim="emosens", max_steps=14, seed=3, use_cpu=True, per_device_train_batch_size=2,
                         report_to=["comet_ml"], save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False)
Trainer(make_model(), args, train_dataset=make_data()).train()
comet_ml.end()
"""


def test_comet(run_python, read_signals, home: Path) -> None:  # in a process of its own: it changes the interpreter
    if importlib.util.find_spec("comet_ml") is None:
        pytest.skip("comet_ml is not installed")
    (home / "train.py").write_text(COMET)
    run_python("train.py", str(ROOT))
    (archive,) = (home / "comet").glob("*.zip")
    messages = [json.loads(line) for line in zipfile.ZipFile(archive).read("messages.json").splitlines()]
    metrics = [message["payload"]["metric"] for message in messages if message["type"] == "metric_msg"]
    points = [(metric["step"], metric["metricName"], metric["metricValue"]) for metric in metrics]
    check_windows([point for point in points if point[0] is not None], read_signals(home / "run"))


def test_runs_are_checked_before_trainer_reports_to_them(make_trainer, monkeypatch) -> None:
    events: list[str] = []

    class Reporter(TrainerCallback):
        def on_log(self, *args: Any, **kwargs: Any) -> None:
            events.append("log")

    monkeypatch.setattr(Recorder, "check", lambda self: events.append("check"))
    make_trainer(trainer={"callbacks": [Reporter()]}, max_steps=6, logging_steps=3).train()
    assert events == ["check", "log", "check", "log", "log"]  # the last one sums up the training


def test_an_ignored_warmup_is_said(make_trainer, caplog) -> None:
    make_trainer(max_steps=2, warmup_steps=1, lr_scheduler_type="constant").train()
    assert [record.message for record in caplog.records if "warmup (1) has no effect" in record.message]


def test_a_reporter_without_a_run_is_said(make_trainer, home: Path, caplog) -> None:
    pytest.importorskip("tensorboard")
    registration.remove_patches()  # then nothing knows the writer of Trainer's callback
    trainer = make_trainer(trainer={"callbacks": [EmotionCallback()]}, report_to=["tensorboard"], max_steps=1)
    trainer.train()
    (message,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert "not reported to tensorboard: there is no open run" in message
    assert "attach(trainer)" in message
