"""Trains one run and returns its summary. `emo_hf.lab.run.worker` gives it a process and a folder."""

import functools
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from emo_hf.dashboards import read_signals
from emo_hf.lab import sources, tasks
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.run import checkpoints, measures, processes
from emo_hf.lab.run.arguments import total_steps, training_arguments
from emo_hf.lab.run.callbacks import Comparable, History, Trajectory
from emo_hf.lab.run.handover import in_two_parts
from emo_hf.lab.run.measures import null_nonfinite
from emo_hf.lab.run.trainer import ArmTrainer
from emo_hf.lab.sources import Examples, Images, TaskData
from emo_hf.lab.tasks.parts import Parts
from emo_hf.run_folder import CLASSES, RunFolder


def train(
    run_config: RunConfig,
    folder: RunFolder,
    report_to: str,
    save_every: int | None = None,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Trains and evaluates `run_config`; returns its summary.

    Args:
        run_config: the run.
        folder: of the run.
        report_to: "none", "wandb" or "trackio".
        save_every: steps between two checkpoints; None saves none.
        checkpoint: the one to go on from, after `checkpoints.rewind`.

    Raises:
        RecipeError: the data, the model, or a run to replay is missing.
    """
    data = sources.examples(run_config)
    set_seed(run_config.seed)
    parts = tasks.build(run_config, data)
    if run_config.arm.weights == "bfloat16":
        torch.nn.Module.to(parts.model, torch.bfloat16)
    steps = total_steps(run_config, len(parts.train_dataset))
    history, trajectory = History(folder.history), Trajectory()
    past = read_signals(folder.history) if checkpoint else []
    history.rows += past
    callbacks: list[TrainerCallback] = [history, checkpoints.Clock(past)]
    if "trajectory" in run_config.measure:
        callbacks.append(trajectory)
    if report_to == "wandb" and processes.rank() == 0:
        callbacks.append(Comparable(run_config))
    make = functools.partial(ArmTrainer, run_config, folder, **vars(parts))
    trainer = make(args=training_arguments(run_config, folder.path, steps, report_to, save_every), callbacks=callbacks)
    if handover := run_config.arm.handover:
        trainer, extra = in_two_parts(trainer, handover, history, steps, make)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        extra = checkpoints.whole_train_loss(past, trainer) if checkpoint else {}
    rows = history.rows
    if "eval_loss" not in rows[-2] or rows[-2]["step"] != rows[-1]["step"]:  # the last row is train()'s own
        trainer.evaluate()
    if trajectory.steps and processes.rank() == 0:
        trajectory.save(folder.trajectory)
    return null_nonfinite(
        _described(run_config, parts, data)
        | {"steps": steps}
        | measures.of_history(rows, run_config.task.metric, run_config.equal_train_loss)
        | measures.of_signals(folder.signals, rows)
        | measures.of_settings(folder.settings)
        | measures.of_memory(trainer)
        | extra
    )


def _described(run_config: RunConfig, parts: Parts, data: TaskData) -> dict[str, Any]:
    """Returns what was trained, and on what."""
    several = {"processes": run_config.processes, "local_sgd_steps": run_config.arm.local_sgd_steps}
    return {
        "recipe": run_config.recipe,
        "size": run_config.size,
        "arm": run_config.name,
        "seed": run_config.seed,
        "optimizer": run_config.arm.optimizer,
        "tuning": str(run_config.arm.tuning),
        **(several if run_config.processes else {}),
        "train_examples": len(parts.train_dataset),
        "test_examples": len(parts.eval_dataset),
        "data_sha256": data.sha256,
        **({CLASSES: list(data.labels)} if isinstance(data, Examples | Images) else {}),
        "parameters": sum(p.numel() for p in parts.model.parameters()),
        "trained_parameters": sum(p.numel() for p in parts.model.parameters() if p.requires_grad),
    }
