"""The ways of a GPU compute what the rules say, wait for it no more than they must, and keep their temporaries."""

import pytest
import torch

from emo_hf import registry
from tests.kernels.test_kernels import COMPILED
from tests.optimizer_contract import LOSSES, build, every_row, make_params, without_3_1_warning

pytestmark = [
    pytest.mark.cuda,
    without_3_1_warning,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated:DeprecationWarning"),  # torch.compile's own imports
]
SHAPES = ((70, 50), (3000,), (4, 3, 2), (7,))
FUSED = [
    spec for spec in registry.specs() if spec.key in ("emosens-3.9", "emocats-3.9", "emoairy-3.9", "emosens-3.7.0")
]


def trained(spec, device, **options):
    params = [torch.nn.Parameter(param.detach().to(device)) for param in make_params(SHAPES, torch.float32)]
    optimizer = build(spec, params, **options)
    generator = torch.Generator().manual_seed(0)
    for loss in LOSSES:
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator).to(device)
        optimizer.step(loss=loss)
    return [param.detach().cpu() for param in params]


@every_row
@pytest.mark.parametrize("implementation", ["auto", "fused", "foreach", "forloop"])
def test_a_gpu_agrees_with_the_rule_on_the_cpu(spec, implementation):
    expected = trained(spec, "cpu", implementation="forloop")
    torch.testing.assert_close(trained(spec, "cuda", implementation=implementation), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("key", COMPILED)
def test_compiled_rules_agree(key):
    spec = registry.find(key)
    expected = trained(spec, "cpu", implementation="forloop")
    torch.testing.assert_close(trained(spec, "cuda", implementation="compile"), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("implementation", ["auto", "fused", "foreach", "forloop"])
@pytest.mark.parametrize("spec", FUSED, ids=lambda spec: spec.key)
def test_a_step_with_a_known_loss_does_not_wait_for_the_gpu(spec, implementation):
    params = [torch.nn.Parameter(param.detach().cuda()) for param in make_params(SHAPES, torch.float32)]
    optimizer = build(spec, params, implementation=implementation)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step(loss=1.0)  # creates the state
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step(loss=2.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_adam_takes_no_memory_for_a_step():
    param = torch.nn.Parameter(torch.ones(2**20, device="cuda"))
    param.grad = torch.ones_like(param)
    optimizer = build(registry.find("emosens-3.9"), [param], implementation="fused")
    optimizer.step(loss=1.0)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    optimizer.step(loss=2.0)
    assert torch.cuda.max_memory_allocated() - before < 2**12
