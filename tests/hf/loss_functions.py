"""A loss of the user's own, and Trainers that override ``compute_loss``."""

from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import Trainer

from tests.hf.tiny_gpt2 import make_data


def token_mean(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy over the labels of the whole accumulated batch, if it is told how many, else of this one."""
    logits, targets = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    if num_items_in_batch is None:
        return torch.nn.functional.cross_entropy(logits, targets)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / num_items_in_batch


def batch_mean(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
    """Ignores the count, as functions from before gradient accumulation had one do."""
    return token_mean(outputs, labels)


class UsesCount(Trainer):
    """Overrides compute_loss and normalizes by the labels of the whole accumulated batch."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = token_mean(model(input_ids=inputs["input_ids"]), inputs["labels"], num_items_in_batch)
        return (loss, None) if return_outputs else loss


class IgnoresCount(Trainer):
    """Overrides compute_loss as scripts written for transformers < 4.46 do."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = batch_mean(model(input_ids=inputs["input_ids"]), inputs["labels"])
        return (loss, None) if return_outputs else loss


class Stream(IterableDataset):
    """Rows one after the other, of unknown number."""

    def __init__(self, rows: list[dict[str, torch.Tensor]] | None = None):
        self.rows = make_data() if rows is None else rows

    def __iter__(self):
        return iter(self.rows)
