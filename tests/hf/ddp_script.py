"""Two ranks train the tiny model; each writes what it saw. Run by test_distributed.py under torchrun."""

import sys

import torch
from tiny_gpt2 import Meter, make_data, make_model
from transformers import HfArgumentParser, Trainer, TrainingArguments

from emo_hf.hf import feed


def train(args: TrainingArguments, path: str) -> None:
    trainer = Trainer(model=make_model(), args=args, train_dataset=make_data())
    local, compute_loss = [], trainer.compute_loss
    trainer.compute_loss = lambda *a, **k: (loss := compute_loss(*a, **k), local.append(loss.item()))[0]
    meter = Meter(trainer)
    trainer.train()
    weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    logs = [log for log in trainer.state.log_history if "loss" in log]
    torch.save(
        {"local": local, "fed": meter.fed, "truth": meter.truth, "weights": weights, "logs": logs},
        f"{path}-{args.process_index}.pt",
    )


def without_reduction(total: torch.Tensor, ranks: int) -> torch.Tensor:
    return total


if __name__ == "__main__":
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(sys.argv[1:])
    train(args, "reduced")
    feed.PendingLoss = without_reduction
    train(args, "unreduced")
    torch.distributed.destroy_process_group()
