"""The ways of a GPU compute what the rules say, wait for it no more than they must, and keep their temporaries."""

import pytest
import torch

from emo_hf import kernels, registry
from emo_hf.updates import Hyper
from tests import golden_traces
from tests.kernels.test_kernels import COMPILED
from tests.optimizer_contract import LOSSES, build, every_row, make_params, without_3_1_warning

pytestmark = [
    pytest.mark.cuda,
    without_3_1_warning,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated:DeprecationWarning"),  # torch.compile's own imports
]
SHAPES = ((70, 50), (3000,), (4, 3, 2), (7,))


@pytest.fixture(autouse=True, params=["with Triton", "without"])
def triton(request, monkeypatch):
    """Both ways of "auto" and "fused"."""
    if request.param == "with Triton":
        pytest.importorskip("triton", reason='no triton: pip install "emo-hf[cuda]"')
    monkeypatch.setenv("EMO_HF_NATIVE", "1" if request.param == "with Triton" else "0")
    return request.param == "with Triton"


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


@pytest.mark.parametrize(
    "spec", [spec for spec in registry.SPECS if spec.update.elementwise], ids=lambda spec: spec.key
)
def test_parameters_are_those_of_the_released_code(spec):
    for run in golden_traces.load(f"updates/{spec.key}")["runs"]:
        params = {name: torch.nn.Parameter(p.detach().cuda()) for name, p in golden_traces.parameters(run).items()}
        optimizer = registry.build(spec.key, params.values(), **golden_traces.options(spec, run))
        for step, (gradient, loss) in enumerate(
            zip(golden_traces._gradients(torch.float64), golden_traces.losses(run["losses"]), strict=False), start=1
        ):
            for name, param in params.items():
                param.grad = gradient[name].cuda()
            optimizer.step(loss=loss)
            if step in golden_traces.CHECKPOINTS:
                on_cpu = {name: param.cpu() for name, param in params.items()}
                assert golden_traces.distance(on_cpu, run["params"][str(step)]) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("spec", FUSED, ids=lambda spec: spec.key)
def test_the_kernel_takes_every_tensor_wherever_it_lies(spec, dtype, triton):
    if not triton:
        pytest.skip("of the Triton kernel")
    kernel = kernels.triton_kernel()
    shapes = ((kernel.CHUNK * 2 + 5,), (7,), (300, 31), (0,), (8, 4, 3, 3))
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    grads = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    places = [torch.empty(p.numel() + 1, dtype=dtype, device="cuda")[1:].view(p.shape).copy_(p) for p in params]
    ours = places[:2] + [p.cuda() for p in params[2:]]
    lists = ours, [grad.cuda() for grad in grads], [spec.update.init(p) for p in ours]
    hyper = Hyper(step=0.01, decay=0.1, lion_decay=0.2, beta1=0.9, beta2=0.99, eps=1e-8, scalar=0.5, freshness=0.7)
    assert kernel.run(spec.update, lists, hyper) == ([], [], [])
    close = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    for param, grad, found in zip(params, grads, ours, strict=True):
        wide = param.double()
        spec.update.apply(wide, grad.double(), spec.update.init(wide), hyper)
        torch.testing.assert_close(found.cpu().double(), wide, rtol=close, atol=close)


def test_a_captured_launch_repeats_itself(triton):
    if not triton:
        pytest.skip("of the Triton kernel")
    kernel, param = kernels.triton_kernel(), torch.zeros(10, device="cuda")
    numbers = torch.tensor([0.5, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    grad = torch.ones_like(param)
    row = torch.tensor([0, 10, param.data_ptr(), grad.data_ptr(), 0, 0, 0])
    buffer = torch.cat([numbers.view(torch.int64), row]).cuda()

    def launch():
        types = kernel.TYPES[torch.float32]
        kernel._kernel[(1,)](
            buffer, 1, kernel.SIGN, False, True, *types, kernel.CHUNK, kernel.BLOCK, num_warps=kernel.WARPS
        )

    launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    graph.replay()
    buffer[:1].view(torch.float64).fill_(2.0)  # another step size, in place
    graph.replay()
    assert param.tolist() == [-3.0] * 10
