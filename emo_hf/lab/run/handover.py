"""A training cut in two by its arm: the second part goes on with another Trainer."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import Subset
from transformers.trainer import OPTIMIZER_NAME

from emo_hf.lab.run.arguments import arguments
from emo_hf.lab.run.callbacks import CutAt, History
from emo_hf.lab.run.trainer import ArmTrainer


def in_two_parts(
    trainer: ArmTrainer, history: History, steps: int, make: Callable[..., ArmTrainer]
) -> tuple[ArmTrainer, dict[str, Any]]:
    """Trains up to the handover, then the rest with another Trainer; returns that one and more for the summary."""
    handover = trainer.run_config.arm.handover
    cut = max(1, round(handover.at * steps))
    changed, earlier = {}, None
    if handover.data == "halves":
        trainer.train_dataset, later = _halves(trainer.train_dataset)
        earlier, later_test = _halves(trainer.eval_dataset)
        changed = {"train_dataset": later, "eval_dataset": later_test}
    trainer.add_callback(CutAt(cut))
    trainer.train()
    checkpoint = Path(trainer.args.output_dir, f"checkpoint-{cut}")
    if handover.optimizer == "fresh" and changed:
        args = arguments(trainer.run_config, checkpoint.with_name("second"), steps - cut, "none")
        history.start = cut
        rest = make(args=args, callbacks=[history], **changed)
        rest.train()
    else:  # on the batches that an uncut training goes on to
        if handover.optimizer == "fresh":
            (checkpoint / OPTIMIZER_NAME).unlink()  # Trainer loads the schedule's state neither, then
        rest = make(args=trainer.args, callbacks=[history], **changed)
        rest.train(resume_from_checkpoint=str(checkpoint))
    shutil.rmtree(checkpoint)
    if earlier is None:
        return rest, {}
    return rest, {"earlier_accuracy": rest.evaluate(earlier, metric_key_prefix="earlier")["earlier_accuracy"]}


def _halves(examples: Any) -> tuple[Subset, Subset]:
    """Splits a data set in two by its classes: those with even numbers, and the others."""
    labels = [int(label) for label in examples["labels"]]
    return tuple(Subset(examples, [row for row, label in enumerate(labels) if label % 2 == part]) for part in (0, 1))
