"""What a rank of test_cuda.py does: it trains the tiny model with DDP and writes what it was fed and came to."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import Trainer, TrainingArguments

import emo_hf  # noqa: F401
from tests.hf.tiny_gpt2 import Meter, leave, make_data, make_model

STEPS = 10


def main(folder: Path, optim: str, device: str) -> None:
    args = TrainingArguments(
        str(folder / optim), optim=optim, lr_scheduler_type="constant", max_steps=STEPS, max_grad_norm=0.0,
        per_device_train_batch_size=1, gradient_accumulation_steps=2, logging_strategy="no", save_strategy="no",
        report_to=[], disable_tqdm=True, use_cpu=device == "cpu", dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )  # fmt: skip
    trainer = Trainer(make_model(), args, train_dataset=make_data(64))
    meter = Meter(trainer)
    trainer.train()
    weights = {name: p.detach().cpu() for name, p in trainer.model.named_parameters()}
    found = {"fed": meter.fed, "truth": meter.truth, "weights": weights, "backend": dist.get_backend()}
    torch.save(found, folder / f"{optim}-{dist.get_rank()}.pt")


if __name__ == "__main__":
    for name in sys.argv[3:]:
        main(Path(sys.argv[1]), name, sys.argv[2])
    leave()
