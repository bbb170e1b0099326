"""Two ranks train until they are ready to stop, or keep a checkpoint then. Run by test_stop.py under torchrun."""

from typing import Any

import torch
from tiny_gpt2 import make_data, make_model
from transformers import Trainer, TrainingArguments

from emo_hf.hf import EmotionCallback


def train(on_ready: str) -> None:
    args = TrainingArguments(
        on_ready,
        optim="emosens",
        optim_args="stopcoef=6",
        lr_scheduler_type="constant",
        per_device_train_batch_size=4,
        max_steps=45,
        save_steps=20,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )
    callback = EmotionCallback(on_ready=on_ready, patience=2)
    model = make_model()
    del model.truth  # DDP wants every parameter to be used
    trainer = Trainer(model=model, args=args, train_dataset=make_data(), callbacks=[callback])
    local, compute_loss = [], trainer.compute_loss

    def unequal(*parts: Any, **options: Any) -> torch.Tensor:
        loss = compute_loss(*parts, **options) * (1 + args.process_index)  # about 3.5 and 7
        local.append(loss.item())
        return loss

    trainer.compute_loss = unequal
    trainer.train()
    weights = [p.detach().clone() for p in trainer.model.parameters()]
    seen = {"local": local, "step": trainer.state.global_step, "weights": weights}
    torch.save(seen, f"{on_ready}-{args.process_index}.pt")


if __name__ == "__main__":
    train("stop")
    train("save")
    torch.distributed.destroy_process_group()
