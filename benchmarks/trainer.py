"""What feeding, mechanism, records and callback cost in a Trainer: their share of a step of a GPT-2.

On a CPU it is a mini one, on a GPU GPT-2 small.
"""

import functools
import statistics
import tempfile
import time
from argparse import Namespace
from collections import defaultdict
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from emo_hf.hf import EmotionCallback, LossFeed
from emo_hf.hf.feed import PendingLoss
from emo_hf.mechanism import Mechanism

OURS = {
    "feed: note the loss": (LossFeed, "note"),
    "feed: wait for it": (PendingLoss, "item"),
    "mechanism": (Mechanism, "advance"),
    "step size": (Mechanism, "rate"),
    "record of the step": (EmotionCallback, "on_step_end"),
    "log": (EmotionCallback, "on_log"),
}


SIZES = {"cpu": {"n_layer": 4, "n_head": 4, "n_embd": 256, "n_positions": 512}, "cuda": {}}
STEPS = 30


class StepTimes(TrainerCallback):
    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.starts.append(time.perf_counter())


def timed(spent: dict[str, float], name: str, function: Any) -> Any:
    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - start

    return measured


def train(optim: str, steps: int, device: str) -> float:
    """Returns the median seconds of a step."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**SIZES[device], bos_token_id=0, eos_token_id=0))
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 50257, (4 * steps, 128))]
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder, optim=optim, max_steps=steps, per_device_train_batch_size=4, report_to=[], save_strategy="no",
            use_cpu=device == "cpu", disable_tqdm=True, lr_scheduler_type="constant", logging_steps=10,
            dataloader_pin_memory=device != "cpu",
        )  # fmt: skip
        Trainer(model, args, train_dataset=rows, callbacks=[times]).train()
    return statistics.median(b - a for a, b in zip(times.starts[3:], times.starts[4:], strict=False))


def run(options: Namespace) -> dict[str, Any]:
    steps, spent = STEPS, defaultdict(float)
    train("adamw_torch_fused", 5, options.device)
    reference = train("adamw_torch_fused", steps, options.device)
    plain = {name: getattr(cls, attribute) for name, (cls, attribute) in OURS.items()}
    try:
        for name, (cls, attribute) in OURS.items():
            setattr(cls, attribute, timed(spent, name, plain[name]))
        ours = train("emosens", steps, options.device)
    finally:
        for name, (cls, attribute) in OURS.items():
            setattr(cls, attribute, plain[name])
    rows = [{"name": name, "us": spent[name] / steps * 1e6, "share": spent[name] / steps / reference} for name in OURS]
    rows.append({"name": "all", "us": sum(r["us"] for r in rows), "share": sum(r["share"] for r in rows)})
    lines = ["| part | microseconds per step | share of a step with AdamW fused |", "|---|---|---|"]
    lines += [f"| {row['name']} | {row['us']:.0f} | {row['share']:.3%} |" for row in rows]
    lines.append(
        f"\nStep with AdamW fused {reference * 1e3:.0f} ms, with EmoSens {ours * 1e3:.0f} ms (medians of {steps - 4})."
    )
    return {"rows": rows, "reference_s": reference, "ours_s": ours, "table": "\n".join(lines)}
