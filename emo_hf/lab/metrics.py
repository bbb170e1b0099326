"""Metrics as subclasses of `evaluate.Metric`, used directly: `evaluate.load` always asks the hub."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import evaluate
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


class Accuracy:
    """``compute_metrics`` of a Trainer whose model returns logits of shape (examples, classes)."""

    def __init__(self) -> None:
        self.metric = accuracy()

    def __call__(self, prediction: "EvalPrediction") -> dict[str, float]:
        return self.metric.compute(predictions=prediction.predictions.argmax(-1), references=prediction.label_ids)
