"""emoPulse for any optimizer: a learning rate scheduler that listens to the loss.

    factor = clamp(snr * max(100 ** drift, 0.01), 1e-4, 30);   group["lr"] = warmup * initial_lr * factor

It is the 3.9 pulse with its base rate of 1e-4 replaced by the optimizer's own learning rate: `EmoPulse` over an
optimizer at lr=1e-4 gives the step sizes of the 3.9 optimizers at lr=1.0. The factor is set by a hook right before
``optimizer.step()``, so that the loss of a step sets the rate of the same step; `step` is bookkeeping.

    scheduler = EmoPulse(torch.optim.AdamW(model.parameters(), lr=1e-4))
    scheduler.observe(loss); optimizer.step(); scheduler.step()

Source: muooon/EmoSens@397c573, scheduler/emopulse_scheduler.py, whose upper clamp lacks the factor `scope`.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, get_args
from weakref import WeakKeyDictionary

import torch
from torch.optim.lr_scheduler import LRScheduler

from emo_hf import mechanism
from emo_hf.emotion import BRANCHES, Branch
from emo_hf.errors import CheckpointError, MissingLossError, NonFiniteLossError, OptionError
from emo_hf.loss import LossOverRanks, Scalar, gradients_are_finite, hear, say_left_out
from emo_hf.mechanism import Bounds, MechanismState, Rate
from emo_hf.optimizer import EmoOptimizer
from emo_hf.pulse import Pulse
from emo_hf.saved_state import flaw_of_emotion
from emo_hf.signals import Signals
from emo_hf.spec import is_number, plain

NAME, VERSION = "emopulse", mechanism.V3_9.version
KEY = f"{NAME}-{VERSION}"
KEPT = ("base_lrs", "last_epoch", "_step_count", "_last_lr")  # of LRScheduler

# An optimizer has one pulse, the latest: Trainer makes a new scheduler over the same optimizer at every train().
_hooks: "WeakKeyDictionary[torch.optim.Optimizer, Any]" = WeakKeyDictionary()


def innermost(optimizer: Any) -> Any:
    """Returns the optimizer inside the wrappers of accelerate and DeepSpeed: the one whose step hooks run."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def find_pulse(scheduler: Any) -> "EmoPulse | None":
    """Returns the `EmoPulse` inside the wrappers of accelerate, or None."""
    while scheduler is not None and not isinstance(scheduler, EmoPulse):
        scheduler = getattr(scheduler, "scheduler", None)
    return scheduler


