"""The training loss, from where it is differentiated to the listener, the optimizer or `EmoPulse` that needs it.

`LossFeed` wraps ``accelerator.backward`` on one Accelerator. What passes there is the objective itself: already scaled
for gradient accumulation, smoothed, or computed by the user's own function, and not yet multiplied by a GradScaler.

    total = sum of the losses of the micro-batches of one step, mean over the ranks -> listener.observe(total)

However many of the ways in are combined, an Accelerator has one feed, so that no loss counts twice. The listener asks
for the number at ``optimizer.step()``; until then the reduction over ranks and the copy from the GPU overlap the
backward pass.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType

from emo_hf.hf.schedule import find_pulse
from emo_hf.optimizer import EmoOptimizer
from emo_hf.scheduler import EmoPulse, innermost

Listener = EmoOptimizer | EmoPulse

_MARK = "_emo_hf_feed"
_OWN_LOSS = "_emo_hf_own_loss"
_feeds: "weakref.WeakSet[LossFeed]" = weakref.WeakSet()
_awaiting: list[Listener] = []
_patch: list[Callable[..., None]] = []  # our Accelerator.backward and the one it replaces


def find_optimizer(optimizer: Any) -> EmoOptimizer | None:
    """Returns the optimizer of ours inside the wrappers of accelerate and DeepSpeed, or None."""
    optimizer = innermost(optimizer)
    return optimizer if isinstance(optimizer, EmoOptimizer) else None


def find_listener(optimizer: Any, scheduler: Any) -> Listener | None:
    """Returns what needs the loss: the optimizer of ours, else the `EmoPulse` that drives another one, or None."""
    return find_optimizer(optimizer) or find_pulse(scheduler)


def keep_own_loss(accelerator: Accelerator) -> None:
    """Makes every feed of ``accelerator``, now and later, give this rank's own loss instead of the mean over ranks."""
    setattr(accelerator, _OWN_LOSS, True)


def keeps_own_loss(accelerator: Accelerator) -> bool:
    """Whether each rank lives by its own loss."""
    return getattr(accelerator, _OWN_LOSS, False)


class LossFeed:
    """Sums the losses that pass ``accelerator.backward`` and gives one per optimizer step to the listener."""

    def __init__(self, accelerator: Accelerator, listener: Listener):
        self.listener = listener
        self._accelerator = accelerator
        self._shadowed = vars(accelerator).get("backward")
        self._backward = accelerator.backward
        self._total: torch.Tensor | None = None
        accelerator.backward = self._note_and_backward
        setattr(accelerator, _MARK, self)
        _feeds.add(self)

    @classmethod
    def install(cls, accelerator: Accelerator, listener: Listener) -> "LossFeed":
        """Returns the one feed of ``accelerator``, bound to ``listener`` and without a half-finished sum."""
        feed = getattr(accelerator, _MARK, None)
        if feed is None:
            return cls(accelerator, listener)
        feed.listener, feed._total = listener, None
        return feed

    @classmethod
    def installed_on(cls, listener: Listener) -> "LossFeed | None":
        """Returns the feed that serves ``listener``, or None."""
        return next((feed for feed in _feeds if feed.listener is listener), None)

    def remove(self) -> None:
        """Gives ``accelerator.backward`` back."""
        if self._shadowed is None:
            del self._accelerator.backward
        else:
            self._accelerator.backward = self._shadowed
        delattr(self._accelerator, _MARK)
        _feeds.discard(self)

    def note(self, loss: torch.Tensor) -> None:
        """Adds the loss of one micro-batch; at the last one of a step, the listener observes the sum.

        Args:
            loss: What is about to be differentiated, unscaled. Its dimensions, if any, are replicas of the model.
        """
        loss = loss.detach()
        if hasattr(loss, "full_tensor"):  # DTensor
            loss = loss.full_tensor()
        # mean() copies: CUDA graphs reuse the memory of the loss.
        loss = loss.to(torch.promote_types(loss.dtype, torch.float32)).mean()
        if self._accelerator.distributed_type != DistributedType.DEEPSPEED:
            loss = loss / self._accelerator.gradient_accumulation_steps  # as Accelerator.backward does
        self._total = loss if self._total is None else self._total + loss
        if self._accelerator.sync_gradients:
            total, self._total = self._total, None
            self.listener.observe(PendingLoss(total, self._ranks))

    @property
    def _ranks(self) -> int:
        if keeps_own_loss(self._accelerator):
            return 1
        # On a CPU accelerate believes each rank of DeepSpeed to be alone
        if self._accelerator.distributed_type == DistributedType.DEEPSPEED and dist.is_initialized():
            return dist.get_world_size()
        return self._accelerator.num_processes

    def _note_and_backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        self.note(loss)  # before the original: DeepSpeed steps the optimizer inside it
        self._backward(loss, **kwargs)


