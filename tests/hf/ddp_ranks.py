"""What a rank of test_ddp.py does, by name: under torchrun ``python -m emo_hf.launch ddp_ranks.py NAME...``."""

import copy
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from transformers import Trainer, TrainingArguments

from emo_hf import registry
from emo_hf.errors import CheckpointError
from emo_hf.hf import feed
from emo_hf.spec import OptimizerSpec
from tests.hf.tiny_gpt2 import Meter, leave, let_cpu_ranks_resume, make_data, make_model

STEPS, HALF = 20, 10
LONG = 50  # steps that the ranks must agree on


def make_args(folder: str, **options: Any) -> TrainingArguments:
    defaults = {
        "output_dir": folder, "optim": "emosens", "lr_scheduler_type": "constant", "use_cpu": True,
        "per_device_train_batch_size": 2, "max_grad_norm": 0.0, "logging_strategy": "no", "save_strategy": "no",
        "report_to": [], "disable_tqdm": True, "dataloader_pin_memory": False, "ddp_find_unused_parameters": False,
    }  # fmt: skip
    return TrainingArguments(**{**defaults, **options})


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def distinct_rows() -> list[OptimizerSpec]:
    """One spec for each pair of update rule and geometry."""
    return list({(spec.update, spec.geometry): spec for spec in registry.specs()}.values())


def shadowed(spec: OptimizerSpec) -> dict[str, str]:
    return {"optim": spec.key} | ({"optim_args": "use_shadow=true"} if "use_shadow" in spec.options else {})


def objective(folder: str) -> dict[str, Any]:
    """What was fed and what was true, with an incomplete last group of micro-batches."""
    options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "num_train_epochs": 4}
    args = make_args(folder, logging_strategy="steps", logging_steps=1, **options)
    trainer = Trainer(make_model(), args, train_dataset=make_data())
    local, compute_loss = [], trainer.compute_loss
    trainer.compute_loss = lambda *a, **k: (loss := compute_loss(*a, **k), local.append(loss.item()))[0]
    meter = Meter(trainer)
    trainer.train()
    logs = [log["learning_rate"] for log in trainer.state.log_history if "loss" in log]
    return {"local": local, "fed": meter.fed, "truth": meter.truth, "weights": weights(trainer), "rates": logs}


def family(folder: str, spec: OptimizerSpec) -> dict[str, Any]:
    trainer = Trainer(make_model(), make_args(folder, max_steps=LONG, **shadowed(spec)), train_dataset=make_data())
    meter = Meter(trainer)
    trainer.train()
    return {"fed": meter.fed, "weights": weights(trainer)}


def families(folder: str) -> dict[str, Any]:
    return {spec.key: family(folder, spec) for spec in distinct_rows()}


def unreduced(folder: str) -> dict[str, Any]:
    """As `family`, but each rank takes its own loss for the loss."""
    reduced = feed.PendingLoss
    feed.PendingLoss = lambda total, ranks: reduced(total, 1)
    try:
        return family(folder, registry.find("emosens"))
    finally:
        feed.PendingLoss = reduced


def resume(folder: str) -> dict[str, Any]:
    """For every spec: the weights after 20 steps, straight and resumed from step 10, and the file of the state."""
    let_cpu_ranks_resume()
    found = {}
    for spec in registry.specs():
        args = make_args(
            f"{folder}/{spec.key}", max_steps=STEPS, save_strategy="steps", save_steps=HALF, **shadowed(spec)
        )
        ends = []
        for checkpoint in (None, f"{folder}/{spec.key}/checkpoint-{HALF}"):
            trainer = Trainer(make_model(), args, train_dataset=make_data())
            Meter(trainer)
            trainer.train(resume_from_checkpoint=checkpoint)
            state = copy.deepcopy(feed.find_optimizer(trainer.optimizer).state_dict())
            ends.append((weights(trainer), state))
        found[spec.key] = ends
    return found


def refusal(folder: str) -> str:
    """The message that a rank gets when it resumes the checkpoint of another version."""
    args = make_args("refused", max_steps=STEPS, optim="emosens-3.7")
    trainer = Trainer(make_model(), args, train_dataset=make_data())
    Meter(trainer)
    try:
        trainer.train(resume_from_checkpoint=f"{folder}/emosens-3.9/checkpoint-{HALF}")
    except CheckpointError as error:
        return str(error)
    return "loaded"


def order(folder: str) -> list[str]:
    """The events of two steps of two micro-batches each, in the order in which they happened."""
    events: list[str] = []
    args = make_args(folder, max_steps=2, gradient_accumulation_steps=2, per_device_train_batch_size=1)
    trainer = Trainer(make_model(), args, train_dataset=make_data())
    Meter(trainer)
    all_reduce, backward = dist.all_reduce, trainer.accelerator.backward

    class Work:
        def __init__(self, work: dist.Work):
            self.work = work

        def wait(self) -> None:
            events.append("wait")
            self.work.wait()

    def recorded(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        work = all_reduce(tensor, *args, **kwargs)
        if tensor.dim() > 0:  # a bucket of gradients
            return work
        events.append("all_reduce")
        return Work(work)

    def bucket(state: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        events.append("bucket")
        return allreduce_hook(None, bucket)

    def watched(loss: torch.Tensor, **kwargs: Any) -> None:
        if not events:
            trainer.model_wrapped.register_comm_hook(None, bucket)
        events.append("backward")
        backward(loss, **kwargs)
        events.append("end of backward")

    trainer.accelerator.backward = watched
    dist.all_reduce = recorded
    try:
        trainer.train()
    finally:
        dist.all_reduce = all_reduce
    return events


def failure(folder: str) -> None:
    """Rank 1 raises at step 7; a checkpoint is saved at every second step."""
    args = make_args(folder, max_steps=STEPS, save_strategy="steps", save_steps=2)
    trainer = Trainer(make_model(), args, train_dataset=make_data())
    Meter(trainer)
    compute_loss = trainer.compute_loss

    def failing(*args: Any, **kwargs: Any) -> Any:
        if dist.get_rank() == 1 and trainer.state.global_step == 7:
            raise RuntimeError("rank 1 has had enough")
        return compute_loss(*args, **kwargs)

    trainer.compute_loss = failing
    trainer.train()


def main(names: list[str]) -> None:
    for name in names:
        result = globals()[name](name)
        torch.save(result, Path(f"{name}-{dist.get_rank()}.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
    leave()
