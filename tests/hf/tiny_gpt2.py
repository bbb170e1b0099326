"""A tiny GPT-2, a few token sequences, and a meter of the objective that is really optimized."""

import os
import sys
from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback

from emo_hf.hf.feed import find_listener
from emo_hf.scheduler import innermost

OLD = Version(transformers.__version__).major < 5


def make_model() -> GPT2LMHeadModel:
    """A GPT-2 with an additional parameter `truth`, for the `Meter`."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    )
    model.truth = torch.nn.Parameter(torch.ones(()))
    return model


def make_data(n: int = 20) -> list[dict[str, torch.Tensor]]:
    """Sequences of 8 tokens; the number of labels that count differs from one to the next."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for i in range(n):
        ids = torch.randint(1, 32, (8,), generator=generator)
        labels = ids.clone()
        labels[: i % 5] = -100
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def freeze(model: GPT2LMHeadModel) -> None:
    """Leaves `truth` alone trainable, and the loss without noise: it is the same whenever it is computed."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "truth")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def leave() -> None:
    """Ends a rank that has written its results: tearing gloo's threads down can abort it (torch 2.13)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def let_cpu_ranks_resume() -> None:
    """transformers < 5 loads optimizers to the devices cpu:0 and cpu:1 of two ranks, which torch does not know."""
    torch.serialization.register_package(
        0, lambda storage: None, lambda storage, location: storage if location.startswith("cpu:") else None
    )


class Meter(TrainerCallback):
    """Measures what the gradients at ``optimizer.step()`` belong to.

    The loss is multiplied by a parameter that equals 1, so the gradient of that parameter is the objective of the
    step, through accumulation and reduction over ranks.
    """

    def __init__(self, trainer: Trainer):
        self.truth: list[float] = []
        self.fed: list[float] = []
        self._parameter = trainer.model.truth
        self._listener: Any = None
        compute_loss = trainer.compute_loss

        def measured(model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            found = compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
            return (found[0] * self._parameter, found[1]) if return_outputs else found * self._parameter

        trainer.compute_loss = measured
        trainer.add_callback(self)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        first, self._listener = self._listener is None, find_listener(optimizer, lr_scheduler)
        if first:
            optimizer = innermost(optimizer)
            optimizer.register_step_pre_hook(lambda *_: self.truth.append(self._parameter.grad.item()))
            optimizer.register_step_post_hook(self._after_step)

    def _after_step(self, *_: Any) -> None:
        self.fed.append(self._listener.signals().loss)
        self._parameter.data.fill_(1.0)
