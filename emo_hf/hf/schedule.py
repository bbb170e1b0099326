"""``TrainingArguments(lr_scheduler_type="emopulse")``: `EmoPulse` over whatever ``optim`` names.

`emo_hf.hf.registration` makes transformers accept the name. ``warmup_steps`` and
``lr_scheduler_kwargs={"branch": "quieter"}`` reach `EmoPulse`.
"""

from typing import Any

from emo_hf.scheduler import EmoPulse


def find_pulse(scheduler: Any) -> EmoPulse | None:
    """Returns the `EmoPulse` inside the wrappers of accelerate, or None."""
    while scheduler is not None and not isinstance(scheduler, EmoPulse):
        scheduler = getattr(scheduler, "scheduler", None)
    return scheduler
