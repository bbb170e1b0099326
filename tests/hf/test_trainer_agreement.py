"""W&B with no key, no network and no setting: it records offline, and what it holds is what the other records hold."""

import json
import os

import pytest

from tests import ROOT

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
import wandb
from transformers import Trainer, TrainingArguments
import emo_hf
sys.path.insert(0, sys.argv[1])
from tests.hf.tiny_gpt2 import make_data, make_model

args = TrainingArguments("out", optim="emosens", max_steps=6, warmup_steps=2, seed=3, run_name="mine", use_cpu=True,
                         per_device_train_batch_size=2, report_to=["wandb"], logging_steps=1, save_steps=6,
                         disable_tqdm=True, dataloader_pin_memory=False)
callbacks = [emo_hf.EmotionCallback()] if sys.argv[2] == "callback" else []
Trainer(make_model(), args, train_dataset=make_data(), callbacks=callbacks).train()
assert wandb.run is not None
wandb.finish()
wandb.teardown()
"""


@pytest.mark.parametrize("way", ["wrap", "callback"])
def test_state_record_and_wandb_agree_on_every_step(way, tmp_path, run_python, read_signals, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    (tmp_path / "train.py").write_text(SCRIPT)
    result = run_python("train.py", str(ROOT), way, EMO_HF_PATCH="0" if way == "callback" else "1")
    assert "W&B is offline (no API key)" in result.stderr

    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    lines = run_python("-m", "wandb", "leet", "inspect", "--json", os.fspath(run)).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    steps = {item["train/global_step"]: item for item in history if "emo/pulse" in item}
    losses = {item["train/global_step"]: item for item in history if "train/loss" in item}
    rows = {row["step"]: row for row in read_signals(tmp_path / "out")}
    state = json.loads((tmp_path / "out" / "checkpoint-6" / "trainer_state.json").read_text())
    logs = {log["step"]: log for log in state["log_history"] if "loss" in log}

    assert list(steps) == list(losses) == list(rows) == list(logs) == [1, 2, 3, 4, 5, 6]
    for step, row in rows.items():
        for name in ("emo/pulse", "emo/lr", "emo/loss", "emo/scalar"):
            assert steps[step][name] == row[name] == logs[step][name]
        assert losses[step]["train/learning_rate"] == row["emo/lr"] == logs[step]["learning_rate"]
    (config,) = (record["run"] for record in records if record["type"] == "run")
    assert config["display_name"] == "mine"
