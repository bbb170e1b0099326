"""Trains one cell with a Trainer and returns its summary. `emo_hf.lab.child` gives it a process and a folder."""

import functools
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from emo_hf.lab import checkpoints, measures, processes, sources, tasks
from emo_hf.lab.arguments import arguments, total_steps
from emo_hf.lab.callbacks import Comparable, History, Trajectory
from emo_hf.lab.handover import in_two_parts
from emo_hf.lab.measures import finite
from emo_hf.lab.spec import Cell
from emo_hf.lab.tasks.parts import Parts
from emo_hf.lab.trainer import ArmTrainer


def train(
    cell: Cell, folder: Path, report_to: str, save_every: int | None = None, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Trains and evaluates `cell`; returns its summary.

    Args:
        cell: the run.
        folder: of the run.
        report_to: "none", "wandb" or "trackio".
        save_every: steps between two checkpoints; None saves none.
        checkpoint: the one to go on from; `folder` was rewound to it.

    Raises:
        RecipeError: the data, the model, or a run to replay is missing.
    """
    found = sources.examples(cell)
    set_seed(cell.seed)
    parts = tasks.build(cell, found)
    if cell.arm.weights == "bfloat16":
        parts.model.to(torch.bfloat16)
    steps = total_steps(cell, len(parts.train_dataset))
    history, trajectory = History(folder / "history.jsonl"), Trajectory()
    past = checkpoints.past(folder) if checkpoint else []
    history.rows += past
    callbacks: list[TrainerCallback] = [
        history,
        checkpoints.Clock(past),
        *([trajectory] if "trajectory" in cell.measure else []),
    ]
    if report_to == "wandb" and processes.rank() == 0:
        callbacks.append(Comparable(cell))
    make = functools.partial(ArmTrainer, cell, folder, **vars(parts))
    trainer = make(args=arguments(cell, folder, steps, report_to, save_every), callbacks=callbacks)
    if cell.arm.handover:
        trainer, extra = in_two_parts(trainer, history, steps, make)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        extra = checkpoints.of_whole(past, trainer) if checkpoint else {}
    rows = history.rows
    if "eval_loss" not in rows[-2] or rows[-2]["step"] != rows[-1]["step"]:  # the last row is train()'s own
        trainer.evaluate()
    if trajectory.steps and processes.rank() == 0:
        trajectory.save(folder / "trajectory.npz")
    return finite(
        _described(cell, parts, found.sha256)
        | {"steps": steps}
        | measures.of_history(rows, cell.task.metric, cell.equal_train_loss)
        | measures.of_signals(folder / "emo_signals.jsonl", rows)
        | measures.of_memory(trainer)
        | extra
    )


def _described(cell: Cell, parts: Parts, sha256: str) -> dict[str, Any]:
    """Returns what was trained, on what; `sha256` is that of the data."""
    return {
        "recipe": cell.recipe,
        "size": cell.size,
        "arm": cell.name,
        "seed": cell.seed,
        "optimizer": cell.arm.optimizer,
        "tuning": str(cell.arm.tuning),
        **({"processes": cell.processes, "local_sgd_steps": cell.arm.local_sgd_steps} if cell.processes else {}),
        "train_examples": len(parts.train_dataset),
        "test_examples": len(parts.eval_dataset),
        "data_sha256": sha256,
        "parameters": sum(p.numel() for p in parts.model.parameters()),
        "trained_parameters": sum(p.numel() for p in parts.model.parameters() if p.requires_grad),
    }
