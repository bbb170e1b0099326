"""Pure bfloat16: how much of a float32 training of 500 tiny steps survives, with and without compensation."""

from argparse import Namespace
from typing import Any

import torch

from benchmarks import contenders
from emo_hf.kernels.compensation import KEY

STEPS, SIZE = 500, (256, 256)
RATES = (1e-5, 1e-4, 1e-3)
ROWS = ("emonavi-3.6", "emosens-3.9", "emocats-3.9", "emoairy-3.9")


def train(key: str, dtype: torch.dtype, rate: float, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns start and end in float64, the compensation included."""
    generator = torch.Generator().manual_seed(0)
    start = (0.02 * torch.randn(SIZE, generator=generator)).bfloat16()
    param = torch.nn.Parameter(start.to(dtype))
    optimizer = contenders.ours(key, lr=1.0, **options)([param])
    optimizer.mechanism = _Constant(optimizer.mechanism, rate)
    for _ in range(STEPS):
        param.grad = (torch.randn(SIZE, generator=generator) + 0.5).bfloat16().to(dtype)
        optimizer.step(loss=1.0)
    lost = optimizer.state[param].get(KEY)
    return start.double(), param.detach().double() + (0 if lost is None else lost.double())


class _Constant:
    """A mechanism whose step size is always the same, so that only the arithmetic differs."""

    def __init__(self, mechanism: Any, rate: float):
        self._mechanism, self._rate = mechanism, rate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mechanism, name)

    def rate(self, *args: Any) -> Any:
        return self._mechanism.rate(*args)._replace(step=self._rate, decay=0.0)


def run(options: Namespace) -> dict[str, Any]:
    rows = []
    for key in ROWS:
        for label, extra in (("bf16", {}), ("bf16 + kahan", {"compensation": "kahan"})):
            row: dict[str, Any] = {"name": key, "way": label}
            for rate in RATES:
                start, exact = train(key, torch.float32, rate)
                _, ours = train(key, torch.bfloat16, rate, **extra)
                row[f"error {rate:g}"] = ((ours - exact).norm() / (exact - start).norm()).item()
                row[f"stuck {rate:g}"] = (ours == start).double().mean().item()
            rows.append(row)
    lines = [
        "| rule | way | " + " | ".join(f"error, stuck at {rate:g}" for rate in RATES) + " |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = " | ".join(f"{row[f'error {rate:g}']:.3f}, {row[f'stuck {rate:g}']:.0%}" for rate in RATES)
        lines.append(f"| {row['name']} | {row['way']} | {cells} |")
    return {"rows": rows, "table": "\n".join(lines)}
