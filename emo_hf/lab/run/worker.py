"""Trains one `RunConfig` in a process of its own, or as one of several under torchrun:

    python -m emo_hf.lab.run.worker RUN_FOLDER --report-to none

The folder holds ``config.yaml``. The worker adds the other files of `emo_hf.run_folder`, ``summary.json`` last. It
ends with the process that started it.
"""

import argparse
import contextlib
import functools
import json
import logging
import os
import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from emo_hf.dashboards import wandb
from emo_hf.dashboards.jsonl import write_whole
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.run import processes
from emo_hf.lab.run.training import train
from emo_hf.run_folder import RunFolder

NEEDED = ("emo-hf", "torch", "transformers", "accelerate", "datasets", "evaluate", "tokenizers", "numpy")
OPTIMIZERS = ("pytorch-optimizer", "prodigyopt", "prodigy-plus-schedule-free", "schedulefree", "momo-opt")
PACKAGES = (*NEEDED, "scipy", "wandb", "peft", *OPTIMIZERS)


def environment() -> dict[str, Any]:
    """Returns what a result may depend on besides the configuration. Environment variables may hold secrets."""
    versions: dict[str, str | None] = {}
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
    """Writes the whole file or none."""
    write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m emo_hf.lab.run.worker", description="Trains one run.")
    parser.add_argument("folder", type=lambda path: RunFolder(Path(path)))
    parser.add_argument("--report-to", default="none")
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--save-every", type=int, help="steps between two checkpoints")
    parser.add_argument("--checkpoint", type=Path, help="the checkpoint to go on from")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    processes.end_with_parent()
    if args.threads:
        torch.set_num_threads(args.threads)
    run_config = loading.run_config(args.folder.config)
    work = functools.partial(train, run_config, args.folder, args.report_to, args.save_every, args.checkpoint)
    if processes.rank() > 0:
        work()
        os._exit(0)  # the teardown of gloo's threads can abort a rank that is done (torch 2.13)
    lead(run_config, args.folder, args.report_to, work)
    if dist.is_initialized():
        dist.destroy_process_group()


def lead(run_config: RunConfig, folder: RunFolder, report_to: str, work: Callable[[], dict[str, Any]]) -> None:
    """Does the work of a run, which returns its summary, in the process that writes the files and reports."""
    if report_to == "wandb":
        group = f"{run_config.recipe}/{run_config.size}/{run_config.name}"
        wandb.label(
            group,
            "train",
            (run_config.recipe, run_config.size, run_config.arm.optimizer),
        )
        wandb.open_own_run(f"{group}/seed{run_config.seed}")  # also for optimizers without an EmotionCallback
    write_json(folder.environment, environment())
    with wandb.finished() if report_to == "wandb" else contextlib.nullcontext():
        summary = work()
        if report_to == "wandb" and not run_config.arm.is_emo:  # so that all arms have this column
            wandb.summarize({"emo/lr_median": summary["step_size_median"]})
        write_json(folder.summary, summary)


if __name__ == "__main__":
    main()
