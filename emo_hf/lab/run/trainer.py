"""The Trainer of an arm. It withholds or changes the loss, replays step sizes and corrupts batches."""

from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from emo_hf import EmoTrainer
from emo_hf.hf.feed import LossFeed
from emo_hf.lab.recipe import baselines
from emo_hf.lab.recipe.arms import LossTransform
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.run import replay
from emo_hf.run_folder import RunFolder


class TransformedLoss:
    """A loss on its way to the optimizer. It is changed when it is read; without a transform it is 0."""

    is_whole = True  # as the feed's, which it stands for

    def __init__(self, loss: Any, transform: LossTransform | None) -> None:
        self.loss, self.transform = loss, transform

    def item(self) -> float:
        if self.transform is None:
            return 0.0
        loss = self.loss if isinstance(self.loss, float) else self.loss.item()
        return self.transform.scale * loss + self.transform.offset


class ArmTrainer(EmoTrainer):
    """An EmoTrainer with the optimizer, the schedule and the batches of its arm.

    Args:
        run_config: the run.
        folder: of the run.
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
            hearing: Any = baselines.Hearing(optimizer)
            LossFeed.install(self.accelerator, hearing)
        elif self.run_config.arm.is_emo:
            self._change_loss_of(optimizer)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Returns the schedule of the recipe, or one that sets the step sizes to replay."""
        if self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        arm = self.run_config.arm
        if arm.replay:
            sizes = replay.step_sizes(self.run_config, arm.replay, self.folder, num_training_steps)
            held = arm.lr * replay.HELD
            replayed: Any = optimizer or self.optimizer
            self.lr_scheduler = LambdaLR(replayed, lambda step: sizes[min(step, len(sizes) - 1)] / held)
            return self.lr_scheduler
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if arm.driven_by:
            self._change_loss_of(scheduler)
        return scheduler

    def _change_loss_of(self, listener: Any) -> None:
        """Has an emo optimizer or emopulse hear what its arm says instead of the loss."""
        arm, observe = self.run_config.arm, listener.observe
        if arm.withhold_loss or arm.loss_transform:
            listener.observe = lambda loss: observe(TransformedLoss(loss, arm.loss_transform))

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        step, condition = self.state.global_step + 1, self.run_config.arm.condition
        if condition and condition.corrupted_every and step % condition.corrupted_every == 0:
            inputs = {**inputs, "labels": _shuffled(inputs["labels"], seed=step)}
        return super().training_step(model, inputs, *args, **kwargs)


def _shuffled(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Returns all `labels` of a batch, of any shape, in another order."""
    order = torch.randperm(labels.numel(), generator=torch.Generator().manual_seed(seed))
    return labels.flatten()[order.to(labels.device)].view_as(labels)