class PendingLoss:
    """The loss of one step on its way to the host: ``item()`` waits for it."""

    def __init__(self, total: torch.Tensor, ranks: int):
        """
        Args:
            total: This rank's loss, 0-d; overwritten when there are several ranks.
            ranks: Number of processes that average their losses.
        """
        self._total, self._ranks = total, ranks
        self._reduction: dist.Work | None = None
        self._arrived: torch.cuda.Event | None = None
        if total.is_cuda:
            self._copy_from_gpu()
        elif ranks > 1:
            self._reduction = dist.all_reduce(total, async_op=True)

    def _copy_from_gpu(self) -> None:
        """Reduces and copies on a side stream, so that neither the backward pass nor the host waits."""
        stream = torch.cuda.Stream(self._total.device)
        stream.wait_stream(torch.cuda.current_stream(self._total.device))
        with torch.cuda.stream(stream):
            if self._ranks > 1:
                dist.all_reduce(self._total, async_op=True).wait()
            self._total.record_stream(stream)
            pinned = torch.empty((), dtype=self._total.dtype, pin_memory=True)
            self._total = pinned.copy_(self._total, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(stream)

    def item(self) -> float:
        """Returns the mean over the ranks, the same float on each of them."""
        if self._reduction is not None:
            self._reduction.wait()
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._total.item() / self._ranks


def await_accelerator(listener: Listener) -> None:
    """Feeds ``listener`` from the Accelerator that has prepared its optimizer, found at its first backward.

    For a callback, which sees the optimizer but not the Accelerator. ``Accelerator.backward`` is wrapped only until
    then, and acts on no other Accelerator.
    """
    _awaiting.append(listener)
    if Accelerator.backward not in _patch[:1]:
        _patch[:] = _finding(Accelerator.backward), Accelerator.backward
        Accelerator.backward = _patch[0]


def stop_feeding(listener: Listener) -> None:
    """Undoes `await_accelerator`, whether or not the Accelerator was found."""
    _stop_awaiting(listener)
    feed = LossFeed.installed_on(listener)
    if feed is not None:
        feed.remove()


def _stop_awaiting(listener: Listener) -> None:
    _awaiting[:] = [other for other in _awaiting if other is not listener]
    if not _awaiting and Accelerator.backward in _patch[:1]:  # else another package has wrapped it since
        Accelerator.backward = _patch[1]


def _finding(backward: Callable[..., None]) -> Callable[..., None]:
    """Returns the method ``backward`` preceded by a look for an Accelerator that is awaited."""

    @functools.wraps(backward)
    def find_and_backward(self: Accelerator, loss: torch.Tensor, **kwargs: Any) -> None:
        prepared = [innermost(optimizer) for optimizer in self._optimizers]
        for listener in _awaiting:
            if any(innermost(listener) is optimizer for optimizer in prepared):
                _stop_awaiting(listener)
                LossFeed.install(self, listener).note(loss)
                break
        backward(self, loss, **kwargs)

    return find_and_backward
