"""Step time as a ratio to torch's fused AdamW, state and temporary bytes."""

from argparse import Namespace
from typing import Any

import torch

from benchmarks import contenders, measure
from benchmarks.contenders import OURS, REFERENCE
from benchmarks.models import MODELS, make
from emo_hf.geometry import RESCALED_STEPS
from emo_hf.kernels import native


def run(options: Namespace) -> dict[str, Any]:
    native.library(build=options.device == "cpu")  # "auto" takes it and would not build it
    dtype, shapes = getattr(torch, options.dtype), MODELS[options.model]
    makers = {REFERENCE: contenders.adamw(fused=True)}
    for name, key in OURS.items():
        makers[name] = contenders.ours(key)
        if options.compile and name not in ("EmoSens 3.9", "EmoNavi 3.6", "EmoFree 1.0"):
            makers[f"{name} compiled"] = contenders.ours(key, "compile")
    if options.others:
        makers |= contenders.others()
    rows = []
    for name in makers:  # two at a time: all together would not fit in memory
        pair = {each: makers[each](make(shapes, dtype, options.device)) for each in dict.fromkeys((REFERENCE, name))}
        for optimizer in pair.values():
            for i in range(warm_up(name)):
                measure.step(optimizer, i)
        probe = measure.copy_probe(options.device)
        times = measure.interleave(pair, options.rounds, options.device)
        size = sum(p.numel() * p.element_size() for group in pair[name].param_groups for p in group["params"])
        rows.append(
            {
                "name": name,
                "ratio": measure.ratios(times, REFERENCE)[name],
                "state": measure.state_bytes(pair[name]) / size,
                "temporary_mb": measure.temporary_bytes(pair[name], options.device) / 2**20,
                "probe_ms": probe,
            }
        )
        print(f"{name}: {rows[-1]}", flush=True)
    return {"model": options.model, "dtype": options.dtype, "rows": rows, "table": table(rows)}


def warm_up(name: str) -> int:
    """Returns the steps before the measured ones; EmoVoid is cheaper once it no longer holds its norm."""
    return RESCALED_STEPS + 3 if name.startswith("EmoVoid") and "first" not in name else 3


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| optimizer | step time | state bytes per parameter byte | temporaries, MB | copy of 512 MB, ms |"]
    lines.append("|---|---|---|---|---|")
    lines += [
        "| {name} | {ratio:.2f} | {state:.2f} | {temporary_mb:.1f} | {probe_ms:.0f} |".format(**row) for row in rows
    ]
    return "\n".join(lines)
