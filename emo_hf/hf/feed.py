"""The training loss, from where it is differentiated to the listener, the optimizer or `EmoPulse` that needs it.

`LossFeed` wraps ``accelerator.backward`` on one Accelerator (and ``clip_grad_norm_``, to tell EmoFree how much it
clips). What passes there is the objective itself: already scaled for gradient accumulation, smoothed, or computed by
the user's own function, and not yet multiplied by a GradScaler.

    total = sum of all that was differentiated since the last step, mean over the ranks -> listener.observe(total)

However many of the ways in are combined, an Accelerator has one feed, so that no loss counts twice. The listener asks
for the number at ``optimizer.step()``; until then the reduction over ranks and the copy from the GPU overlap the
backward pass.
"""

import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType

from emo_hf.errors import OptionError
from emo_hf.optimizer import EmoOptimizer
from emo_hf.scheduler import EmoPulse, find_pulse, innermost

Listener = EmoOptimizer | EmoPulse

# Under these a parameter may have no gradient of its own before the end of an accumulation.
_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
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
    """Sums what passes ``accelerator.backward``; a step of the listener uses the sum of all since its last step.

    What was differentiated for nothing does not count: a sum whose gradients are gone before a step used them, by
    ``zero_grad`` or because a GradScaler skipped the step, is dropped. Several listeners (the two optimizers of a GAN)
    each get what reached their own parameters.
    """

    def __init__(self, accelerator: Accelerator, listener: Listener):
        self.at_first_loss: Callable[[], None] | None = None  # called once
        self.of_trainer = False  # a Trainer is connected: it logs the step sizes really used
        self._sums = [StepSum(listener)]
        self._accelerator = accelerator
        self._shadowed = vars(accelerator).get("backward")
        self._backward = accelerator.backward
        accelerator.backward = self._note_and_backward
        self._shadowed_clip = vars(accelerator).get("clip_grad_norm_")
        self._clip = accelerator.clip_grad_norm_
        accelerator.clip_grad_norm_ = self._clip_and_note
        setattr(accelerator, _MARK, self)
        _feeds.add(self)

    @classmethod
    def install(cls, accelerator: Accelerator, listener: Listener) -> "LossFeed":
        """Returns the one feed of ``accelerator``, with ``listener`` alone and without a half-finished sum."""
        feed = getattr(accelerator, _MARK, None)
        if feed is None:
            return cls(accelerator, listener)
        feed._sums = [StepSum(listener)]
        return feed

    @classmethod
    def extend(cls, accelerator: Accelerator, listener: Listener) -> "LossFeed":
        """Returns the one feed of ``accelerator``, with ``listener`` among those that it serves.

        Optimizers that ``accelerator`` no longer holds are left out.
        """
        feed = getattr(accelerator, _MARK, None)
        if feed is None:
            return cls(accelerator, listener)
        held = [innermost(optimizer) for optimizer in accelerator._optimizers]
        held = [one for one in held if one is not innermost(listener)]  # which may have had another `EmoPulse`
        kept = [
            each
            for each in feed._sums
            if each.listener is listener or any(innermost(each.listener) is one for one in held)
        ]
        if all(each.listener is not listener for each in kept):
            kept.append(StepSum(listener))
        feed._sums = kept
        return feed

    def micro_batches(self, listener: Listener) -> int:
        """Returns how many losses the last sum that `listener` observed was made of."""
        return next(each.handed for each in self._sums if each.listener is listener)

    @classmethod
    def installed_on(cls, listener: Listener) -> "LossFeed | None":
        """Returns the feed that serves ``listener``, or None."""
        return next((feed for feed in _feeds if any(each.listener is listener for each in feed._sums)), None)

    def remove(self) -> None:
        """Gives the methods of the Accelerator back."""
        if self._shadowed is None:
            del self._accelerator.backward
        else:
            self._accelerator.backward = self._shadowed
        if self._shadowed_clip is None:
            del self._accelerator.clip_grad_norm_
        else:
            self._accelerator.clip_grad_norm_ = self._shadowed_clip
        delattr(self._accelerator, _MARK)
        _feeds.discard(self)

    def note(self, loss: torch.Tensor) -> None:
        """Adds a loss to every sum. At the end of an accumulation, the listeners observe theirs.

        Args:
            loss: What is about to be differentiated, unscaled; one number.
        """
        first, self.at_first_loss = self.at_first_loss, None
        if first is not None:
            first()
        sharded = self._accelerator.distributed_type in _SHARDED
        loss = as_summand(loss)
        if self._accelerator.distributed_type != DistributedType.DEEPSPEED:
            loss = loss / self._accelerator.gradient_accumulation_steps  # as Accelerator.backward does
        for each in self._sums:
            each.drop_if_gone(sharded)
            each.add(loss)
            if self._accelerator.sync_gradients:
                each.hand_over(self._ranks)

    @property
    def _ranks(self) -> int:
        if keeps_own_loss(self._accelerator):
            return 1
        # On a CPU accelerate believes each rank of DeepSpeed to be alone
        if self._accelerator.distributed_type == DistributedType.DEEPSPEED and dist.is_initialized():
            return dist.get_world_size()
        return self._accelerator.num_processes

    def _note_and_backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        weights = kwargs.get("gradient")
        before = [each.gradients() for each in self._sums] if len(self._sums) > 1 else []
        # Before the original: the reduction overlaps it, and DeepSpeed, or a hook of a parameter, steps inside it.
        self.note(loss if weights is None else (loss.detach() * weights).sum())
        self._backward(loss, **kwargs)
        for each, old in zip(self._sums, before, strict=False):
            if each.gradients() == old:
                each.take_back()

    def _clip_and_note(self, parameters: Any, max_norm: float, norm_type: float = 2) -> Any:
        """Clips, and tells optimizers that measure gradients what they were divided by."""
        measuring = [
            (each, optimizer)
            for each in self._sums
            if isinstance(optimizer := each.listener, EmoOptimizer) and optimizer.mechanism.measures
        ]
        if not measuring:
            return self._clip(parameters, max_norm, norm_type)
        parameters = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
        norm = self._clip(parameters, max_norm, norm_type)
        clipped = {*map(id, parameters)}
        for each, optimizer in measuring:
            if norm is not None and each.reaches(clipped):
                whole = norm.full_tensor() if hasattr(norm, "full_tensor") else torch.as_tensor(norm)
                optimizer.note_clipping((whole / max_norm).clamp(min=1.0))
        return norm


