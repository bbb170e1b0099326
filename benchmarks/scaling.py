"""Nanoseconds per parameter, from one million to one billion: a straight line is linear."""

import gc
import statistics
from argparse import Namespace
from typing import Any

import torch

from benchmarks import contenders, measure
from benchmarks.contenders import OURS, REFERENCE
from benchmarks.models import make, square_layers
from emo_hf.kernels import native

SIZES = [10**6, 4 * 10**6, 16 * 10**6, 64 * 10**6, 256 * 10**6, 10**9]
NAMES = ("EmoSens 3.9", "EmoCats 3.9", "EmoTion 3.9", "EmoAiry 3.9", "EmoFact 3.1")


def run(options: Namespace) -> dict[str, Any]:
    native.library(build=options.device == "cpu")
    sizes = [size for size in SIZES if size <= options.largest]
    makers = {REFERENCE: contenders.adamw(fused=True), **{name: contenders.ours(OURS[name]) for name in NAMES}}
    rows = []
    for (
        name,
        maker,
    ) in makers.items():  # one at a time: a billion parameters of Adam are 16 GB and nothing else is held
        row: dict[str, Any] = {"name": name}
        for size in sizes:
            shapes = square_layers(size)
            optimizer = maker(make(shapes, torch.float32, options.device))
            for i in range(2):
                measure.step(optimizer, i)
            times = measure.interleave({name: optimizer}, max(options.rounds // 3, 3), options.device)[name]
            row[str(size)] = statistics.median(times) * 1e9 / sum(a * b for a, b in shapes)
            del optimizer
            gc.collect()
        rows.append(row)
        print(row, flush=True)
    heads = [f"{size / 1e6:.0f} M" for size in sizes]
    lines = [f"| ns per parameter | {' | '.join(heads)} |", "|---" * (len(sizes) + 1) + "|"]
    lines += [f"| {row['name']} | {' | '.join(f'{row[str(size)]:.2f}' for size in sizes)} |" for row in rows]
    return {"rows": rows, "table": "\n".join(lines)}
