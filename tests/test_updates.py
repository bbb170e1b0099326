"""Parameters agree with the released code, for every spec of the registry."""

import pytest
import torch

from emo_hf import registry
from emo_hf.kernels import fused
from tests import golden_traces
from tests.optimizer_contract import released

pytestmark = pytest.mark.filterwarnings("ignore:.*shrinks the weights:UserWarning")  # 3.1 with shadow
FLOAT32_EPS = torch.finfo(torch.float32).eps


def tolerance(spec, dtype: torch.dtype, step: int, largest: float) -> float:
    if dtype == torch.float32:
        return (1 + step) * FLOAT32_EPS * largest  # the start is rounded, and every weight twice per step
    return 1e-7 if spec.name == "emoclan" else 1e-9  # the released EmoClan keeps part of its state in float32


def test_every_recorded_optimizer_is_in_the_registry():
    recorded = golden_traces.names("updates")
    assert recorded == sorted(spec.key for spec in registry.SPECS)
    assert len(recorded) == 35


@pytest.mark.parametrize(
    ("dtype", "implementation"),
    [
        (torch.float64, "forloop"),
        (torch.float64, "foreach"),
        (torch.float64, "fused"),
        (torch.float64, "fused in pieces"),
        (torch.float32, "auto"),
    ],
)
@released
def test_parameters_are_those_of_the_released_code(spec, dtype, implementation, monkeypatch):
    if implementation == "fused in pieces":  # as if these tensors were large ones
        implementation = "fused"
        monkeypatch.setattr(fused, "SMALL", 2)
        monkeypatch.setattr(fused, "PIECE", 5)
    follow_the_traces(spec, dtype, implementation)


def follow_the_traces(spec, dtype, implementation):
    checked = 0
    for run in golden_traces.load(f"updates/{spec.key}")["runs"]:
        params = golden_traces.parameters(run, dtype)
        optimizer = registry.build(
            spec.key, params.values(), implementation=implementation, **golden_traces.options(spec, run)
        )
        for step in golden_traces.replay(optimizer, params, run["losses"]):
            largest = max(p.abs().max().item() for p in params.values())
            off = golden_traces.distance(params, run["params"][str(step)])
            assert off < tolerance(spec, dtype, step, largest), (run["losses"], run["options"], step)
            checked += 1
    assert checked == len(golden_traces.CHECKPOINTS) * (4 if spec.shadow.always else 8)


@released
def test_defaults_are_those_of_the_released_code_without_the_dead_arguments(spec):
    recorded = golden_traces.load(f"updates/{spec.key}")["defaults"]
    assert set(spec.dead) < set(recorded)
    acting = {name: tuple(v) if isinstance(v, list) else v for name, v in recorded.items() if name not in spec.dead}
    assert dict(spec.defaults) == acting
