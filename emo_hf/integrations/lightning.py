"""PyTorch Lightning: a callback that feeds every emo optimizer of a training.

    from emo_hf.integrations.lightning import EmotionCallback
    lightning.Trainer(callbacks=[EmotionCallback()], accumulate_grad_batches=4).fit(module, data)

It hears what is differentiated, in automatic and manual optimization, and sums it over the micro-batches of a step and
over the ranks. Without it, Lightning hands a closure to ``optimizer.step``, which returns the last micro-batch's loss
divided by the accumulation. `EmoPulse` needs manual optimization and ``scheduler.observe(loss)``: in automatic
optimization the loss is computed inside ``optimizer.step``, after the pulse has set the rate.
"""

import torch

from emo_hf.extras import needing
from emo_hf.hf import telling
from emo_hf.hf.feed import StepSum, as_summand, find_optimizer

with needing("emo_hf.integrations.lightning"):
    from lightning.pytorch import Callback, LightningModule, Trainer


class EmotionCallback(Callback):
    """Feeds the loss to the emo optimizers of a `lightning.Trainer`."""

    def __init__(self) -> None:
        self._sums: list[StepSum] = []
        self._loss: torch.Tensor | None = None
        self._before: list[list[tuple[int, int, int]]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ours = [find_optimizer(optimizer) for optimizer in trainer.optimizers]
        self._sums = [StepSum(optimizer) for optimizer in ours if optimizer is not None]
        for each in self._sums if trainer.is_global_zero else ():
            telling.introduce(each.listener)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        for each in self._sums:
            each.drop_if_gone(sharded=False)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = scaler._get_scale_async() if scaler is not None else None  # a tensor: no wait for the device
        self._loss = as_summand(loss if scale is None else loss / scale)
        self._before = [each.gradients() for each in self._sums]

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss, self._loss = self._loss, None
        for each, before in zip(self._sums, self._before, strict=True):
            if loss is not None and each.gradients() != before:
                each.add(loss)
                each.hand_over(trainer.world_size)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._sums = []
