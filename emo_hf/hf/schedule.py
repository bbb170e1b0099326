"""``TrainingArguments(lr_scheduler_type="emopulse")``: `EmoPulse` over whatever ``optim`` names.

transformers has no registration API: the name becomes a genuine member of its ``SchedulerType``, and `_make` an entry
of the table from which ``get_scheduler`` takes the function that builds the scheduler. ``warmup_steps`` and
``lr_scheduler_kwargs={"branch": "quieter"}`` reach `EmoPulse`.
"""

from typing import Any

import torch
from transformers import optimization
from transformers.trainer_utils import SchedulerType

from emo_hf.errors import RegistrationError
from emo_hf.hf.names import add_members, remove_members
from emo_hf.scheduler import NAME, EmoPulse


def register() -> None:
    """Makes "emopulse" an ``lr_scheduler_type``. Calling it again changes nothing.

    Raises:
        RegistrationError: transformers has moved the private names this relies on.
    """
    try:
        add_members(SchedulerType, [NAME])
        optimization.TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(NAME)] = _make
    except (AttributeError, TypeError, ValueError) as error:
        raise RegistrationError(
            f"The installed transformers does not accept a new lr_scheduler_type ({type(error).__name__}: {error})."
            " Install a supported transformers; or set EMO_HF_REGISTER=0, which leaves the names out, and pass"
            " Trainer(optimizers=(optimizer, emo_hf.EmoPulse(optimizer)))."
        ) from error


def unregister() -> None:
    """Undoes `register`. Calling it again changes nothing."""
    if optimization.TYPE_TO_SCHEDULER_FUNCTION.get(NAME) is _make:
        del optimization.TYPE_TO_SCHEDULER_FUNCTION[NAME]
    remove_members(SchedulerType, [NAME])


def _make(
    optimizer: torch.optim.Optimizer, num_warmup_steps: int, num_training_steps: int, **options: Any
) -> EmoPulse:
    """What ``get_scheduler`` calls. The pulse has no end to plan for: ``num_training_steps`` does not matter."""
    return EmoPulse(optimizer, warmup_steps=num_warmup_steps, **options)


def find_pulse(scheduler: Any) -> EmoPulse | None:
    """Returns the `EmoPulse` inside the wrappers of accelerate, or None."""
    while scheduler is not None and not isinstance(scheduler, EmoPulse):
        scheduler = getattr(scheduler, "scheduler", None)
    return scheduler
