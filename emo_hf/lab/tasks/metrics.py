"""Metrics as subclasses of `evaluate.Metric`, used directly: `evaluate.load` always asks the hub."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import evaluate
    import torch
    from transformers import EvalPrediction


def accuracy() -> "evaluate.Metric":
    """Returns the share of right predictions as an `evaluate.Metric`, ``compute(predictions=, references=)``."""
    import datasets
    import evaluate

    class Accuracy(evaluate.Metric):
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

    # in memory: nothing is written into the user's cache, and runs at the same time cannot meet there
    return Accuracy(keep_in_memory=True)


def perplexity() -> "evaluate.Metric":
    """Returns exp(mean loss of a token) as an `evaluate.Metric`, ``compute(predictions=, references=)``.

    predictions: the summed losses of the tokens of each example; references: how many tokens these are. So examples
    of different lengths, and batches of any size, give the same number.
    """
    import datasets
    import evaluate
    import torch

    class Perplexity(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description="Exponential of the mean loss of a token.",
                citation="",
                inputs_description="predictions: summed token losses of an example; references: its tokens",
                features=datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Value("float64"))),
            )

        def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
            mean = torch.tensor(predictions, dtype=torch.float64).sum() / sum(references)
            return {"perplexity": float(mean.exp())}  # torch's: inf and nan go through

    return Perplexity(keep_in_memory=True)


class Accuracy:
    """``compute_metrics`` of a Trainer whose model returns logits of shape (examples, classes)."""

    def __init__(self) -> None:
        self.metric = accuracy()

    def __call__(self, prediction: "EvalPrediction") -> dict[str, float]:
        return self.metric.compute(predictions=prediction.predictions.argmax(-1), references=prediction.label_ids)


class Perplexity:
    """``compute_metrics`` of a Trainer with `token_losses` as its ``preprocess_logits_for_metrics``."""

    def __init__(self) -> None:
        self.metric = perplexity()

    def __call__(self, prediction: "EvalPrediction") -> dict[str, float]:
        losses, counts = prediction.predictions.T
        return self.metric.compute(predictions=losses, references=counts)


def token_losses(logits: Any, labels: "torch.Tensor") -> "torch.Tensor":
    """Returns the summed loss and the number of the tokens of each example, (examples, 2), instead of all logits."""
    import torch
    from torch.nn.functional import cross_entropy

    if isinstance(logits, tuple):  # a model that also returns hidden states
        logits = logits[0]
    # one example at a time: a second copy of a batch of logits may be too much
    losses = [
        cross_entropy(row[:-1].float(), label[1:], reduction="sum") for row, label in zip(logits, labels, strict=True)
    ]
    return torch.stack([torch.stack(losses), (labels[:, 1:] != -100).sum(1).float()], dim=1)
