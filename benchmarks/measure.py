"""Time, state and temporaries of optimizer steps."""

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.optim import Optimizer

from emo_hf.optimizer import EmoOptimizer


def step(optimizer: Optimizer, i: int) -> None:
    """Takes a step; ours get a loss that falls slowly and unevenly."""
    if isinstance(optimizer, EmoOptimizer):
        optimizer.observe(2.0 + 0.1 * (i % 3) - 0.001 * i)
    optimizer.step()


def seconds(action: Callable[[], None], device: str) -> float:
    """Returns how long ``action`` takes, the device's work included."""
    _synchronize(device)
    start = time.perf_counter()
    action()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def interleave(optimizers: dict[str, Optimizer], rounds: int, device: str) -> dict[str, list[float]]:
    """Returns the seconds of ``rounds`` steps of each, taken in turns, so that all meet the same machine."""
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for i in range(rounds):
        for name, optimizer in optimizers.items():
            times[name].append(seconds(lambda optimizer=optimizer, i=i: step(optimizer, i + 10), device))
    return times


def ratios(times: dict[str, list[float]], reference: str) -> dict[str, float]:
    """Returns the median of the ratio to the reference's step of the same round."""
    return {
        name: statistics.median(own / other for own, other in zip(rounds, times[reference], strict=True))
        for name, rounds in times.items()
    }


def copy_probe(device: str, megabytes: int = 512) -> float:
    """Returns the milliseconds that copying takes, the best of 5: memory that others use makes ratios jump."""
    source = torch.ones(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    return min(seconds(lambda: target.copy_(source), device) for _ in range(5)) * 1e3


def state_bytes(optimizer: Optimizer) -> int:
    """Returns the bytes of all tensors that the optimizer keeps."""
    tensors = (value for state in optimizer.state.values() for value in state.values())
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))


def temporary_bytes(optimizer: Optimizer, device: str) -> int:
    """Returns how far memory rises during one step: what the allocator counts, on a CPU what the process holds."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(optimizer, 99)
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from here
    before = _resident("VmRSS")
    step(optimizer, 99)
    return max(_resident("VmHWM") - before, 0)


def _resident(field: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
