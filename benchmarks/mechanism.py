"""Microseconds that the arithmetic of a step takes: from the loss to the step size, tensors apart."""

import random
import statistics
from argparse import Namespace
from typing import Any

import torch

from benchmarks.measure import seconds
from emo_hf import registry

STEPS = 2000


def run(options: Namespace) -> dict[str, Any]:
    noise = random.Random(0)
    losses = [2 + noise.random() for _ in range(STEPS)]
    rows = []
    for version, spec in {spec.version: spec for spec in registry.specs()}.items():
        mechanism = registry.build(spec.key, [torch.nn.Parameter(torch.zeros(1))]).mechanism
        state = mechanism.start()

        def steps(mechanism=mechanism, state=state) -> None:
            for loss in losses:
                mechanism.advance(state, loss)
                mechanism.rate(state, lr=1.0, scope=1.0)

        times = [seconds(steps, "cpu") / STEPS for _ in range(options.rounds)]
        rows.append({"version": version, "us": statistics.median(times) * 1e6})
    lines = ["| generation | microseconds per step |", "|---|---|"]
    lines += [f"| {row['version']} | {row['us']:.1f} |" for row in rows]
    return {"rows": rows, "table": "\n".join(lines)}
