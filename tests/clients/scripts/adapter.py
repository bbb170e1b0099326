"""Trains the adapters of a small text encoder and a small U-Net, in the shape of kohya's training of networks.

The optimizer is named on the command line and imported by that name; its arguments are Python literals; the two parts
have rates of their own.
"""

import argparse
import ast
import importlib

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, SchedulerType


def setup_parser():
    parser = argparse.ArgumentParser(description="Train adapters.")
    parser.add_argument("--optimizer_type", default="AdamW")
    parser.add_argument("--optimizer_args", nargs="*")
    parser.add_argument("--learning_rate", type=float, default=2e-6)
    parser.add_argument("--unet_lr", type=float)
    parser.add_argument("--text_encoder_lr", type=float)
    parser.add_argument("--lr_scheduler", default="constant")
    parser.add_argument("--lr_scheduler_type", default="")
    parser.add_argument("--lr_scheduler_args", nargs="*")
    parser.add_argument("--lr_warmup_steps", type=int, default=0)
    parser.add_argument("--max_train_steps", type=int, default=8)
    parser.add_argument("--train_batch_size", type=int, default=2)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--max_grad_norm", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def literals(pairs):
    return {key: ast.literal_eval(value) for key, value in (pair.split("=") for pair in pairs or [])}


def by_name(name, default):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module) if module else default, attribute)


def get_optimizer(args, trainable_params):
    optimizer_class = by_name(args.optimizer_type, torch.optim)
    optimizer = optimizer_class(trainable_params, lr=args.learning_rate, **literals(args.optimizer_args))
    if hasattr(optimizer, "train") and callable(optimizer.train):
        optimizer.train()
    return f"{optimizer_class.__module__}.{optimizer_class.__name__}", optimizer


def get_scheduler(args, optimizer, num_processes):
    if args.lr_scheduler_type:
        return by_name(args.lr_scheduler_type, torch.optim.lr_scheduler)(optimizer, **literals(args.lr_scheduler_args))
    name = SchedulerType(args.lr_scheduler)
    function = TYPE_TO_SCHEDULER_FUNCTION[name]
    if name == SchedulerType.CONSTANT:
        return function(optimizer)
    if name == SchedulerType.CONSTANT_WITH_WARMUP:
        return function(optimizer, num_warmup_steps=args.lr_warmup_steps)
    steps = args.max_train_steps * num_processes
    return function(optimizer, num_warmup_steps=args.lr_warmup_steps, num_training_steps=steps)


class Adapter(nn.Module):
    def __init__(self, width, rank=2):
        super().__init__()
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, features):
        return features + self.up(self.down(features))


class Network(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.text_encoder, self.unet = Adapter(width), Adapter(width)

    def prepare_optimizer_params(self, text_encoder_lr, unet_lr):
        groups = [
            {"params": list(self.text_encoder.parameters()), "lr": text_encoder_lr},
            {"params": list(self.unet.parameters()), "lr": unet_lr},
        ]
        return groups, ["textencoder", "unet"]

    def forward(self, latents, captions):
        return self.unet(latents + self.text_encoder(captions))


def generate_step_logs(args, current_loss, lr_scheduler, lr_descriptions):
    logs = {"loss/current": current_loss}
    for i, (lr, description) in enumerate(zip(lr_scheduler.get_last_lr(), lr_descriptions, strict=True)):
        logs[f"lr/{description}"] = float(lr)
        if args.optimizer_type.lower().startswith(("dadapt", "prodigy")):
            group = lr_scheduler.optimizers[-1].param_groups[i]
            logs[f"lr/d*lr/{description}"] = group["d"] * group["lr"]
    return logs


def train(args):
    set_seed(args.seed)
    accelerator = Accelerator(gradient_accumulation_steps=args.gradient_accumulation_steps)
    numbers = torch.Generator().manual_seed(1)
    data = TensorDataset(*(torch.randn(22, 8, generator=numbers) for _ in range(2)))
    target = torch.randn(8, 8, generator=numbers)

    network = Network()
    trainable_params, lr_descriptions = network.prepare_optimizer_params(args.text_encoder_lr, args.unet_lr)
    optimizer_name, optimizer = get_optimizer(args, trainable_params)
    train_dataloader = DataLoader(data, batch_size=args.train_batch_size, shuffle=True)
    lr_scheduler = get_scheduler(args, optimizer, accelerator.num_processes)
    network, optimizer, train_dataloader, lr_scheduler = accelerator.prepare(
        network, optimizer, train_dataloader, lr_scheduler
    )
    metadata = {"ss_optimizer": optimizer_name, "ss_lr_scheduler": args.lr_scheduler}

    global_step = 0
    while global_step < args.max_train_steps:
        for latents, captions in train_dataloader:
            with accelerator.accumulate(network):
                loss = mse_loss(network(latents, captions), latents @ target, reduction="none")
                loss = loss.mean([1]).mean()
                accelerator.backward(loss)
                if accelerator.sync_gradients and args.max_grad_norm != 0.0:
                    params_to_clip = accelerator.unwrap_model(network).parameters()
                    accelerator.clip_grad_norm_(params_to_clip, args.max_grad_norm)
                optimizer.step()
                lr_scheduler.step()
                optimizer.zero_grad(set_to_none=True)

            if accelerator.sync_gradients:
                global_step += 1
            logs = generate_step_logs(args, loss.detach().item(), lr_scheduler, lr_descriptions)
            rates = [group.get("effective_lr", group["lr"]) for group in optimizer.param_groups]
            logs.update({f"effective/{name}": rate for name, rate in zip(lr_descriptions, rates, strict=True)})
            accelerator.log(logs, step=global_step)
            if global_step >= args.max_train_steps:
                break
    return metadata


if __name__ == "__main__":
    train(setup_parser().parse_args())
