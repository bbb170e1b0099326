"""Trainers of the tiny model, and what they wrote."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from transformers import Trainer, TrainingArguments

from emo_hf.hf import registration
from tests import ROOT
from tests.hf.tiny_gpt2 import make_data, make_model


@pytest.fixture(scope="session", autouse=True)
def frozen_imports():
    """Every Trainer.train() collects garbage; it need not search the many objects of imported libraries."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def clean_transformers(monkeypatch: pytest.MonkeyPatch):
    """Each test starts with the wrap that importing emo_hf installs, whatever the one before did.

    And with its own precision and compilation, which TrainingArguments leave in os.environ for later Accelerators.
    """
    monkeypatch.delenv("EMO_HF_PATCH", raising=False)
    registration.install_patches()
    environment = dict(os.environ)
    yield
    registration.install_patches()
    os.environ.clear()
    os.environ.update(environment)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def make_args(tmp_path: Path) -> Callable[..., TrainingArguments]:
    def make(**options: Any) -> TrainingArguments:
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "optim": "emosens",
            "lr_scheduler_type": "constant",
            "per_device_train_batch_size": 2,
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "use_cpu": True,
            "dataloader_pin_memory": False,
        }
        return TrainingArguments(**{**defaults, **options})

    return make


@pytest.fixture
def make_trainer(make_args: Callable[..., TrainingArguments]) -> Callable[..., Trainer]:
    """Builds a Trainer (or `kind`) of the tiny model; further options are those of TrainingArguments."""

    def make(kind: type[Trainer] = Trainer, trainer: dict[str, Any] | None = None, **options: Any) -> Trainer:
        parts = {"train_dataset": make_data(), **(trainer or {})}
        return kind(model=make_model(), args=make_args(**options), **parts)

    return make


@pytest.fixture
def read_signals() -> Callable[[str | Path], list[dict[str, Any]]]:
    def read(output_dir: str | Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (Path(output_dir) / "emo_signals.jsonl").read_text().splitlines()]

    return read


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs Python with `arguments` in an empty folder; fails the test when it fails."""

    def run(*arguments: str, ok: bool = True, **environment: str) -> subprocess.CompletedProcess:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not ok or result.returncode == 0, result.stderr
        return result

    return run
