"""Trains one cell with a Trainer and returns its summary. `emo_hf.lab.child` gives it a process and a folder.

What an arm may ask for beyond an optimizer and its rate is done here: a loss that is withheld or changed on its way to
the optimizer, step sizes replayed from another run, corrupted batches, 16-bit weights, a training cut in two.
"""

import functools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Subset
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments, set_seed

from emo_hf import EmoTrainer
from emo_hf.dashboards import wandb
from emo_hf.hf.feed import LossFeed
from emo_hf.lab import checkpoints, measures, optimizers, processes, replay, sources, tasks
from emo_hf.lab.arms import Arm, Heard
from emo_hf.lab.measures import finite
from emo_hf.lab.spec import Cell

LOGS = 500  # rows of history.jsonl per run, about
Row = dict[str, Any]


class History(TrainerCallback):
    """Writes every log of Trainer as one row, at once: the parent process follows it.

    Args:
        start: steps that were trained before, with another Trainer.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path, self.start = path, start
        self.rows: list[Row] = []

    def on_train_begin(self, args, state, control, **kwargs: Any) -> None:
        if state.global_step + self.start == 0:
            self.write({"step": 0, "total_steps": state.max_steps})

    def on_log(self, args, state, control, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        self.write({"step": state.global_step + self.start, **finite(logs or {})})

    def write(self, row: Row) -> None:
        self.rows.append(row)
        if processes.rank() > 0:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")


class Comparable(TrainerCallback):
    """Gives W&B what it compares runs by, also for optimizers without an EmotionCallback."""

    def __init__(self, cell: Cell) -> None:
        self.config = {"recipe": cell.recipe, "size": cell.size, "arm": cell.name, "seed": cell.seed}
        if not cell.arm.is_emo:
            self.config["emo_optimizer"] = cell.arm.optim

    def on_train_begin(self, args, state, control, **kwargs: Any) -> None:
        wandb.describe(self.config)

    def on_evaluate(self, args, state, control, **kwargs: Any) -> None:
        wandb.summarize({"best/eval_loss": min(log["eval_loss"] for log in state.log_history if "eval_loss" in log)})


class Trajectory(TrainerCallback):
    """Keeps the classifier's weights at the start and at every evaluation."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.weights: list[np.ndarray] = []

    def on_train_begin(self, args, state, control, model: PreTrainedModel, **kwargs: Any) -> None:
        self.note(state.global_step, model)

    def on_evaluate(self, args, state, control, model: PreTrainedModel, **kwargs: Any) -> None:
        self.note(state.global_step, model)

    def note(self, step: int, model: PreTrainedModel) -> None:
        head = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
        self.steps.append(step)
        self.weights.append(head.weight.detach().float().flatten().cpu().numpy().copy())

    def save(self, path: Path) -> None:
        np.savez_compressed(path, steps=np.array(self.steps), weights=np.array(self.weights))


