"""Reads and replays the golden traces (see golden/README.md)."""

import functools
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINTS = (1, 2, 10, 32, 80)  # steps after which the update traces hold the parameters


@functools.cache
def load(name: str) -> dict[str, Any]:
    """Returns a trace, e.g. "problem", "signals/mechanism-3.9" or "updates/emosens-3.9"."""
    with gzip.open(GOLDEN / f"{name}.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


def names(folder: str) -> list[str]:
    """Returns the traces of a folder without their suffixes, sorted."""
    return sorted(path.name.removesuffix(".json.gz") for path in (GOLDEN / folder).glob("*.json.gz"))


def losses(stream: str) -> list[float]:
    return load("problem")["losses"][stream]


def streams() -> list[str]:
    return list(load("problem")["losses"])


@functools.cache
def _gradients(dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
    return [{name: _tensor(values, name, dtype) for name, values in step.items()} for step in load("problem")["grads"]]


def _tensor(values: list[float], name: str, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype).reshape(load("problem")["shapes"][name])


def parameters(
    run: dict[str, Any], dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> dict[str, torch.nn.Parameter]:
    """Returns the tensors that a recorded run optimized, at their start."""
    start = load("problem")["params"]
    return {name: torch.nn.Parameter(_tensor(start[name], name, dtype).to(device)) for name in run["tensors"]}


def replay(optimizer: Any, params: dict[str, torch.nn.Parameter], stream: str) -> Iterator[int]:
    """Takes the recorded steps one by one; yields the number of steps taken at every recorded checkpoint."""
    gradients = _gradients(next(iter(params.values())).dtype)
    for step, (gradient, loss) in enumerate(zip(gradients, losses(stream), strict=False), start=1):
        for name, param in params.items():
            param.grad = gradient[name].to(param.device, copy=True)
        optimizer.step(loss=loss)
        if step in CHECKPOINTS:
            yield step


def distance(params: dict[str, torch.nn.Parameter], recorded: dict[str, list[float]]) -> float:
    """Returns the largest absolute difference from recorded parameters."""
    return max(
        (param.detach().double().flatten().cpu() - torch.tensor(recorded[name], dtype=torch.float64))
        .abs()
        .max()
        .item()
        for name, param in params.items()
    )


def options(spec: Any, run: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of a recorded run that act in `spec`."""
    return {name: value for name, value in run["options"].items() if name not in spec.dead}
