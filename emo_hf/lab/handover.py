"""A training cut in two by its arm: the second part goes on with another Trainer."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from emo_hf.lab.arguments import arguments
from emo_hf.lab.callbacks import CutAt, History
from emo_hf.lab.trainer import ArmTrainer


def in_two_parts(
    trainer: ArmTrainer, history: History, steps: int, make: Callable[..., ArmTrainer]
) -> tuple[ArmTrainer, dict[str, Any]]:
    """Trains up to the handover, then the rest with another Trainer; returns that one and more for the summary."""
    handover = trainer.cell.arm.handover
    cut = max(1, round(handover.at * steps))
    parts, tests = {}, {}
    if handover.data == "halves":
        parts = dict(enumerate(_halves(trainer.train_dataset)))
        tests = dict(enumerate(_halves(trainer.eval_dataset)))
        trainer.train_dataset = parts[0]
    trainer.add_callback(CutAt(cut))
    trainer.train()
    checkpoint = Path(trainer.args.output_dir, f"checkpoint-{cut}")
    changed = {"train_dataset": parts[1], "eval_dataset": tests[1]} if parts else {}
    if handover.optimizer == "kept":
        rest = make(args=trainer.args, callbacks=[history], **changed)
        rest.train(resume_from_checkpoint=str(checkpoint))
    else:
        folder = Path(trainer.args.output_dir, "second")
        args = arguments(trainer.cell, folder, steps - cut, "none")
        history.start = cut
        rest = make(args=args, callbacks=[history], **changed)
        rest.train()
    shutil.rmtree(checkpoint)
    if not tests:
        return rest, {}
    quiet = rest.evaluate(tests[0], metric_key_prefix="earlier")
    return rest, {"earlier_accuracy": quiet["earlier_accuracy"]}


def _halves(examples: Any) -> tuple[Subset, Subset]:
    """Splits a data set in two by its classes: those with even numbers, and the others."""
    labels = [int(label) for label in examples["labels"]]
    return tuple(Subset(examples, [row for row, label in enumerate(labels) if label % 2 == part]) for part in (0, 1))