def as_summand(loss: torch.Tensor) -> torch.Tensor:
    """Returns a copy of a loss as a 0-d tensor without a graph, in float32 at least.

    Raises:
        OptionError: it has several elements.
    """
    loss = loss.detach()
    if loss.numel() != 1:
        raise OptionError(
            f"backward() got a loss of shape {tuple(loss.shape)}, expected one number: differentiate loss.mean()."
        )
    if hasattr(loss, "full_tensor"):  # DTensor
        loss = loss.full_tensor()
    # mean() copies: CUDA graphs reuse the memory of the loss.
    return loss.to(torch.promote_types(loss.dtype, torch.float32)).mean()


class StepSum:
    """What was differentiated for one listener since its last step."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self._total: torch.Tensor | None = None  # not yet handed over: of an accumulation that is under way
        self._pending: PendingLoss | None = None  # handed over
        self._kept: torch.Tensor | None = None  # the total without the last loss
        self._added = 0  # losses in the total
        self.handed = 0  # losses in what was handed over last
        self._zeroed = getattr(listener, "zeroed", 0)

    def add(self, loss: torch.Tensor) -> None:
        """Adds a 0-d loss; the sum is a tensor of its own."""
        self._kept = self._total
        self._added = 1 if self._total is None else self._added + 1
        self._total = loss.clone() if self._total is None else self._total + loss

    def hand_over(self, ranks: int) -> None:
        """Lets the listener observe the sum, with what was handed over before and no step has used."""
        total, self._total = self._total, None
        if total is None:
            return
        if self._pending is not None and self.listener.observed is self._pending:
            self._pending.add(total)
            self.handed += self._added
        else:
            self.handed = self._added
            self._pending = PendingLoss(total, ranks)
            self.listener.observe(self._pending)

    def take_back(self) -> None:
        """Undoes the last `add`, and what was handed over with it unless a step has used it."""
        if self._total is not None:
            self._total = self._kept
            self._added -= 1
        elif self._pending is not None and self.listener.observed is self._pending:
            self._pending.replace_last(self._kept)
            self.handed -= 1
            self.listener.observe(None if self._pending.is_empty else self._pending)

    def drop_if_gone(self, sharded: bool) -> None:
        """Drops the sum if its gradients are gone.

        Args:
            sharded: gradients may lie elsewhere until the end of an accumulation.
        """
        zeroed, self._zeroed = self._zeroed, getattr(self.listener, "zeroed", 0)
        hidden = sharded and self._total is not None
        gone = not hidden and all(param.grad is None for param in self._params())
        if gone or zeroed != self._zeroed:
            if self._pending is not None and self.listener.observed is self._pending:
                self.listener.observe(None)
            self._total = self._pending = None

    def reaches(self, parameters: set[int]) -> bool:
        """Whether the listener has one of the parameters with these ids."""
        return any(id(param) in parameters for param in self._params())

    def gradients(self) -> list[tuple[int, int, int]]:
        """Returns what tells whether a gradient has changed, of every parameter that has one."""
        return [(n, id(p.grad), p.grad._version) for n, p in enumerate(self._params()) if p.grad is not None]

    def _params(self) -> Iterator[torch.Tensor]:
        return (param for group in innermost(self.listener).param_groups for param in group["params"])


class PendingLoss:
    """The loss of one step on its way to the host: ``item()`` waits for it."""

    is_whole = True  # of all micro-batches and ranks

    def __init__(self, total: torch.Tensor, ranks: int):
        """
        Args:
            total: This rank's loss, 0-d; overwritten when there are several ranks.
            ranks: Number of processes that average their losses.
        """
        self._ranks = ranks
        self._parts = [_Part(total, ranks)]

    def add(self, total: torch.Tensor) -> None:
        """Adds what was differentiated later for the same step; arguments as above."""
        self._parts.append(_Part(total, self._ranks))

    def replace_last(self, total: torch.Tensor | None) -> None:
        """Puts `total`, if any, in place of what came last."""
        del self._parts[-1]
        if total is not None:
            self.add(total)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left after `replace_last`."""
        return not self._parts

    def item(self) -> float:
        """Returns the mean over the ranks, the same float on each of them."""
        return sum(part.item() for part in self._parts) / self._ranks


class _Part:
    """A part of a pending loss, summed over the ranks while it travels."""

    def __init__(self, total: torch.Tensor, ranks: int):
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
        if self._reduction is not None:
            self._reduction.wait()
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._total.item()


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
