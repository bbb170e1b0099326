"""Trains a small text classifier with accelerate, in the shape of transformers' scripts without a Trainer.

The loop divides the loss by the accumulation itself, and steps at every so manieth batch and at the last one.
"""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    SchedulerType,
    default_data_collator,
    get_scheduler,
)

import emo_hf


def parse_args():
    parser = argparse.ArgumentParser(description="Train a text classifier.")
    parser.add_argument("--per_device_train_batch_size", type=int, default=2)
    parser.add_argument("--learning_rate", type=float, default=0.1)
    parser.add_argument("--weight_decay", type=float, default=0.0)
    parser.add_argument("--num_train_epochs", type=int, default=2)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--lr_scheduler_type", type=SchedulerType, default="linear")
    parser.add_argument("--num_warmup_steps", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load_sentences(count=22, length=8, vocabulary=64):
    numbers = torch.Generator().manual_seed(1)
    rows = torch.randint(0, vocabulary, (count, length), generator=numbers)
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": int(row[0] < 32)} for row in rows]


def main():
    args = parse_args()
    accelerator = Accelerator()
    set_seed(args.seed)

    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=16,
        )
    )  # fmt: skip
    train_dataloader = DataLoader(
        load_sentences(), shuffle=True, collate_fn=default_data_collator, batch_size=args.per_device_train_batch_size
    )

    no_decay = ["bias", "LayerNorm.weight"]
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
    lr_scheduler = get_scheduler(
        name=args.lr_scheduler_type,
        optimizer=optimizer,
        num_warmup_steps=args.num_warmup_steps,
        num_training_steps=args.num_train_epochs * steps_per_epoch,
    )

    model, optimizer, train_dataloader, lr_scheduler = accelerator.prepare(
        model, optimizer, train_dataloader, lr_scheduler
    )

    completed_steps = 0
    for _ in range(args.num_train_epochs):
        model.train()
        for step, batch in enumerate(train_dataloader):
            loss = model(**batch).loss
            loss = loss / args.gradient_accumulation_steps
            accelerator.backward(loss)
            if step % args.gradient_accumulation_steps == 0 or step == len(train_dataloader) - 1:
                optimizer.step()
                lr_scheduler.step()
                optimizer.zero_grad()
                completed_steps += 1
                accelerator.log({"learning_rate": lr_scheduler.get_last_lr()[0]}, step=completed_steps)


if __name__ == "__main__":
    main()
