"""`EmotionCallback`: records what the optimizer saw at every step, reacts when it is ready to stop, and feeds it the
loss where nothing else does.

    <output_dir>/emo_signals.jsonl, and every sink that ``report_to`` names      one row per step, or window of steps
    <output_dir>/rank1/emo_signals.jsonl, ...                                    where each rank has its own emotion
    trainer_state.json, of checkpoints and at the end                            ``emo/*`` in every logged step

It is added by itself where `emo_hf.hf.trainer.attach_feed` runs. Given to a Trainer that nothing connects
(``EMO_HF_PATCH=0``), it also supplies the loss and the true ``learning_rate``, from ``on_train_begin`` to
``on_train_end``; the loss also in every Trainer where `EmoPulse` drives an optimizer that is not one of ours. A record
that fails is logged as an error and ends; the training goes on.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.training_args import OptimizerNames

from emo_hf import registry
from emo_hf.dashboards import Recorder, wandb
from emo_hf.dashboards.health import advise_on_schedule
from emo_hf.errors import OptionError
from emo_hf.hf import progress, telling
from emo_hf.hf.feed import Listener, LossFeed, await_accelerator, find_listener, find_optimizer, stop_feeding
from emo_hf.hf.rates import tell_lr_used, tell_schedule
from emo_hf.hf.registration import CREATE_OPTIMIZER
from emo_hf.hf.settings import corrections, make_plain, settings_of
from emo_hf.hf.stopping import Reaction, attributes_of, folder_of, stop_settings
from emo_hf.optimizer import EmoOptimizer
from emo_hf.scheduler import innermost
from emo_hf.signals import Signals

logger = logging.getLogger(__name__)

POLICY_GRADIENTS = (
    "GRPOConfig",
    "PPOConfig",
    "RLOOConfig",
)  # of TRL: arguments of trainers whose loss hovers around 0


def lr_used(optimizer: EmoOptimizer) -> float:
    """Returns the step size of the last step, 0.0 while there was none (a GradScaler skips its first steps)."""
    return 0.0 if math.isnan(optimizer.effective_lr) else optimizer.effective_lr


def anneals(schedule: str) -> bool | None:
    """Whether a schedule of transformers takes the learning rate down; None where that has to be seen."""
    return None if schedule.startswith(("constant", "reduce_lr", "greedy")) else True


class EmotionCallback(TrainerCallback):
    """Records the signals of an emotion-driven optimizer or of `EmoPulse`; see the module for what it does alone.

    Alone it cannot reach what Trainer logs under ``lr_scheduler_type="reduce_lr_on_plateau"`` or ``"greedy"``: there
    ``learning_rate`` remains the schedule's multiplier. ``emo/lr`` is the step size really used in any case. Nor can
    it reach the progress bar.
    """

    def __init__(self, on_ready: str = "log", patience: int = 1) -> None:
        """
        Args:
            on_ready: What to do when the optimizer is ready to stop: "log" it, once; "save" a checkpoint that
                ``save_total_limit`` does not delete; or "stop" the training.
            patience: Optimizer steps in a row at which the signal must be up, >= 1. It also takes so many without it
                until the next time counts. The signal flickers from 3.8 on.

        Raises:
            OptionError: one of them is none of these.
        """
        self._reaction = Reaction(on_ready, patience)
        self._listener: Listener | None = None
        self._steps = 0  # that the listener has made
        self._recorder: Recorder | None = None
        self._accumulates = False  # gradients, over several micro-batches
        self._ramp_end: telling.RampEnd | None = None
        self._feeding = False  # while this callback supplies the loss
        self._scheduler: Any = None  # set while this callback makes it tell the true learning rate
        self.by_name = False  # ``args.optim``, not the user's own object, says which optimizer trains
        self.schedule: str | None = None  # its name, where `attach_feed` knows the Trainer
        self.every_rank = False  # each rank has an emotion of its own: record them all
        # Trainer's callbacks for TensorBoard and for the bar, where `attach_feed` knows the Trainer
        self.tensorboard: Any = None
        self.progress: Any = None
        self.guard: wandb.Guard | None = None  # of Trainer's callback for W&B
        self._evaluated: tuple[int, set[str]] = -1, set()  # step of an evaluation by Trainer, and the sets seen there

    def prepare(self, args: TrainingArguments, wandb_callback: Any) -> None:
        """Makes W&B safe before its own callback opens a run at ``on_train_begin``."""
        if "wandb" in _reporters(args) and args.process_index == 0:
            self.guard = self._try(wandb.guard, wandb_callback)

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # Later is too late where nothing connects the Trainer, and too early where the user may still log in.
        if "wandb" in _reporters(args) and args.process_index == 0 and not CREATE_OPTIMIZER.is_installed:
            self._try(wandb.prepare)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **_: Any,
    ) -> None:
        self._finish()  # what an interrupted training left open
        if self.by_name:
            _refuse_another(args, optimizer)
        self._accumulates = args.gradient_accumulation_steps > 1
        self._listener = find_listener(optimizer, lr_scheduler)
        if self._listener is None:
            logger.warning(
                "EmotionCallback has nothing to record: %s is not one of its optimizers, nor driven by EmoPulse.",
                args.optim,
            )
            return
        if self.every_rank:
            self._reaction.refuse_own_signals()
        if isinstance(self._listener, EmoOptimizer):
            self._listener.plan(state.max_steps, anneals(args.lr_scheduler_type))
        self._ramp_end = telling.RampEnd(self._listener)
        self._steps = self._listener.steps
        self._reaction.begin(state)
        feed = LossFeed.installed_on(self._listener)
        if feed is None:
            self._feeding = True
            await_accelerator(self._listener)
        if isinstance(self._listener, EmoOptimizer) and lr_scheduler is not None and not (feed and feed.of_trainer):
            self._scheduler = lr_scheduler  # EmoPulse tells the true learning rate by itself
            tell_lr_used(lr_scheduler, self._listener)
        if state.is_world_process_zero:
            if state.global_step > 0 and self._steps == 0:
                logger.warning(
                    "The training resumes at step %d without a state of the optimizer: its emotion (loss averages, "
                    "pulse, stop signal) and its moments start anew from the saved weights.",
                    state.global_step,
                )
            telling.introduce(self._listener, self.schedule)
            advise_on_schedule(args.lr_scheduler_type, args.get_warmup_steps(state.max_steps))
        if state.is_world_process_zero or self.every_rank:
            self._recorder = self._try(self._open_recorder, args, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        signals = self._new_signals()
        if signals is not None and self._listener is not None:
            self._reaction.observe(args, state, control, signals, self._listener.key)
            progress.show(self.progress, signals)
            if self._recorder is not None and (stopped := stop_settings(state, self._reaction.patience)):
                self._try(self._recorder.note, stopped)
        if signals is not None and self._ramp_end is not None:
            self._note_what_is_found(self._ramp_end, state)
        if self._recorder is not None and signals is not None:
            self._try(self._recorder.write, state.global_step, signals)
        if self._recorder is not None and (control.should_log or control.should_evaluate):
            self._try(self._recorder.check)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        # Trainer also logs evaluations and summaries, which belong to no optimizer step.
        signals = self._signals() if "loss" in logs else None
        if signals is not None and state.log_history:  # a Trainer's own `log` may keep none
            state.log_history[-1] |= signals.log()
        if "loss" in logs and args.eval_strategy == "no":  # else a line is that of an evaluation
            progress.show_in_table(self.progress, signals)
        if self._listener is not None:
            self._note_evaluation(args, state, control, logs)
        if "train_runtime" in logs and self._recorder is not None:
            # The last log. At on_train_end other callbacks would have closed their runs before this one.
            if state.is_world_process_zero:  # reports read it
                self._try(_save_state, state, folder_of(args) / TRAINER_STATE_NAME)
            self._end_record()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        progress.show_in_table(self.progress, self._signals())

    def _note_evaluation(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float]
    ) -> None:
        """Keeps the least finite loss of each evaluation set: of what Trainer evaluates by itself while it trains."""
        prefix = next((key.removesuffix("_runtime") for key in logs if key.endswith("_runtime")), "")
        step, seen = self._evaluated
        if step != state.global_step and (control.should_evaluate or (args.eval_on_start and state.global_step == 0)):
            self._evaluated = step, seen = state.global_step, set()
        if step != state.global_step or prefix in seen or not (prefix == "eval" or prefix.startswith("eval_")):
            return
        seen.add(prefix)
        key, best = f"{prefix}_loss", attributes_of(state).setdefault("best", {})
        if math.isfinite(loss := logs.get(key, math.nan)) and loss <= best.get(key, math.inf):
            best[key] = float(loss)
            if "wandb" in _reporters(args) and state.is_world_process_zero:
                self._try(wandb.summarize, {f"best/{key}": best[key]})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._reaction.after_save(args, state)
        if self._recorder is not None:  # a window of steps must not straddle a checkpoint: a resume would lose half
            self._try(self._recorder.flush)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._finish()

    def _note_what_is_found(self, ramp_end: telling.RampEnd, state: TrainerState) -> None:
        if found := ramp_end.news(state.global_step, aloud=state.is_world_process_zero):
            attributes_of(state).setdefault("settings", {}).update(found)
            if self._recorder is not None:
                self._try(self._recorder.note, found)

    def _new_signals(self) -> Signals | None:
        """Returns the signals of this step; None if a GradScaler left it out, or its loss is not finite."""
        if self._listener is None:
            return None
        steps, self._steps = self._steps, self._listener.steps
        return self._signals() if self._steps != steps else None

    def _signals(self) -> Signals | None:
        """Returns the signals of the last step, with the number of micro-batches where gradients are accumulated."""
        signals = self._listener.signals() if self._listener is not None else None
        feed = LossFeed.installed_on(self._listener) if self._accumulates and self._listener is not None else None
        if signals is None or feed is None or self._listener is None:
            return signals
        return replace(signals, micro_batches=float(feed.micro_batches(self._listener)))

    def _open_recorder(self, args: TrainingArguments, state: TrainerState) -> Recorder:
        main = state.is_world_process_zero
        make_plain(state)
        settings = settings_of(cast("Listener", self._listener))
        attributes_of(state)["settings"] = settings
        return Recorder(
            folder_of(args) if main else folder_of(args) / f"rank{args.process_index}",
            state.max_steps,
            report_to=_reporters(args) if main else (),
            start_step=state.global_step,
            resume=state.global_step > 0,
            config={
                **settings,
                **corrections(args, settings),
                "seed": args.seed,
                **({"emo_policy_gradient": True} if is_policy_gradient(args) else {}),
            },
            writer=getattr(self.tensorboard, "tb_writer", None),
            warmup_steps=args.get_warmup_steps(state.max_steps),
            guard=self.guard,
            trainer_counts=self.guard is None,
        )

    def _finish(self) -> None:
        self._end_record()
        if self._feeding and self._listener is not None:
            stop_feeding(self._listener)
        if self._scheduler is not None:
            tell_schedule(self._scheduler)
        self._feeding = False
        self._listener = self._scheduler = self._ramp_end = None

    def _end_record(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            self._try(recorder.close)

    def _try(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Returns what ``action`` returns; if it fails, logs the error and ends the record."""
        try:
            return action(*args, **kwargs)
        except Exception:
            logger.exception("%s failed. The training goes on without this record.", action.__qualname__)
            self._end_record()
            return None


