"""Two ranks with very different numbers of labels; each writes what it saw. Run by test_average_tokens.py."""

import torch
from torch.utils.data import SequentialSampler
from transformers import HfArgumentParser, Trainer, TrainingArguments

from tests.hf.loss_functions import token_mean
from tests.hf.tiny_gpt2 import Meter, freeze, leave, make_data, make_model


class InOrder(Trainer):
    """Rows 0, 2, 4, ... belong to the first rank, 1, 3, 5, ... to the second."""

    def _get_train_sampler(self, *args, **kwargs):
        return SequentialSampler(self.train_dataset)


def make_uneven_data() -> list[dict[str, torch.Tensor]]:
    rows = make_data()
    for i, row in enumerate(rows):
        row["labels"] = row["input_ids"].clone()
        row["labels"][: 7 if i % 2 else 1] = -100  # one label, or seven
    return rows


def mean_loss(model: torch.nn.Module, rows: list[dict[str, torch.Tensor]]) -> float:
    """Mean over the labels of all `rows`."""
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    with torch.no_grad():
        return token_mean(model(batch["input_ids"]), batch["labels"]).item()


def train(args: TrainingArguments, average: bool) -> dict[str, list[float]]:
    args.average_tokens_across_devices = average
    rows = make_uneven_data()
    trainer = InOrder(model=make_model(), args=args, train_dataset=rows)
    freeze(trainer.model)  # so that the objective can be computed outside of the training
    groups = [rows[:8], rows[8:16], rows[16:]]  # 10 micro-batches of one row on each rank, accumulated by 4
    ranks = [[mean_loss(trainer.model, group[rank::2]) for group in groups] for rank in (0, 1)]
    own, compute_loss = [], trainer.compute_loss
    trainer.compute_loss = lambda *a, **k: (loss := compute_loss(*a, **k), own.append(loss.item()))[0]
    meter = Meter(trainer)
    trainer.train()
    return {
        "over all labels": [mean_loss(trainer.model, group) for group in groups],
        "over the ranks": [sum(means) / 2 for means in zip(*ranks, strict=True)],
        "own": [sum(own[i : i + 4]) for i in (0, 4, 8)],
        "fed": meter.fed,
        "truth": meter.truth,
    }


if __name__ == "__main__":
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
    outcome = {average: train(args, average) for average in (True, False)}
    torch.save(outcome, f"outcome-{args.process_index}.pt")
    leave()
