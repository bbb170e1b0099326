"""A training that its arm cuts in two. Another Trainer does the second part."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import Subset
from transformers.trainer import OPTIMIZER_NAME

from emo_hf.lab.recipe.arms import Handover
from emo_hf.lab.run.arguments import training_arguments
from emo_hf.lab.run.callbacks import CutAt, History
from emo_hf.lab.run.trainer import ArmTrainer


def in_two_parts(
    trainer: ArmTrainer, handover: Handover, history: History, steps: int, make: Callable[..., ArmTrainer]
) -> tuple[ArmTrainer, dict[str, Any]]:
    """Trains both parts. Returns the second Trainer, and what the summary has to say of the first part."""
    cut = max(1, round(handover.at * steps))
    changed: dict[str, Any] = {}
    earlier = None
    if handover.data == "halves":
        trainer.train_dataset, later = _halves(trainer.train_dataset)
        earlier, later_test = _halves(trainer.eval_dataset)
        changed = {"train_dataset": later, "eval_dataset": later_test}
    trainer.add_callback(CutAt(cut))
    trainer.train()
    checkpoint = Path(str(trainer.args.output_dir), f"checkpoint-{cut}")
    if handover.optimizer == "fresh" and changed:
        args = training_arguments(trainer.run_config, checkpoint.with_name("second"), steps - cut, "none")
        history.start = cut
        rest = make(args=args, callbacks=[history], **changed)
        rest.train()
    else:  # with the batches that an uncut training would see
        if handover.optimizer == "fresh":
            (checkpoint / OPTIMIZER_NAME).unlink()  # without it, Trainer does not load the schedule's state either
        rest = make(args=trainer.args, callbacks=[history], **changed)
        rest.train(resume_from_checkpoint=str(checkpoint))
    shutil.rmtree(checkpoint)
    if earlier is None:
        return rest, {}
    return rest, {"earlier_accuracy": rest.evaluate(earlier, metric_key_prefix="earlier")["earlier_accuracy"]}


def _halves(examples: Any) -> tuple[Subset[Any], Subset[Any]]:
    """Returns the examples of the classes with even numbers, and the others."""
    odd = [int(label) % 2 for label in examples["labels"]]
    even_rows, odd_rows = ([row for row, part in enumerate(odd) if part == half] for half in (0, 1))
    return Subset(examples, even_rows), Subset(examples, odd_rows)
