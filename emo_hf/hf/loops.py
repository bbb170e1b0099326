"""Loops written with accelerate, without a Trainer: the loss arrives there as well.

    accelerator.prepare(model, optimizer)      feeds every optimizer of ours, and every `EmoPulse`, without a line more
    attach(accelerator)                        the same by hand: where the patch is off, or after `prepare`
    LoopRecord(accelerator, "out")             writes the signals of every step, as in a Trainer

Once fed, ``optimizer.step()`` needs no argument; what passes ``accelerator.backward`` is what it hears. And
``get_last_lr()`` of a schedule that was prepared tells the step size of the last step, for each parameter group.
"""

import functools
import logging
import os
import types
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from emo_hf.dashboards import Recorder
from emo_hf.errors import EmoError
from emo_hf.hf import telling
from emo_hf.hf.feed import Listener, LossFeed, find_optimizer, keeps_own_loss
from emo_hf.hf.rates import tell_lr_used
from emo_hf.hf.settings import settings_of
from emo_hf.optimizer import EmoOptimizer
from emo_hf.scheduler import find_pulse, innermost
from emo_hf.signals import Signals

logger = logging.getLogger(__name__)


def listeners(accelerator: Accelerator) -> list[Listener]:
    """Returns what `accelerator` has prepared that needs the loss, in the order in which it was prepared."""
    ours = [find_optimizer(optimizer) for optimizer in accelerator._optimizers]
    pulses = [find_pulse(scheduler) for scheduler in accelerator._schedulers]
    return [each for each in (*ours, *pulses) if each is not None]


def feed(accelerator: Accelerator) -> list[Listener]:
    """Feeds everything that `accelerator` has prepared and that needs the loss; returns it.

    Makes the schedules of our optimizers tell the step sizes that were used.
    """
    heard = listeners(accelerator)
    fed = None
    for listener in heard:
        fed = LossFeed.extend(accelerator, listener)
    for optimizer in accelerator._optimizers:
        if find_optimizer(optimizer) is not None:
            _accept_loss(optimizer)
    schedules: dict[Listener, str | None] = dict.fromkeys(heard)
    for scheduler in accelerator._schedulers:
        scheduler = getattr(scheduler, "scheduler", scheduler)  # inside accelerate's wrapper
        driven = find_optimizer(getattr(scheduler, "optimizer", None))
        if driven is not None:
            tell_lr_used(scheduler, driven)
            if driven in schedules:
                schedules[driven] = type(scheduler).__name__
    if fed and accelerator.is_main_process:
        fed.at_first_loss = functools.partial(telling.introduce_new, schedules)
    return heard


def _accept_loss(wrapper: Any) -> None:
    """Lets accelerate's wrapper of an optimizer of ours take ``step(loss=...)``, as the optimizer itself does.

    What the feed has heard counts: the loss that is told may be that of the last micro-batch alone.
    """
    if "step" not in vars(wrapper):
        wrapper.step = types.MethodType(_step_with_loss, wrapper)  # bound, as torch's schedulers expect it


def _step_with_loss(wrapper: Any, closure: Any = None, *, loss: Any = None) -> Any:
    return type(wrapper).step(wrapper, *([] if closure is None else [closure]))  # DeepSpeed's takes none


class LoopRecord:
    """Records every optimizer step of an accelerate loop, on the main process; close it at the end.

        with LoopRecord(accelerator, "out", total_steps=1000):
            for batch in batches: ...

    Rows go to ``<output_dir>/emo_signals.jsonl``, and to the trackers that the Accelerator has (``log_with=``,
    ``init_trackers``) at the optimizer step. A record that fails is logged as an error; the training goes on.

    Args:
        accelerator: one that has prepared the optimizer.
        output_dir: folder of the record; created if missing.
        total_steps: optimizer steps of the whole training, for EmoFree too. From 5,001 on a row holds several steps.
        start_step: the step from which the training goes on; rows after it are taken out, those before it stay.
        optimizer: which one to record, as it was prepared or before; by default the first of ours.
        track: send each row to the Accelerator's trackers too.

    Raises:
        EmoError: `accelerator` has prepared nothing that needs the loss.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        output_dir: str | os.PathLike[str],
        *,
        total_steps: int = 0,
        start_step: int = 0,
        optimizer: Any = None,
        track: bool = True,
    ) -> None:
        heard = feed(accelerator)
        if optimizer is not None:
            heard = [each for each in heard if innermost(each) is innermost(optimizer)]
        if not heard:
            raise EmoError(
                "LoopRecord found no emo optimizer and no EmoPulse among what this Accelerator has prepared: call"
                " accelerator.prepare(optimizer) first."
            )
        self._accelerator, self._listener, self._track = accelerator, heard[0], track
        self._step, self._seen = start_step, self._listener.steps
        if isinstance(self._listener, EmoOptimizer) and total_steps:
            self._listener.plan(total_steps)
        self._ramp_end = telling.RampEnd(self._listener)
        self._recorder: Recorder | None = None
        main = accelerator.is_main_process
        if main or keeps_own_loss(accelerator):
            self._recorder = Recorder(
                output_dir if main else Path(output_dir, f"rank{accelerator.process_index}"),
                total_steps,
                start_step=start_step,
                resume=start_step > 0,
                config=settings_of(self._listener),
            )
        self._hook = innermost(self._listener).register_step_post_hook(self._after_step)

    def _after_step(self, *_: Any) -> None:
        seen, self._seen = self._seen, self._listener.steps
        signals = self._listener.signals()
        if self._recorder is None or signals is None or self._seen == seen:  # left out, or another group's turn
            return
        self._step += 1
        self._recorder.write(self._step, signals)
        if found := self._ramp_end.news(self._step):
            self._recorder.note(found)
        self._send(signals)

    def _send(self, signals: Signals) -> None:
        if self._track and self._accelerator.trackers:
            try:
                self._accelerator.log(signals.log(), step=self._step)
            except Exception as error:  # a vendor may raise anything
                self._track = False
                logger.error("The trackers get no more signals: %s: %s.", type(error).__name__, error)

    def close(self) -> None:
        """Writes the last row and stops recording. Calling it again changes nothing."""
        self._hook.remove()
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.close()

    def __enter__(self) -> "LoopRecord":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
