"""Records of trainings made by hand, in the places where a report looks for them."""

import json
import math
from pathlib import Path
from typing import Any

import yaml


def row(step: int, **more: Any) -> dict[str, Any]:
    """Signals of one step of version 3.9: a loss that falls from 2, calm in the end."""
    loss = 2 * math.exp(-step / 50) + 0.01 * (step % 3)
    values = {"loss": loss, "ema_short": loss, "ema_medium": loss * 1.01, "ema_long": loss * 1.1, "ema_gap": 0.1}
    values |= {"scalar": 0.1, "scalar_min": -0.2, "scalar_max": 0.3, "trust": 0.9, "trust_abs": 0.9}
    values |= {"lr": 1e-4 * step, "lr_min": 5e-5 * step, "lr_max": 2e-4 * step, "pulse": 1e-4 * step, "drift": 0.0}
    values |= {"noise": 0.2, "distance": 0.8, "snr": 1.0 + step, "snr_now": 1.0, "lr_at_ceiling": 0.0}
    values |= {"lr_at_floor": 0.0, "stop_margin_snr": 0.3, "stop_margin_loss": 0.2 - loss, "step_seconds": 0.01}
    values |= {"stop_share": float(loss < 0.2), "stop_count": 0}
    return {"step": step, **{f"emo/{name}": value for name, value in values.items()}, **more}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")


def write_run(folder: Path, steps: int = 60, optimizer: str = "emosens", seed: int = 0) -> Path:
    """Writes what a training with Trainer leaves: the signals of every step, and Trainer's own log."""
    write_rows(folder / "emo_signals.jsonl", [row(step) for step in range(1, steps + 1)])
    settings = {"emo_optimizer": optimizer, "emo_version": "3.9", "seed": seed, "total_steps": steps}
    (folder / "emo_run.json").write_text(json.dumps(settings), encoding="utf-8")
    write_state(folder / "trainer_state.json", steps)
    return folder


def write_state(path: Path, steps: int = 60, rate: float = 1e-3) -> Path:
    """Writes a trainer_state.json with a log every 5 steps and an evaluation every 20."""
    logs: list[dict[str, Any]] = []
    for step in range(5, steps + 1, 5):
        logs.append({"step": step, "loss": 3 - step / 100, "grad_norm": 1.5, "learning_rate": rate, "epoch": 1.0})
        if step % 20 == 0:
            logs.append({"step": step, "eval_loss": 3.5 - step / 100, "eval_accuracy": 0.5, "eval_runtime": 9.0})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"global_step": steps, "log_history": logs}), encoding="utf-8")
    return path


def write_sets(path: Path, steps: int = 60) -> Path:
    """Writes a trainer_state.json of a training with a dictionary of evaluation sets, b and a."""
    logs: list[dict[str, Any]] = []
    for step in range(20, steps + 1, 20):
        logs.append({"step": step, "loss": 3 - step / 100, "learning_rate": 1e-3, "epoch": 1.0})
        for name, least in (("b", 2.0), ("a", 1.0)):
            values = {"loss": least + 1 / step, "accuracy": 0.5, "runtime": 9.0, "samples_per_second": 8.0}
            values |= {"steps_per_second": 7.0, "model_preparation_time": 6.0}
            logs.append({"step": step, **{f"eval_{name}_{key}": value for key, value in values.items()}, "epoch": 1.0})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"global_step": steps, "log_history": logs}), encoding="utf-8")
    return path


def write_cell(runs: Path, arm: str, seed: int, emo: bool = True, steps: int = 60) -> Path:
    """Writes the folder of one run of a recipe."""
    folder = runs / "quick" / "small" / arm / f"seed{seed}"
    history = [{"step": 0, "total_steps": steps}]
    for step in range(1, steps + 1):
        history.append({"step": step, "loss": 2 - step / 100 + seed, "learning_rate": 1e-3})
    history.append({"step": steps, "eval_loss": 1.5 + seed, "eval_accuracy": 0.7})
    write_rows(folder / "history.jsonl", history)
    config = {"recipe": "quick", "size": "small", "name": arm, "seed": seed, "arm": {"optim": arm}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    if emo:
        write_rows(folder / "emo_signals.jsonl", [row(step) for step in range(1, steps + 1)])
    return folder
