"""From a `RunConfig` to the arguments of its Trainer."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from emo_hf.lab.recipe import baselines
from emo_hf.lab.recipe.arms import Arm
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.run import checkpoints

LOGS = 500  # rows of history.jsonl per run, about


def total_steps(run_config: RunConfig, examples: int) -> int:
    """Returns the optimizer steps of a run with that many training `examples`."""
    scale = run_config.scale
    return scale.steps or math.ceil(math.ceil(examples / scale.batch_size) * (scale.epochs or 0))


def training_arguments(
    run_config: RunConfig, folder: Path, steps: int, report_to: str, save_every: int | None = None
) -> TrainingArguments:
    """Returns Trainer's defaults, but for what the recipe says."""
    arm, scale = run_config.arm, run_config.scale
    logging_steps = max(1, steps // LOGS)
    more = checkpoints.saving(save_every, logging_steps)
    if arm.optim not in baselines.ALIASES:
        more |= {"optim": arm.optim, "optim_args": optim_args(arm)}
    return TrainingArguments(
        output_dir=str(folder),
        run_name=f"{run_config.recipe}/{run_config.size}/{run_config.name}/seed{run_config.seed}",
        seed=run_config.seed,
        learning_rate=arm.lr,
        weight_decay=arm.weight_decay,
        lr_scheduler_type=arm.driven_by or arm.schedule,
        warmup_steps=round(arm.warmup * steps),
        max_grad_norm=arm.max_grad_norm,
        max_steps=steps,
        per_device_train_batch_size=scale.batch_size // (run_config.processes or 1),
        per_device_eval_batch_size=128,
        eval_strategy="no" if scale.evaluations == 1 else "steps",
        eval_steps=math.ceil(steps / scale.evaluations),
        logging_steps=logging_steps,
        dataloader_pin_memory=torch.cuda.is_available(),
        # otherwise a model that ignores num_items_in_batch, like GPT-2's classifier, has a loss that is too large
        average_tokens_across_devices=False,
        use_cpu=(run_config.processes or 0) > torch.cuda.device_count(),  # two processes cannot share a GPU
        report_to=report_to,
        disable_tqdm=True,
        **more,
    )


def optim_args(arm: Arm) -> str | None:
    """Returns the options as ``optim_args`` spells them, with lr: in its own field it may look like a default."""
    if not arm.is_emo:
        return None
    flat: dict[str, Any] = {"lr": arm.lr, "implementation": "forloop"}  # the same to the last bit on every machine
    for name, value in arm.options.items():
        if isinstance(value, list):  # betas -> beta1, beta2
            flat |= {f"{name[:-1]}{place}": part for place, part in enumerate(value, start=1)}
        else:
            flat[name] = value
    if arm.replay:
        flat["hold_pulse"] = True
    return ",".join(f"{name}={value}" for name, value in flat.items())
