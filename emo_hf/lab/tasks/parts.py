"""What each kind of task hands to a Trainer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Parts:
    """The arguments of a Trainer that depend on the task.

    Attributes:
        train_dataset, eval_dataset: their lengths are the numbers of examples.
        compute_metrics: computes the task's metric at every evaluation, from the logits or from what
            `preprocess_logits_for_metrics` keeps of them.
    """

    model: PreTrainedModel
    processing_class: PreTrainedTokenizerBase | None
    train_dataset: Dataset
    eval_dataset: Dataset
    data_collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    compute_metrics: Callable[[Any], dict[str, float]]
    preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None
