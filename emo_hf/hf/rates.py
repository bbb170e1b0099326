"""What a schedule over an optimizer of ours tells as its learning rate: the step sizes that were really used.

    tell_lr_used(scheduler, optimizer)     get_last_lr() -> group["effective_lr"] of every group, 0.0 before a step
    tell_schedule(scheduler)               get_last_lr() -> the multipliers of the schedule, as before

Only what is told changes. Schedules compute from ``group["lr"]`` and ``_last_lr``, which stay as they are, and so does
``state_dict``; one that asks itself for its last rate in ``step()`` gets the multiplier.
"""

from typing import Any

from emo_hf.optimizer import EmoOptimizer


class _TellsLrUsed:
    """What `tell_lr_used` puts before the class of a scheduler."""

    _emo_hf_optimizer: EmoOptimizer
    _emo_hf_kind: type  # the class before

    def get_last_lr(self) -> list[float]:
        return [group["effective_lr"] for group in self._emo_hf_optimizer.param_groups]

    def step(self, *args: Any, **kwargs: Any) -> Any:
        told, schedule = type(self), self._emo_hf_kind
        self.__class__ = schedule
        try:
            return self.step(*args, **kwargs)
        finally:
            self.__class__ = told

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A copy has the class as it was: one made for this object could not be pickled."""
        reduced: Any = super().__reduce_ex__(protocol)
        return object.__new__, (self._emo_hf_kind,), *reduced[2:]


def tell_lr_used(scheduler: Any, optimizer: EmoOptimizer) -> None:
    """Makes ``scheduler.get_last_lr()`` tell the step sizes of `optimizer`. Calling it again changes nothing.

    By a subclass for this one object: an attribute would be saved with the scheduler's ``state_dict``.
    """
    kind = type(scheduler)
    if not issubclass(kind, _TellsLrUsed):
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
        own = {"_emo_hf_optimizer": optimizer, "_emo_hf_kind": kind}
        scheduler.__class__ = type(kind.__name__, (_TellsLrUsed, kind), {**names, **own})


def tell_schedule(scheduler: Any) -> None:
    """Undoes `tell_lr_used`."""
    if isinstance(scheduler, _TellsLrUsed):
        scheduler.__class__ = scheduler._emo_hf_kind