class CutAt(TrainerCallback):
    """Saves a checkpoint at a step and ends the training there."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs: Any) -> None:
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


class Changed:
    """A loss on its way to the optimizer, changed when it arrives."""

    def __init__(self, loss: Any, heard: Heard) -> None:
        self.loss, self.heard = loss, heard

    def item(self) -> float:
        return self.heard.scale * float(self.loss if isinstance(self.loss, float) else self.loss.item()) + (
            self.heard.offset
        )


class ArmTrainer(EmoTrainer):
    """An EmoTrainer that does with optimizer, schedule and batches what the arm of its cell says."""

    def __init__(self, cell: Cell, folder: Path, **kwargs: Any) -> None:
        self.cell, self.folder = cell, folder
        arm = cell.arm
        if arm.optim in optimizers.ALIASES:
            chosen = optimizers.load(arm.optim), optimizers.keywords(arm.optim, arm.lr, arm.options)
            kwargs["optimizer_cls_and_kwargs"] = chosen
        super().__init__(local_sgd_steps=arm.local_sgd_steps, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer, arm = super().create_optimizer(*args, **kwargs), self.cell.arm
        hear = getattr(optimizer, "observe", None)
        if not arm.feed:
            optimizer.observe = lambda loss: hear(0.0)
        elif arm.heard:
            optimizer.observe = lambda loss: hear(Changed(loss, arm.heard))
        elif arm.optim in optimizers.ALIASES and optimizers.ALIASES[arm.optim].hears_loss:
            LossFeed.install(self.accelerator, optimizers.Hearing(optimizer))
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if not self.cell.arm.replay or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        sizes = replay.step_sizes(self.cell, self.folder, num_training_steps)
        held = self.cell.arm.lr * replay.HELD
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: sizes[min(step, len(sizes) - 1)] / held)
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        step, condition = self.state.global_step + 1, self.cell.arm.condition
        if condition and condition.corrupted_every and step % condition.corrupted_every == 0:
            inputs = {**inputs, "labels": _shuffled(inputs["labels"], seed=step)}
        return super().training_step(model, inputs, *args, **kwargs)


def _shuffled(labels: torch.Tensor, seed: int) -> torch.Tensor:
    order = torch.randperm(labels.numel(), generator=torch.Generator().manual_seed(seed))
    return labels.flatten()[order.to(labels.device)].view_as(labels)


def train(
    cell: Cell, folder: Path, report_to: str, save_every: int | None = None, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Trains and evaluates `cell`; returns its summary.

    Args:
        cell: the run.
        folder: of the run.
        report_to: "none", "wandb" or "trackio".
        save_every: steps between two checkpoints; None saves none.
        checkpoint: the one to go on from; `folder` was rewound to it.

    Raises:
        RecipeError: the data, the model, or a run to replay is missing.
    """
    found = sources.examples(cell)
    set_seed(cell.seed)
    parts = tasks.build(cell, found)
    if cell.arm.weights == "bfloat16":
        parts.model.to(torch.bfloat16)
    steps = total_steps(cell, len(found.train))
    history, trajectory = History(folder / "history.jsonl"), Trajectory()
    past = checkpoints.past(folder) if checkpoint else []
    history.rows += past
    callbacks: list[TrainerCallback] = [
        history,
        checkpoints.Clock(past),
        *([trajectory] if "trajectory" in cell.measure else []),
    ]
    if report_to == "wandb" and processes.rank() == 0:
        callbacks.append(Comparable(cell))
    make = functools.partial(ArmTrainer, cell, folder, **vars(parts))
    trainer = make(args=arguments(cell, folder, steps, report_to, save_every), callbacks=callbacks)
    if cell.arm.handover:
        trainer, extra = _in_two_parts(trainer, history, steps, make)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        extra = checkpoints.of_whole(past, trainer) if checkpoint else {}
    rows = history.rows
    if "eval_loss" not in rows[-2] or rows[-2]["step"] != rows[-1]["step"]:  # the last row is train()'s own
        trainer.evaluate()
    if trajectory.steps and processes.rank() == 0:
        trajectory.save(folder / "trajectory.npz")
    summary = {
        "recipe": cell.recipe,
        "size": cell.size,
        "arm": cell.name,
        "seed": cell.seed,
        "optimizer": cell.arm.optimizer,
        "tuning": str(cell.arm.tuning),
        **({"processes": cell.processes, "local_sgd_steps": cell.arm.local_sgd_steps} if cell.processes else {}),
        "train_examples": len(found.train),
        "test_examples": len(found.test),
        "data_sha256": found.sha256,
        "parameters": sum(p.numel() for p in parts.model.parameters()),
        "trained_parameters": sum(p.numel() for p in parts.model.parameters() if p.requires_grad),
        "steps": steps,
    }
    signals = folder / "emo_signals.jsonl"
    return finite(
        summary
        | measures.of_history(rows, cell.task.metric, cell.equal_train_loss)
        | measures.of_signals(signals, rows)
        | measures.of_memory(trainer)
        | extra
    )


