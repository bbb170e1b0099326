"""What a run writes down while Trainer trains it, and where it is cut."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerState

from emo_hf.dashboards import wandb
from emo_hf.dashboards.jsonl import LogRow
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.run import processes
from emo_hf.lab.run.measures import null_nonfinite


class History(TrainerCallback):
    """Writes every log of Trainer as one row, at once, as the parent process follows it.

    Args:
        path: of the file.
        start: steps that another Trainer has trained before.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path, self.start = path, start
        self.rows: list[LogRow] = []

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step + self.start == 0:
            self.write({"step": 0, "total_steps": state.max_steps})

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.write({"step": state.global_step + self.start, **null_nonfinite(kwargs["logs"])})

    def write(self, row: LogRow) -> None:
        self.rows.append(row)
        if processes.rank() > 0:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")


class Comparable(TrainerCallback):
    """Gives W&B what it compares runs by, also for optimizers without an EmotionCallback."""

    def __init__(self, run_config: RunConfig) -> None:
        self.config = {
            "recipe": run_config.recipe,
            "size": run_config.size,
            "arm": run_config.name,
            "seed": run_config.seed,
        }
        if not run_config.arm.is_emo:
            self.config["emo_optimizer"] = run_config.arm.optim

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        wandb.describe(self.config)

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        losses = [log["eval_loss"] for log in state.log_history if math.isfinite(log.get("eval_loss", math.nan))]
        if losses:
            wandb.summarize({"best/eval_loss": min(losses)})


class Trajectory(TrainerCallback):
    """Keeps the classifier's weights at the start and at every evaluation."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.weights: list[np.ndarray] = []

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        head = [module for module in kwargs["model"].modules() if isinstance(module, torch.nn.Linear)][-1]
        self.steps.append(state.global_step)
        self.weights.append(head.weight.detach().float().flatten().cpu().numpy().copy())

    on_evaluate = on_train_begin

    def save(self, path: Path) -> None:
        np.savez_compressed(path, steps=np.array(self.steps), weights=np.array(self.weights))


class CutAt(TrainerCallback):
    """Saves a checkpoint at a step and ends the training there."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True
