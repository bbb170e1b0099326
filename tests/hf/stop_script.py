"""Two ranks stop when they are ready, keep a checkpoint then, or leave a step out. Run by test_stopping.py."""

import math
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from emo_hf.hf import EmotionCallback
from emo_hf.hf.feed import find_optimizer
from tests.hf.tiny_gpt2 import leave, make_data, make_model


def train(name: str) -> None:
    args = TrainingArguments(
        name,
        optim="emosens",
        optim_args="stopcoef=6,on_nonfinite_loss=skip",
        lr_scheduler_type="constant",
        per_device_train_batch_size=4,
        max_steps=5 if name == "skip" else 45,
        save_steps=20,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )
    callback = EmotionCallback(on_ready="log" if name == "skip" else name, patience=2)
    model = make_model()
    del model.truth  # DDP wants every parameter to be used
    trainer = Trainer(model=model, args=args, train_dataset=make_data(), callbacks=[callback])
    local, compute_loss = [], trainer.compute_loss

    def unequal(*parts: Any, **options: Any) -> torch.Tensor:
        loss = compute_loss(*parts, **options) * (1 + args.process_index)  # about 3.5 and 7
        if (name, args.process_index, trainer.state.global_step) == ("skip", 1, 2):
            loss = loss * math.nan
        local.append(loss.item())
        return loss

    trainer.compute_loss = unequal
    trainer.train()
    weights = [p.detach().clone() for p in trainer.model.parameters()]
    skipped = find_optimizer(trainer.optimizer).skipped_steps
    seen = {"local": local, "step": trainer.state.global_step, "weights": weights, "skipped": skipped}
    torch.save(seen, f"{name}-{args.process_index}.pt")


if __name__ == "__main__":
    train("stop")
    train("save")
    train("skip")
    leave()
