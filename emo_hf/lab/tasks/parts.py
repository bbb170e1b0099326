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
        train_dataset, eval_dataset: their lengths are the numbers of examples; only a language model's tokenizer
            tells how many pieces a text has.
        compute_metrics: gives the task's metric at every evaluation, from logits or from what
        preprocess_logits_for_metrics: makes of the logits of each batch, so that not all need to be kept.
    """

    model: PreTrainedModel
    processing_class: PreTrainedTokenizerBase | None
    train_dataset: Dataset
    eval_dataset: Dataset
    data_collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    compute_metrics: Callable[[Any], dict[str, float]]
    preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None
