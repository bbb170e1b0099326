"""The metrics of the tasks, in memory and without a download: `evaluate.load` always asks the hub.

Each is an `evaluate.Metric`, and at the same time the ``compute_metrics`` of a Trainer.
"""

from typing import Any

import datasets
import evaluate
import torch
from torch.nn.functional import cross_entropy
from transformers import EvalPrediction


class Accuracy(evaluate.Metric):
    """The share of right predictions. As ``compute_metrics``, it takes logits of shape (examples, classes)."""

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)  # no file that runs at the same time could share

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of right predictions, in [0, 1].",
            citation="",
            inputs_description="predictions, references: class numbers",
            features=datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Value("int64"))),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        right = sum(int(p == r) for p, r in zip(predictions, references, strict=True))
        return {"accuracy": right / len(references)}

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        logits: Any = prediction.predictions
        return self.compute(predictions=logits.argmax(-1), references=prediction.label_ids)


class Perplexity(evaluate.Metric):
    """exp(mean loss of a token). As ``compute_metrics``, it needs `token_losses` as ``preprocess_logits_for_metrics``.

    Predictions are the summed token losses of each example, references its numbers of tokens. So the result does not
    depend on the lengths of the examples, or on the batches.
    """

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exponential of the mean loss of a token.",
            citation="",
            inputs_description="predictions: summed token losses of an example; references: its tokens",
            features=datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Value("float64"))),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        mean = torch.tensor(predictions, dtype=torch.float64).sum() / sum(references)
        return {"perplexity": float(mean.exp())}  # unlike math.exp, torch's bears inf and nan

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        pairs: Any = prediction.predictions
        losses, counts = pairs.T
        return self.compute(predictions=losses, references=counts)


def token_losses(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Returns the summed loss and the number of the tokens of each example, (examples, 2), instead of all logits."""
    if isinstance(logits, tuple):  # a model that also returns hidden states
        logits = logits[0]
    # one example at a time: a second copy of a batch of logits may be too much
    losses = [
        cross_entropy(row[:-1].float(), label[1:], reduction="sum") for row, label in zip(logits, labels, strict=True)
    ]
    return torch.stack([torch.stack(losses), (labels[:, 1:] != -100).sum(1).float()], dim=1)