class EmoPulse(LRScheduler):
    """Drives the learning rate of `optimizer` by the loss.

    Args:
        optimizer: any optimizer but the emo ones, which have their own pulse. Its learning rates are the base rates.
        warmup_steps: optimizer steps over which the rate rises linearly, on top of the pulse; 1/warmup_steps first.
        branch: who decides between the long and the medium average of the loss; see `emo_hf.emotion`.
        stopcoef: the loss below which `should_stop` can come up.
        loss_over_ranks: what `observe` takes on several ranks: the "mean" of their losses, or each rank its "own".

    Raises:
        OptionError: `optimizer` has a pulse of its own, or an option is out of range.
    """

    _observed: float | Scalar | None  # the loss of the coming step

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        warmup_steps: int = 0,
        branch: Branch = "rounding",
        stopcoef: float = mechanism.STOPCOEF,
        loss_over_ranks: LossOverRanks = "mean",
    ) -> None:
        if isinstance(innermost(optimizer), EmoOptimizer):
            raise OptionError(
                f"EmoPulse got {innermost(optimizer).spec.key}, which sets its own step size by the loss: use"
                " lr_scheduler_type='constant', or give EmoPulse another optimizer."
            )
        if branch not in BRANCHES or warmup_steps < 0 or not stopcoef >= 0:
            raise OptionError(
                f"EmoPulse got {branch=}, {warmup_steps=}, {stopcoef=}; expected"
                f" one of {', '.join(BRANCHES)}, and two numbers >= 0."
            )
        if loss_over_ranks not in get_args(LossOverRanks):
            raise OptionError(
                f"EmoPulse got {loss_over_ranks=}; expected one of {', '.join(get_args(LossOverRanks))}."
            )
        self.warmup_steps = warmup_steps
        self._over_ranks = loss_over_ranks
        self._mechanism = mechanism.V3_9.configure(branch=branch, stopcoef=stopcoef)
        self._state = self._mechanism.start()
        self._forget_step()
        super().__init__(optimizer)
        self.base_lrs = [float(lr) for lr in self.base_lrs]
        self._last_lr = self.get_lr()
        _set_rates(optimizer, self._last_lr)
        self._listen()

    def _listen(self) -> None:
        optimizer = innermost(self.optimizer)
        if optimizer in _hooks:
            _hooks[optimizer].remove()
        _hooks[optimizer] = optimizer.register_step_pre_hook(self._before_step)

    def _forget_step(self) -> None:
        """Clears what belongs to one step only and no checkpoint holds."""
        self._observed = None
        self._loss = math.nan
        self._served = 0  # parameter groups that have got the rate of the current loss

    def observe(self, loss: float | Scalar | None) -> None:
        """Notes the loss of the coming ``optimizer.step()``. A second call replaces the first; None forgets it."""
        self._observed = loss

    @property
    def observed(self) -> float | Scalar | None:
        """The noted loss of the coming ``optimizer.step()``, None once it has used it."""
        return self._observed

    def step(self, epoch: int | None = None) -> None:
        """Counts. The rate is set when the optimizer steps, however often or seldom this is called."""
        self._step_count += 1
        self.last_epoch += 1

    @property
    def factor(self) -> float:
        """What the initial learning rates are multiplied by: the warmup in (0, 1] times a number in [1e-4, 30]."""
        warmup = min(1.0, max(self._state.steps, 1.0) / self.warmup_steps) if self.warmup_steps else 1.0
        pulse, base = self._pulse_and_base()
        return warmup * pulse / base

    @property
    def most(self) -> float:
        """The greatest `factor`."""
        pulse = self._mechanism.pulse
        assert isinstance(pulse, Pulse)
        return pulse.cap / pulse.base

    @property
    def should_stop(self) -> bool:
        """The hint that training may stop."""
        return bool(self._state.ready)

    @property
    def key(self) -> str:
        """What it is: "emopulse-3.9"."""
        return KEY

    @property
    def options(self) -> dict[str, Any]:
        """Every option with its value, beside those of the optimizer that it drives."""
        return {
            "warmup_steps": self.warmup_steps,
            "branch": self._mechanism.branch,
            "stopcoef": self._mechanism.stopcoef,
            "loss_over_ranks": self._over_ranks,
        }

    @property
    def bounds(self) -> Bounds | None:
        """Between which learning rates the pulse of the first parameter group moves."""
        pulse = self._mechanism.bounds(1.0)
        assert pulse is not None
        return Bounds(*(float(self.base_lrs[0]) * size / pulse.base for size in pulse))

    @property
    def steps(self) -> int:
        """Optimizer steps that it drove, those before a resume included."""
        return int(self._state.steps)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Returns the rate of every group, in effect since the last optimizer step."""
        return [base * self.factor for base in self.base_lrs]

    def signals(self) -> Signals | None:
        """Returns what the last step saw and decided, or None before the first step."""
        if math.isnan(self._loss):
            return None
        pulse, base = self._pulse_and_base()
        rate = self._rate()._replace(step=float(self._last_lr[0]), pulse=float(self.base_lrs[0]) * pulse / base)
        return self._mechanism.signals(self._state, self._loss, rate)

    def _rate(self) -> Rate:
        return self._mechanism.rate(self._state, lr=1.0, scope=1.0)

    def _pulse_and_base(self) -> tuple[float, float]:
        rate, pulse = self._rate(), self._mechanism.pulse
        assert isinstance(pulse, Pulse)
        assert rate.pulse is not None
        return rate.pulse, pulse.base

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if getattr(optimizer, "found_inf", None):  # a GradScaler lets fused optimizers skip the step themselves
            self._forget_step()
            return
        if self._observed is not None:
            self._advance(self._observed)
        elif not 0 < self._served < len(self.base_lrs):  # DeepSpeed ZeRO steps once per parameter group
            # A step with every rate at 0 only creates the optimizer's state (torch.distributed.checkpoint).
            if all(float(group["lr"]) == 0 for group in optimizer.param_groups):
                return
            raise MissingLossError(
                "EmoPulse got no loss before optimizer.step(). It sets the learning rate by the training loss of every"
                " step: train with emo_hf.EmoTrainer, or call emo_hf.attach(trainer), or add emo_hf.EmotionCallback to"
                " your Trainer, or in your own loop call scheduler.observe(loss) first."
            )
        served = self._served + len(optimizer.param_groups)
        _set_rates(optimizer, self._last_lr[self._served : served])
        self._served = served

    def _advance(self, observed: float | Scalar) -> None:
        self._observed = None
        self._served = 0
        try:
            loss = hear(observed, "EmoPulse", self._over_ranks, self.optimizer.param_groups)
        except NonFiniteLossError:
            if not gradients_are_finite(self.optimizer.param_groups):
                raise
            self._state.skipped += 1
            if self._state.skipped == 1:
                say_left_out(self.key, self._state.steps + 1)
            return
        self._loss = loss
        self._mechanism.advance(self._state, self._loss)
        self._last_lr = self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """Returns plain numbers and strings only."""
        return {"scheduler": KEY, "emo": self._state.pack(), **{name: self.__dict__[name] for name in KEPT}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state of the same scheduler; `state_dict` is not changed.

        Raises:
            CheckpointError: the state belongs to another scheduler or to other parameter groups, or it is damaged;
                nothing was changed.
        """
        whole = state_dict if isinstance(state_dict, dict) else {}
        saved = whole.get("scheduler", "another scheduler")
        if saved != KEY or not whole.keys() >= {"emo", *KEPT}:
            raise CheckpointError(
                f"The saved scheduler state is of {saved}, this scheduler is {KEY}. Continue with the scheduler that"
                " was saved, or start anew from the saved weights."
            )
        if flaws := list(self._flaws(state_dict)):
            raise CheckpointError(
                f"The saved scheduler state does not fit {KEY}, and nothing was loaded: {'; '.join(flaws)}. Build the"
                " optimizer as it was when it was saved, or start the scheduler anew from the saved weights."
            )
        self._state = MechanismState.unpack(tuple(state_dict["emo"]))
        self._forget_step()
        self.__dict__.update({name: state_dict[name] for name in KEPT})

    def _flaws(self, saved: dict[str, Any]) -> Iterator[str]:
        if flaw := flaw_of_emotion(saved["emo"], self._mechanism):
            yield f"emo: {flaw}"
        for name in ("base_lrs", "_last_lr"):
            rates = saved[name]
            if not isinstance(rates, list) or not all(_is_rate(rate) for rate in rates):
                yield f"{name}: got {rates!r:.60}, expected a list of rates >= 0"
            elif len(rates) != len(self.base_lrs):
                yield f"{name}: of {len(rates)} parameter groups, expected {len(self.base_lrs)}"
        for name in ("last_epoch", "_step_count"):
            if type(saved[name]) is not int or saved[name] < 0:
                yield f"{name}: got {saved[name]!r:.60}, expected a count"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._listen()  # a copy or an unpickled one drives the copy of the optimizer, whose hooks were not copied


def _is_rate(value: Any) -> bool:
    number = plain(value)
    return is_number(number) and number >= 0


def _set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float | torch.Tensor]) -> None:
    for group, lr in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)  # captured by a CUDA graph or compiled
        else:
            group["lr"] = lr
