"""Runs as `emo-hf run` leaves them, with made-up numbers: everything that tables, figures and cards read."""

import json
import math
from pathlib import Path

import numpy as np
import yaml

from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.schema import Recipe, RunConfig

TREC = """
name: made-up
description: GPT-2 learns which of six kinds of answer a question asks for.
claim: EmoSens is better than AdamW
source: its README
task: {type: sequence-classification, data: {hub: {name: CogComp/trec, revision: abc123, text: text, label: label},
  files: trec-6}}
metric: accuracy
baseline: adamw
rule: [{arm: emosens, against: adamw, better_by: 0}]
measure: [trajectory]
seeds: [0, 1]
sizes:
  small:
    model: {config: {layers: 1, heads: 2, width: 16, vocabulary: 300}}
    steps: 60
    batch_size: 8
    evaluations: 6
arms:
  emosens: {optim: emosens-2.0, lr: 1.0e-4, tuning: authors' default}
  emosens-unfed: {optim: emosens-2.0, lr: 1.0e-4, withhold_loss: true, tuning: authors' default}
  adamw: {optim: adamw_torch, lr: 1.0e-4, tuning: {how: grid, grid: {lr: [1.0e-4, 1.0e-3]}, chosen_by: held-out loss}}
"""
ENV = {
    "python": "3.11.7",
    "packages": {"emo-hf": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0", "wandb": None},
    "device": "cpu",
    "cpu_threads": 1,
    "system": "Linux",
}


def recipe(content: dict | None = None) -> dict:
    """Returns the recipe `TREC` with some keys replaced."""
    return {**yaml.safe_load(TREC.replace("1.0e-", "1.e-")), **(content or {})}


def write(runs: Path, content: dict, data_dir: Path | None = None, without: tuple[str, ...] = ()) -> Path:
    """Writes all runs of a recipe but those of the arms `without`; returns RUNS/<recipe>/<size>."""
    text = yaml.safe_dump(content, sort_keys=False)
    runs.mkdir(parents=True, exist_ok=True)
    (runs / "recipe.yaml").write_text(text)
    made: Recipe = loading.recipe(str(runs / "recipe.yaml"))
    place = runs / made.name / made.default_size
    for run_config in made.run_configs(data_dir=data_dir):
        if run_config.name not in without:
            run(place / run_config.name / f"seed{run_config.seed}", run_config, list(made.arms).index(run_config.name))
    (runs / "recipe.yaml").rename(place / "recipe.yaml")
    return place


def run(folder: Path, run_config: RunConfig, place: int) -> None:
    """Writes one run whose loss falls from 2.3, and slower for later arms."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng([run_config.seed, place])
    steps, metric = run_config.scale.steps, run_config.task.metric
    speed = 1 / (0.15 + 0.05 * place)
    level = [0.5 + 1.8 * math.exp(-speed * step / steps) for step in range(1, steps + 1)]
    rows, signals = [{"step": 0, "total_steps": steps}], []
    for step, loss in enumerate(level, start=1):
        loss = loss + noise.normal(0, 0.1)
        rows.append({"step": step, "loss": loss, "grad_norm": 1.0, "learning_rate": run_config.arm.lr, "epoch": 0.1})
        signals.append({"step": step, "emo/lr": run_config.arm.lr, "emo/scalar": 0.1, "emo/loss": loss})
        if step % (steps // run_config.scale.evaluations) == 0:
            right = 0.95 - 0.33 * (loss - 0.3)
            score = right if metric == "accuracy" else 40 * math.exp(loss)
            rows.append({"step": step, "eval_loss": loss + 0.05, f"eval_{metric}": score, "epoch": 0.1})
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if run_config.arm.is_emo:
        (folder / "emo_signals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in signals))
    if "trajectory" in run_config.measure:
        start = np.random.default_rng(run_config.seed).normal(size=96)
        ways = np.cumsum(noise.normal(0.05 * speed, 0.3, size=(run_config.scale.evaluations, 96)), axis=0)
        weights = np.concatenate([start[None], start + ways]).astype(np.float32)
        every = steps // run_config.scale.evaluations
        np.savez(folder / "trajectory.npz", steps=np.arange(0, steps + 1, every), weights=weights)
    (folder / "log.txt").write_text("")
    last = {metric: rows[-1][f"eval_{metric}"], "eval_loss": rows[-1]["eval_loss"], "seconds": 100.0 + run_config.seed}
    finish(folder, run_config, **last)


def finish(folder: Path, run_config: RunConfig, **numbers: float | None) -> None:
    """Writes what a comparison is made of: the settings of a run, where it ran, and its summary with `numbers`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(run_config.model_dump(mode="json", exclude_none=True)))
    (folder / "env.json").write_text(json.dumps(ENV))
    summary = {
        "recipe": run_config.recipe, "size": run_config.size, "arm": run_config.name, "seed": run_config.seed,
        "optimizer": run_config.arm.optimizer, "tuning": str(run_config.arm.tuning),
        "train_examples": 5452, "test_examples": 500, "data_sha256": "ab" * 32, "parameters": 661760,
        "trained_parameters": 661760, "steps": run_config.scale.steps or 60, "train_loss": 0.7,
        "step_size_median": run_config.arm.lr,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary | numbers))