def _refuse_another(args: TrainingArguments, optimizer: Any) -> None:
    """Raises `OptionError` if ``args.optim`` is one of ours and ``optimizer``, which is about to train, is another."""
    asked, ours = OptimizerNames(args.optim).value, find_optimizer(optimizer)
    if asked not in registry.names() or (ours is not None and ours.spec.name == registry.find(asked).name):
        return
    built = ours.key if ours else type(innermost(optimizer)).__name__
    deepspeed = getattr(args, "hf_deepspeed_config", None)
    if deepspeed is not None and "optimizer" in deepspeed.config:
        do = (
            "The DeepSpeed config has an optimizer section, which wins: remove it, and set"
            ' "zero_allow_untested_optimizer": true.'
        )
    else:
        do = (
            "The create_optimizer of this Trainer builds it: let it build what"
            " Trainer.get_optimizer_cls_and_kwargs(args) returns, or pass"
            " Trainer(optimizers=(optimizer, None)), or name the optim that it builds."
        )
    raise OptionError(f"optim={asked!r} was asked for, but {built} would train, at a rate not meant for it. {do}")


def _reporters(args: TrainingArguments) -> list[str]:
    return cast("list[str]", args.report_to)  # __post_init__ makes a list of it


def _save_state(state: TrainerState, path: Path) -> None:
    """Writes the whole file or, if the disk is full, none."""
    part = path.with_name(path.name + ".part")
    try:
        state.save_to_json(str(part))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def is_policy_gradient(args: TrainingArguments) -> bool:
    """By name, so that TRL need not be there."""
    return any(cls.__name__ in POLICY_GRADIENTS for cls in type(args).__mro__)
