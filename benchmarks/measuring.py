"""What measuring costs: a step of EmoFree as a ratio to one of EmoSens, both by the C++ kernel."""

import statistics
from argparse import Namespace
from typing import Any

import torch

from benchmarks import contenders, measure
from benchmarks.models import MODELS, make, square_layers
from emo_hf.kernels import native

REFERENCE = "EmoSens 3.9"
NAME = "EmoFree 1.0"
SHAPES = {"8 M": square_layers(8 * 10**6), "LoRA": MODELS["lora"]}
WEIGHTS = {  # what is trained -> its dtype and options
    "float32": (torch.float32, {}),
    "bfloat16 with Kahan": (torch.bfloat16, {"compensation": "kahan"}),
}
LONGER = 10  # times the rounds of other parts: a step takes a few milliseconds


def run(options: Namespace) -> dict[str, Any]:
    native.library(build=options.device == "cpu")  # "auto" takes it and would not build it
    rows = []
    for model, shapes in SHAPES.items():
        for weights, (dtype, how) in WEIGHTS.items():
            makers = {name: contenders.ours(contenders.OURS[name], **how) for name in (REFERENCE, NAME)}
            pair = {name: maker(make(shapes, dtype, options.device)) for name, maker in makers.items()}
            for optimizer in pair.values():
                for i in range(3):
                    measure.step(optimizer, i)
            times = measure.interleave(pair, LONGER * options.rounds, options.device)
            row = {"model": model, "weights": weights, "ratio": measure.ratios(times, REFERENCE)[NAME]}
            rows.append(row | {f"{name}, us": statistics.median(times[name]) * 1e6 for name in pair})
            print(rows[-1], flush=True)
    lines = ["| weights | " + " | ".join(SHAPES) + " |", "|---" * (len(SHAPES) + 1) + "|"]
    for weights in WEIGHTS:
        ratios = [f"{row['ratio']:.2f}" for row in rows if row["weights"] == weights]
        lines.append(f"| {weights} | {' | '.join(ratios)} |")
    return {"rows": rows, "table": "\n".join(lines)}
