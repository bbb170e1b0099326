"""Trains a small causal language model with accelerate, in the shape of transformers' scripts without a Trainer.

The accumulation is accelerate's: ``with accelerator.accumulate(model)``.
"""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel, SchedulerType, default_data_collator, get_scheduler

import emo_hf


def parse_args():
    parser = argparse.ArgumentParser(description="Train a causal language model.")
    parser.add_argument("--per_device_train_batch_size", type=int, default=2)
    parser.add_argument("--learning_rate", type=float, default=0.1)
    parser.add_argument("--weight_decay", type=float, default=0.0)
    parser.add_argument("--num_train_epochs", type=int, default=2)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--lr_scheduler_type", type=SchedulerType, default="linear")
    parser.add_argument("--num_warmup_steps", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load_blocks(count=22, length=12, vocabulary=64):
    numbers = torch.Generator().manual_seed(1)
    rows = torch.randint(0, vocabulary, (count, length), generator=numbers).cumsum(1) % vocabulary
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row.clone()} for row in rows]


def main():
    args = parse_args()
    accelerator = Accelerator(gradient_accumulation_steps=args.gradient_accumulation_steps)
    set_seed(args.seed)

    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    )
    blocks = load_blocks()
    train_dataloader = DataLoader(
        blocks, shuffle=True, collate_fn=default_data_collator, batch_size=args.per_device_train_batch_size
    )

    no_decay = ["bias", "ln_"]
    optimizer_grouped_parameters = [
        {
            "params": [p for n, p in model.named_parameters() if not any(nd in n for nd in no_decay)],
            "weight_decay": args.weight_decay,
        },
        {
            "params": [p for n, p in model.named_parameters() if any(nd in n for nd in no_decay)],
            "weight_decay": 0.0,
        },
    ]
    optimizer = emo_hf.EmoSens(optimizer_grouped_parameters, lr=args.learning_rate)

    steps_per_epoch = -(-len(train_dataloader) // args.gradient_accumulation_steps)
    max_train_steps = args.num_train_epochs * steps_per_epoch
    lr_scheduler = get_scheduler(
        name=args.lr_scheduler_type,
        optimizer=optimizer,
        num_warmup_steps=args.num_warmup_steps * accelerator.num_processes,
        num_training_steps=max_train_steps,
    )

    model, optimizer, train_dataloader, lr_scheduler = accelerator.prepare(
        model, optimizer, train_dataloader, lr_scheduler
    )

    completed_steps = 0
    for epoch in range(args.num_train_epochs):
        model.train()
        total_loss = 0
        for batch in train_dataloader:
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                total_loss += loss.detach().float()
                accelerator.backward(loss)
                optimizer.step()
                lr_scheduler.step()
                optimizer.zero_grad()

            if accelerator.sync_gradients:
                completed_steps += 1
        accelerator.log(
            {
                "train_loss": total_loss.item() / len(train_dataloader),
                "learning_rate": lr_scheduler.get_last_lr()[0],
                "epoch": epoch,
                "step": completed_steps,
            },
            step=completed_steps,
        )


if __name__ == "__main__":
    main()
