"""From what was observed to the one float that a step hears.

    observed -> a float -> the mean over the ranks, where there are several -> refused if it is not finite

A feed (`emo_hf.hf.feed`) sums over micro-batches and ranks by itself and says so (``is_whole``). What a loop of one's
own tells is this rank's loss: the replicas of a model would part if each lived by its own, so their mean is taken.
"""

import logging
import math
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist

from emo_hf.errors import NonFiniteLossError, OptionError

logger = logging.getLogger(__name__)

LossOverRanks = Literal["mean", "own"]


class Scalar(Protocol):
    """Anything that becomes a float on demand: a tensor of one element, or a copy from a device still under way."""

    def item(self) -> float: ...


def hear(observed: float | Scalar, receiver: str, over_ranks: LossOverRanks, groups: list[dict[str, Any]]) -> float:
    """Returns the loss of a step.

    Args:
        observed: what `receiver`, a name for messages, was told.
        over_ranks: "mean": with several ranks, that of all of them, each of which must take the same step now; "own":
            this rank's.
        groups: the parameters, on whose device the ranks can meet.

    Raises:
        OptionError: it has several elements.
        NonFiniteLossError: it is NaN or infinite, on any rank.
    """
    if math.prod(getattr(observed, "shape", ())) != 1:
        raise OptionError(
            f"{receiver} got a loss of shape {tuple(getattr(observed, 'shape', ()))}, expected one number: give"
            " loss.mean(), or what you differentiate."
        )
    loss = float(observed.item() if hasattr(observed, "item") else observed)
    if over_ranks == "mean" and not getattr(observed, "is_whole", False):
        loss = _mean_over_ranks(loss, groups)
    if not math.isfinite(loss):
        raise NonFiniteLossError(
            f"{receiver} got a loss of {loss}. Nothing was changed. Look for a division by zero or an overflow in the"
            " model, lower the learning rate, or (emo optimizers) leave such steps out with on_nonfinite_loss='skip'."
        )
    return loss


def gradients_are_finite(groups: list[dict[str, Any]]) -> bool:
    """Whether no gradient is NaN or infinite: the loss that is was no divergence, but a batch without a label."""
    grads = (param.grad for group in groups for param in group["params"])
    return all(bool(torch.isfinite(grad).all()) for grad in grads if grad is not None)


def say_left_out(key: str, step: float) -> None:
    """Logs, on the main process, that the loss of a step is not finite and does not count.

    Args:
        key: what heard the loss.
        step: which one, from 1.
    """
    if is_main_process():
        logger.warning(
            "%s: the loss of step %d is not finite, as that of a batch whose labels are all masked (-100). It does not"
            " count, and an emo optimizer leaves the step out (optimizer.skipped_steps counts them). The same happens"
            " to others, without a word.",
            key,
            step,
        )


def is_main_process() -> bool:
    """Whether this is the process of rank 0, or the only one."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def _mean_over_ranks(loss: float, groups: list[dict[str, Any]]) -> float:
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return loss
    device = next((param.device for group in groups for param in group["params"]), torch.device("cpu"))
    total = torch.tensor(loss, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()
