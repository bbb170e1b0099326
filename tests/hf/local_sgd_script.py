"""Two ranks train the tiny model by local SGD; each writes what it saw. Run by test_local_sgd.py under torchrun."""

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

import emo_hf
from emo_hf.hf.feed import find_listener, find_optimizer
from tests.hf.tiny_gpt2 import Meter, leave, let_cpu_ranks_resume, make_data, make_model

RANK = 0


class Watch(TrainerCallback):
    """Copies all weights at every event."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[int, torch.Tensor]] = {}

    def note(self, event: str, state: Any, model: Any) -> None:
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        self.seen.setdefault(event, {})[state.global_step] = weights

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.note("begin", state, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.note("step", state, model)

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.note("evaluate", state, model)

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.note("save", state, model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.note("end", state, model)


def make(folder: str, kind: type[Trainer] = emo_hf.EmoTrainer, k: int | None = None, **options: Any) -> Trainer:
    defaults = {
        "output_dir": folder, "optim": "emosens", "lr_scheduler_type": "constant", "use_cpu": True,
        "per_device_train_batch_size": 1, "max_grad_norm": 0.0, "logging_steps": 1, "save_strategy": "no",
        "report_to": [], "disable_tqdm": True, "dataloader_pin_memory": False, "ddp_find_unused_parameters": False,
    }  # fmt: skip
    model = make_model()
    args = TrainingArguments(**{**defaults, **options})
    extra = {} if k is None else {"local_sgd_steps": k}
    return kind(model=model, args=args, train_dataset=make_data(), eval_dataset=make_data(6), **extra)


def train(name: str, trainer: Trainer, resume: str | None = None) -> None:
    """Trains and writes ``<name>-<rank>.pt``: weights at every event, losses, and the state of the listener."""
    tokens, compute_loss = [], trainer.compute_loss

    def counted(*args: Any, num_items_in_batch: Any = None, **kwargs: Any) -> Any:
        tokens.append(int(num_items_in_batch or 0))
        return compute_loss(*args, num_items_in_batch=num_items_in_batch, **kwargs)

    trainer.compute_loss = counted
    meter, watch, early = Meter(trainer), Watch(), Watch()
    trainer.add_callback(watch)
    trainer.callback_handler.callbacks.insert(0, early)  # like W&B's, which saves the model in the end
    trainer.train(resume_from_checkpoint=resume)
    listener = find_listener(trainer.optimizer, trainer.lr_scheduler)
    found = {
        **watch.seen,
        "early end": early.seen["end"],
        "fed": meter.fed,
        "truth": meter.truth,
        "tokens": tokens,
        "state": repr(listener.param_groups[0]["emo"] if find_optimizer(listener) else listener.state_dict()),
        "lr": [log["learning_rate"] for log in trainer.state.log_history if "loss" in log],
    }
    torch.save(found, f"{name}-{RANK}.pt")


def interrupted() -> None:
    """Both ranks stop between two averagings; then they train again."""
    trainer = make("interrupted", k=5, max_steps=3)
    calls, compute_loss = [], trainer.compute_loss

    def raising(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute_loss(*args, **kwargs)

    trainer.compute_loss = raising
    watch = Watch()
    trainer.add_callback(watch)
    with contextlib.suppress(KeyboardInterrupt):
        trainer.train()
    trainer.remove_callback(watch)
    torch.save(watch.seen, f"broken-{RANK}.pt")
    train("again", trainer)


def plain_sgd(name: str, k: int | None) -> None:
    """Gradient descent with nothing remembered: averaging weights or gradients at each step is then the same."""
    options = {"average_tokens_across_devices": False, "learning_rate": 0.1, "max_steps": 4}
    trainer = make(name, k=k, optim="sgd", **options)
    watch = Watch()
    trainer.add_callback(watch)
    compute_loss = trainer.compute_loss
    trainer.compute_loss = lambda model, *a, **k: compute_loss(model, *a, **k) + 0 * trainer.model.truth
    trainer.train()
    torch.save(watch.seen, f"{name}-{RANK}.pt")


def main() -> None:
    accumulating = {"gradient_accumulation_steps": 4, "num_train_epochs": 4}  # groups of 4, 4, 2: 12 steps
    saving = {"save_strategy": "steps", "save_steps": 6, "eval_strategy": "steps", "eval_steps": 8}
    train("straight", make("straight", k=5, **accumulating, **saving))
    train("resumed", make("resumed", k=5, **accumulating, **saving), resume="straight/checkpoint-6")

    pulse = {"optim": "adamw_torch", "learning_rate": 1e-3, "lr_scheduler_type": "emopulse", "max_steps": 8}
    train("pulse", make("pulse", k=3, save_strategy="steps", save_steps=4, **pulse))
    train("pulse-resumed", make("pulse-resumed", k=3, **pulse), resume="pulse/checkpoint-4")

    train("synchronous", make("synchronous", kind=Trainer, max_steps=2, save_strategy="steps", save_steps=2))
    train("from-synchronous", make("out", k=2, max_steps=4), resume="synchronous/checkpoint-2")

    best = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "max_steps": 5}
    best |= {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}  # the first
    trainer = make("best", k=4, optim="adamw_torch", learning_rate=1e-2, **best)
    trainer.add_callback(watch := Watch())
    trainer.train()
    torch.save(watch.seen, f"best-{RANK}.pt")
    if RANK == 0:
        Path("best.json").write_text(json.dumps(trainer.state.best_model_checkpoint))

    interrupted()
    plain_sgd("sgd-synchronous", None)
    plain_sgd("sgd-local", 1)


if __name__ == "__main__":
    let_cpu_ranks_resume()
    RANK = TrainingArguments("unused", use_cpu=True, report_to=[]).process_index
    main()
    leave()