def _in_two_parts(
    trainer: ArmTrainer, history: History, steps: int, make: Callable[..., ArmTrainer]
) -> tuple[ArmTrainer, dict[str, Any]]:
    """Trains up to the handover, then the rest with another Trainer; returns that one and more for the summary."""
    handover = trainer.cell.arm.handover
    cut = max(1, round(handover.at * steps))
    parts, tests = {}, {}
    if handover.data == "halves":
        parts = dict(enumerate(_halves(trainer.train_dataset)))
        tests = dict(enumerate(_halves(trainer.eval_dataset)))
        trainer.train_dataset = parts[0]
    trainer.add_callback(CutAt(cut))
    trainer.train()
    checkpoint = Path(trainer.args.output_dir, f"checkpoint-{cut}")
    changed = {"train_dataset": parts[1], "eval_dataset": tests[1]} if parts else {}
    if handover.optimizer == "kept":
        rest = make(args=trainer.args, callbacks=[history], **changed)
        rest.train(resume_from_checkpoint=str(checkpoint))
    else:
        folder = Path(trainer.args.output_dir, "second")
        args = arguments(trainer.cell, folder, steps - cut, "none")
        history.start = cut
        rest = make(args=args, callbacks=[history], **changed)
        rest.train()
    shutil.rmtree(checkpoint)
    if not tests:
        return rest, {}
    quiet = rest.evaluate(tests[0], metric_key_prefix="earlier")
    return rest, {"earlier_accuracy": quiet["earlier_accuracy"]}


def _halves(examples: Any) -> tuple[Subset, Subset]:
    """Splits a data set in two by its classes: those with even numbers, and the others."""
    labels = [int(examples[row]["labels"]) for row in range(len(examples))]
    return tuple(Subset(examples, [row for row, label in enumerate(labels) if label % 2 == part]) for part in (0, 1))


def total_steps(cell: Cell, examples: int) -> int:
    """Returns the optimizer steps of a cell that trains on so many examples."""
    scale = cell.scale
    return scale.steps or math.ceil(math.ceil(examples / scale.batch_size) * scale.epochs)


def arguments(
    cell: Cell, folder: Path, steps: int, report_to: str, save_every: int | None = None
) -> TrainingArguments:
    """Trainer's defaults (gradient norm clipped at 1), except for what the recipe says."""
    arm, scale = cell.arm, cell.scale
    return TrainingArguments(
        output_dir=str(folder),
        run_name=f"{cell.recipe}/{cell.size}/{cell.name}/seed{cell.seed}",
        seed=cell.seed,
        **({} if arm.optim in optimizers.ALIASES else {"optim": arm.optim, "optim_args": optim_args(arm)}),
        learning_rate=arm.lr,
        weight_decay=arm.weight_decay,
        lr_scheduler_type=arm.driven_by or arm.schedule,
        warmup_steps=round(arm.warmup * steps),
        max_steps=steps,
        per_device_train_batch_size=scale.batch_size // (cell.processes or 1),
        per_device_eval_batch_size=128,
        eval_strategy="no" if scale.evaluations == 1 else "steps",
        eval_steps=math.ceil(steps / scale.evaluations),
        logging_steps=max(1, steps // LOGS),
        **checkpoints.every(save_every, max(1, steps // LOGS)),
        dataloader_pin_memory=torch.cuda.is_available(),
        # a model that ignores num_items_in_batch, like GPT-2's classifier, has its loss multiplied by the processes
        average_tokens_across_devices=False,
        use_cpu=(cell.processes or 0) > torch.cuda.device_count(),  # two processes cannot share a GPU
        report_to=report_to,
        disable_tqdm=True,
    )


def optim_args(arm: Arm) -> str | None:
    """Options as ``optim_args`` spells them. lr is among them: in a field, 5e-5 would look like Trainer's default."""
    if not arm.is_emo:
        return None
    flat: dict[str, Any] = {"lr": arm.lr}
    for name, value in arm.options.items():
        if isinstance(value, list):  # betas -> beta1, beta2
            flat |= {f"{name[:-1]}{place}": part for place, part in enumerate(value, start=1)}
        else:
            flat[name] = value
    if arm.replay:
        flat["hold_pulse"] = True
    return ",".join(f"{name}={value}" for name, value in flat.items())
