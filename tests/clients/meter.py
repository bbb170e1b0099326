"""Runs a script as it stands, and notes from outside what it differentiates, hears and logs."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from torch.optim.optimizer import register_optimizer_step_post_hook

from emo_hf.optimizer import EmoOptimizer
from tests.hf.two_processes import forget_accelerate

SCRIPTS = Path(__file__).parent / "scripts"


class Notes:
    """What a script did.

    Attributes:
        objectives: for each step, what was differentiated for it on this rank.
        heard: for each step, the loss that the optimizer heard.
        rates: for each step, the step size of every parameter group.
        logs: what the script logged, each with the rates of the last step then.
    """

    def __init__(self) -> None:
        self.objectives: list[float] = []
        self.heard: list[float] = []
        self.rates: list[list[float]] = []
        self.logs: list[tuple[dict[str, Any], list[float]]] = []
        self.steps = 0  # that the optimizer counts, those before a resume included
        self._objective = 0.0

    def note_backward(self, accelerator: Accelerator, loss: Any) -> None:
        self._objective += loss.item() / accelerator.gradient_accumulation_steps

    def note_step(self, optimizer: Any, *_: Any) -> None:
        if isinstance(optimizer, EmoOptimizer):
            self.objectives.append(self._objective)
            self.heard.append(optimizer.signals().loss)
            self.rates.append([group["effective_lr"] for group in optimizer.param_groups])
            self.steps = optimizer.steps
            self._objective = 0.0

    def note_log(self, values: dict[str, Any]) -> None:
        self.logs.append((dict(values), self.rates[-1] if self.rates else []))


def run(name: str, *arguments: str) -> Notes:
    """Runs ``tests/clients/scripts/<name>.py`` with `arguments`; returns what it did."""
    notes, backward = Notes(), Accelerator.backward
    forget_accelerate()
    hook = register_optimizer_step_post_hook(notes.note_step)

    def noting(self: Accelerator, loss: Any, **kwargs: Any) -> None:
        notes.note_backward(self, loss)
        backward(self, loss, **kwargs)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ACCELERATE_USE_CPU", "true")
            patch.setattr(Accelerator, "backward", noting)
            patch.setattr(Accelerator, "log", lambda self, values, step=None, log_kwargs=None: notes.note_log(values))
            patch.setattr(sys, "argv", [name, *arguments])
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    finally:
        hook.remove()
        forget_accelerate()
    return notes
