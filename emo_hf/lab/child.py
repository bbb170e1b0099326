"""Trains one cell, in a process of its own, or as one of several under torchrun:

    python -m emo_hf.lab.child RUN_FOLDER --report-to none

The folder holds ``config.yaml``; this adds ``env.json`` (versions), ``emo_signals.jsonl`` (the signals of an emo
optimizer), ``history.jsonl`` (what Trainer logs, while it logs it) and, last and at once, ``summary.json``. The
process ends when its standard input does, so it never outlives the one that started it.
"""

import argparse
import functools
import json
import logging
import math
import os
import platform
import statistics
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from emo_hf import EmoTrainer
from emo_hf.dashboards import wandb
from emo_hf.lab import load, processes, sources, tasks
from emo_hf.lab.arms import Arm
from emo_hf.lab.spec import Cell

PACKAGES = ("emo-hf", "torch", "transformers", "accelerate", "datasets", "evaluate", "tokenizers", "numpy", "wandb")
LOGS = 200  # rows of history.jsonl per run, about


class History(TrainerCallback):
    """Writes every log of Trainer as one row, at once: the parent process follows it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, args, state, control, **kwargs: Any) -> None:
        self.write({"step": 0, "total_steps": state.max_steps})

    def on_log(self, args, state, control, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        self.write({"step": state.global_step, **finite(logs or {})})

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if processes.rank() > 0:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")


class Comparable(TrainerCallback):
    """Gives W&B what it compares runs by, also for optimizers without an EmotionCallback."""

    def __init__(self, cell: Cell) -> None:
        self.config = {"recipe": cell.recipe, "size": cell.size, "arm": cell.name}
        if not cell.arm.is_emo:
            self.config["emo_optimizer"] = cell.arm.optim

    def on_train_begin(self, args, state, control, **kwargs: Any) -> None:
        wandb.describe(self.config)

    def on_evaluate(self, args, state, control, **kwargs: Any) -> None:
        wandb.summarize({"best/eval_loss": min(log["eval_loss"] for log in state.log_history if "eval_loss" in log)})


def train(cell: Cell, folder: Path, report_to: str) -> dict[str, Any]:
    """Trains and evaluates `cell`; returns its summary."""
    found = sources.examples(cell)
    set_seed(cell.seed)
    parts = tasks.build(cell, found)
    history = History(folder / "history.jsonl")
    args = arguments(cell, folder, len(found.train), report_to)
    callbacks = [history, Comparable(cell)] if report_to == "wandb" and processes.rank() == 0 else [history]
    if cell.arm.is_emo or cell.arm.local_sgd_steps:
        make = functools.partial(EmoTrainer, local_sgd_steps=cell.arm.local_sgd_steps)
    else:
        make = Trainer
    trainer = make(args=args, callbacks=callbacks, **vars(parts))
    trained = trainer.train().metrics
    evaluated = trainer.evaluate()
    sizes = [row["learning_rate"] for row in history.rows if "learning_rate" in row]
    return finite(
        {
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
            "parameters": parts.model.num_parameters(),
            "steps": trainer.state.global_step,
            cell.task.metric: evaluated[f"eval_{cell.task.metric}"],
            "eval_loss": evaluated["eval_loss"],
            "train_loss": trained["train_loss"],
            "step_size_median": statistics.median(sizes),
            "step_size_min": min(sizes),
            "step_size_max": max(sizes),
            "seconds": trained["train_runtime"],
        }
    )


def arguments(cell: Cell, folder: Path, examples: int, report_to: str) -> TrainingArguments:
    """Trainer's defaults (gradient norm clipped at 1), except for what the recipe says."""
    arm, scale = cell.arm, cell.scale
    steps = scale.steps or math.ceil(math.ceil(examples / scale.batch_size) * scale.epochs)
    return TrainingArguments(
        output_dir=str(folder),
        run_name=f"{cell.recipe}/{cell.size}/{cell.name}/seed{cell.seed}",
        seed=cell.seed,
        optim=arm.optim,
        optim_args=optim_args(arm),
        learning_rate=arm.lr,
        weight_decay=arm.weight_decay,
        lr_scheduler_type=arm.schedule,
        warmup_steps=round(arm.warmup * steps),
        max_steps=steps,
        per_device_train_batch_size=scale.batch_size // (cell.processes or 1),
        per_device_eval_batch_size=128,
        eval_strategy="no" if scale.evaluations == 1 else "steps",
        eval_steps=math.ceil(steps / scale.evaluations),
        logging_steps=max(1, steps // LOGS),
        save_strategy="no",
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
    return ",".join(f"{name}={value}" for name, value in flat.items())


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """Replaces what JSON cannot hold by None and names it in ``nonfinite``."""
    bad = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
    return {**row, **dict.fromkeys(bad), "nonfinite": bad} if bad else row


def environment() -> dict[str, Any]:
    """What a result may depend on beside the configuration. No environment variables: they hold secrets."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "packages": versions,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu_threads": torch.get_num_threads(),
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a whole file or none: readers never see half of it."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def end_with_parent() -> None:
    """Ends this process when standard input does: the parent is gone, whatever happened to it."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin: its lock would be held when the interpreter ends
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emo_hf.lab.child", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--report-to", default="none")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    end_with_parent()
    cell = load.cell(args.folder / "config.yaml")
    if processes.rank() > 0:
        train(cell, args.folder, args.report_to)
        os._exit(0)  # nothing to close; tearing gloo's threads down can abort a rank that is done (torch 2.13)
    lead(cell, args.folder, args.report_to)
    if dist.is_initialized():
        dist.destroy_process_group()


def lead(cell: Cell, folder: Path, report_to: str) -> None:
    """Trains as the process that writes the run's files and reports."""
    if report_to == "wandb":
        wandb.label(f"{cell.recipe}/{cell.size}/{cell.name}", "train", (cell.recipe, cell.size, cell.arm.optimizer))
        wandb.prepare()  # also for optimizers without an EmotionCallback
    write_json(folder / "env.json", environment())
    summary = train(cell, folder, report_to)
    if report_to == "wandb" and not cell.arm.is_emo:  # so that they have their place beside the others
        wandb.summarize({"emo/lr_median": summary["step_size_median"]})
    write_json(folder / "summary.json", summary)


if __name__ == "__main__":
    main()
