"""The Trainer of an arm: what the arm asks for beyond an optimizer and its rate.

That is a loss withheld or changed on its way to whoever needs it, step sizes replayed from another run, or batches
whose labels are corrupted.
"""

from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from emo_hf import EmoTrainer
from emo_hf.hf.feed import Listener, LossFeed
from emo_hf.lab.recipe import baselines
from emo_hf.lab.recipe.arms import LossTransform
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.run import replay
from emo_hf.run_folder import RunFolder


class TransformedLoss:
    """A loss on its way to the optimizer, changed when it is asked for."""

    def __init__(self, loss: Any, transform: LossTransform) -> None:
        self.loss, self.transform = loss, transform

    def item(self) -> float:
        loss = self.loss if isinstance(self.loss, float) else self.loss.item()
        return self.transform.scale * loss + self.transform.offset


class ArmTrainer(EmoTrainer):
    """An EmoTrainer that does with optimizer, schedule and batches what the arm of its run_config says.

    Args:
        run_config: the run.
        folder: of the run; one to be replayed lies beside it.
        **kwargs: of EmoTrainer.
    """

    def __init__(self, run_config: RunConfig, folder: RunFolder, **kwargs: Any) -> None:
        self.run_config, self.folder = run_config, folder
        arm = run_config.arm
        if alias := baselines.ALIASES.get(arm.optim):
            keywords = baselines.keywords(arm.optim, arm.lr, arm.options)
            if alias.groups:
                # Trainer prefers these to its own
                keywords["params"] = alias.groups(kwargs["model"], arm.weight_decay)
            kwargs["optimizer_cls_and_kwargs"] = baselines.load(arm.optim), keywords
        super().__init__(local_sgd_steps=arm.local_sgd_steps, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        before = self.optimizer
        optimizer = super().create_optimizer(*args, **kwargs)
        if optimizer is before:  # Trainer asks again before each training
            return optimizer
        alias = baselines.ALIASES.get(self.run_config.arm.optim)
        if alias is not None and alias.hears_loss:
            LossFeed.install(self.accelerator, baselines.Hearing(optimizer))
        elif self.run_config.arm.is_emo:
            self._lay_loss_on(optimizer)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Returns the schedule of the recipe, or one that sets the step sizes to replay."""
        if self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.run_config.arm.replay:
            sizes = replay.step_sizes(self.run_config, self.folder, num_training_steps)
            held = self.run_config.arm.lr * replay.HELD
            over = optimizer or self.optimizer
            self.lr_scheduler = LambdaLR(over, lambda step: sizes[min(step, len(sizes) - 1)] / held)
            return self.lr_scheduler
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if self.run_config.arm.driven_by:
            self._lay_loss_on(scheduler)
        return scheduler

    def _lay_loss_on(self, listener: Listener) -> None:
        """Has `listener` hear what its arm says, where that is not simply the loss."""
        arm, hear = self.run_config.arm, listener.observe
        if arm.withhold_loss:
            listener.observe = lambda loss: hear(0.0)
        elif transform := arm.loss_transform:
            listener.observe = lambda loss: hear(TransformedLoss(loss, transform))

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        step, condition = self.state.global_step + 1, self.run_config.arm.condition
        if condition and condition.corrupted_every and step % condition.corrupted_every == 0:
            inputs = {**inputs, "labels": _shuffled(inputs["labels"], seed=step)}
        return super().training_step(model, inputs, *args, **kwargs)


def _shuffled(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Returns all `labels` of a batch, of any shape, in another order."""
    order = torch.randperm(labels.numel(), generator=torch.Generator().manual_seed(seed))
    return labels.flatten()[order.to(labels.device)].view_as(labels)
