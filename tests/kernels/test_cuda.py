"""Optimizers on a GPU: with the Triton kernel and without, they do what they do on a CPU, and the host never waits."""

import contextlib
import warnings

import pytest
import torch
from torch.amp import GradScaler

from emo_hf import geometry, kernels, registry
from emo_hf.errors import EmoError
from emo_hf.updates import Hyper
from tests import golden_traces
from tests.kernels.test_kernels import COMPILED
from tests.kernels.test_native import FREE, by_rule, group, lists_of, measured
from tests.optimizer_contract import (
    LOSSES,
    build,
    every_row,
    give_gradients,
    make_params,
    released,
    same,
    without_3_1_warning,
    without_16_bit_warning,
)

pytestmark = [
    pytest.mark.cuda,
    without_3_1_warning,
    without_16_bit_warning,
    pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated:DeprecationWarning"),  # torch.compile's own imports
]
SHAPES = ((70, 50), (3000,), (4, 3, 2), (7,))
FUSED = [
    spec for spec in registry.specs() if spec.key in ("emosens-3.9", "emocats-3.9", "emoairy-3.9", "emosens-3.7.0")
]
CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


@pytest.fixture(params=["with Triton", "without"])
def triton(request, monkeypatch, device):
    """Both ways of "auto" and "fused"; the kernel, if it is used."""
    wanted = request.param == "with Triton"
    monkeypatch.setenv("EMO_HF_NATIVE", "1" if wanted and device == "cuda" else "0")  # not the C++ kernel
    if not wanted:
        return None
    pytest.importorskip("triton", reason='no triton: pip install "emo-hf[cuda]"')
    if device == "cpu":
        request.getfixturevalue("interpreted")
    from emo_hf.kernels import cuda

    assert device == "cpu" or cuda._works(0), "Triton compiles nothing here: see the warning above"
    return cuda


def weights(device, shapes=SHAPES, dtype=torch.float32):
    return [torch.nn.Parameter(param.detach().to(device)) for param in make_params(shapes, dtype)]


def step(optimizer, params, t, loss=None):
    give_gradients(twins := make_params([param.shape for param in params], params[0].dtype), t)
    for param, twin in zip(params, twins, strict=True):
        param.grad = twin.grad.to(param.device)
    optimizer.step(loss=LOSSES[t % len(LOSSES)] if loss is None else loss)


def outcome(spec, device, implementation, steps=LOSSES, **options):
    params = weights(device)
    optimizer = build(spec, params, shadow=True, implementation=implementation, **options)
    for t in range(len(steps)):
        step(optimizer, params, t)
    return params


def distance(params, others):
    return max((a.cpu() - b.cpu()).abs().max().item() for a, b in zip(params, others, strict=True))


# -- what comes out --------------------------------------------------------------------------------------------------


@every_row
def test_every_row_agrees_with_the_cpu_by_default(spec, device, triton):
    expected = outcome(spec, "cpu", "forloop")
    assert distance(outcome(spec, device, "auto"), expected) < 2e-5


@pytest.mark.parametrize("implementation", ["foreach", "forloop", "compile"])
@pytest.mark.parametrize("key", COMPILED)
def test_other_ways_agree_with_the_cpu(key, implementation, device):
    spec = registry.find(key)
    expected = outcome(spec, "cpu", "forloop")
    assert distance(outcome(spec, device, implementation), expected) < 2e-5


def follow_a_trace(spec, device, implementation):
    run = golden_traces.load(f"updates/{spec.key}")["runs"][-1]
    params = golden_traces.parameters(run, device=device)
    options = golden_traces.options(spec, run)
    optimizer = registry.build(spec.key, params.values(), implementation=implementation, **options)
    for taken in golden_traces.replay(optimizer, params, run["losses"]):
        off = golden_traces.distance(params, run["params"][str(taken)])
        assert off < (1e-7 if spec.name == "emoclan" else 1e-9), (run["losses"], run["options"], taken)
        if taken == 32:
            return


@released
def test_parameters_are_those_of_the_released_code(spec, device, triton):
    follow_a_trace(spec, device, "auto")


@pytest.mark.parametrize("implementation", ["foreach", "forloop"])
@released
def test_so_they_are_in_other_ways(spec, implementation, device):
    follow_a_trace(spec, device, implementation)


@every_row
def test_it_goes_on_from_a_checkpoint_bit_for_bit(spec, device, triton, tmp_path):
    params = weights(device)
    optimizer = build(spec, params, shadow=True)
    for t in range(4):
        step(optimizer, params, t)
    torch.save((params, optimizer.state_dict()), tmp_path / "checkpoint.pt")
    others, state = torch.load(tmp_path / "checkpoint.pt", map_location=device, weights_only=True)
    resumed = build(spec, others, shadow=True)
    resumed.load_state_dict(state)
    for t in range(4, 8):
        step(optimizer, params, t)
        step(resumed, others, t)
    assert same([p.detach() for p in params], [p.detach() for p in others])
    assert same(optimizer.state_dict(), resumed.state_dict())


def test_a_grad_scaler_scales_back_and_leaves_steps_out(device, triton):
    params, others = weights(device), weights(device)
    scaled, plain = registry.build("emosens", params), registry.build("emosens", others)
    scaler = GradScaler(device, init_scale=1024.0)
    for t, loss in enumerate((3.0, 2.5, 2.0)):
        for param, other in zip(params, others, strict=True):
            other.grad = torch.full_like(other, 0.5 + t)
            param.grad = scaler.scale(other.grad)
        if t == 1:
            params[0].grad[0, 0] = float("inf")
        else:
            plain.step(loss=loss)
        scaler.step(scaled, loss=loss)
        scaler.update()
    assert scaled.steps == plain.steps == 2
    assert distance(params, others) < 1e-7


# -- waiting and memory ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def debugging(mode):
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def of_cuda_alone(device):
    if device == "cpu":
        pytest.skip("of CUDA alone")


@every_row
def test_the_host_waits_for_the_loss_and_for_nothing_else(spec, device, triton):
    of_cuda_alone(device)
    params = weights(device)
    optimizer = build(spec, params)
    loss = torch.tensor(1.5, device=device)
    for t in range(4):
        step(optimizer, params, t)
    with warnings.catch_warnings(record=True) as seen, debugging("warn"):
        warnings.simplefilter("always")
        optimizer.step(loss=loss)
    waits = [each for each in seen if "synchronizing" in str(each.message)]
    expected = 1 + bool(spec.geometry) + spec.mechanism.measures  # the norm; what the step before has measured
    assert len(waits) == expected, [str(each.message) for each in seen]
    if expected == 1:
        with debugging("error"):
            optimizer.step(loss=1.4)


def test_a_step_in_a_captured_graph_is_refused(device):
    of_cuda_alone(device)
    params = weights(device)
    optimizer = registry.build("emosens", params)
    step(optimizer, params, 0)
    before = [param.detach().clone() for param in params]
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        params[0].abs()  # torch warns of an empty graph
        with pytest.raises(EmoError, match="while a CUDA graph is being captured"):
            optimizer.step(loss=1.0)
    assert optimizer.steps == 1
    assert same(before, [param.detach() for param in params])


@pytest.mark.parametrize("key", ["emosens-3.9", "emocats-3.9", "emoairy-3.9", "emofree-1.0"])
def test_a_step_of_the_kernel_takes_no_memory_of_the_size_of_a_weight(key, device, triton):
    of_cuda_alone(device)
    if triton is None and key != "emosens-3.9":
        pytest.skip("torch's kernels want the direction as a tensor")
    params = weights(device, [(2**20,)] * 4)
    optimizer = build(registry.find(key), params)
    for t in range(4):
        step(optimizer, params, t)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    optimizer.step(loss=2.0)
    assert torch.cuda.max_memory_allocated() - before < 2**16


# -- the kernel itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("spec", FUSED, ids=lambda spec: spec.key)
def test_the_kernel_takes_every_tensor_wherever_it_lies(spec, dtype, device, triton):
    if triton is None:
        pytest.skip("of the Triton kernel")
    shapes = ((triton.CHUNK * 2 + 5,), (7,), (300, 31), (0,), (8, 4, 3, 3))
    params, grads = group(shapes, dtype), group(shapes, dtype, seed=1)
    places = [torch.empty(p.numel() + 1, dtype=dtype, device=device)[1:].view(p.shape) for p in params[:2]]
    ours = [place.copy_(p.detach()) for place, p in zip(places, params, strict=False)]
    ours += [p.detach().clone().to(device) for p in params[2:]]
    lists = ours, [grad.detach().to(device) for grad in grads], [spec.update.init(p) for p in ours]
    hyper = Hyper(step=0.01, decay=0.1, lion_decay=0.2, beta1=0.9, beta2=0.99, eps=1e-8, scalar=0.5, freshness=0.7)
    assert triton.run(spec.update, lists, hyper) == []
    for param, grad, found in zip(params, grads, ours, strict=True):
        wide = param.detach().double()
        spec.update.apply(wide, grad.detach().double(), spec.update.init(wide), hyper)
        torch.testing.assert_close(found.cpu().double(), wide, rtol=CLOSE[dtype], atol=CLOSE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_the_kernel_measures_is_what_the_rule_measures(dtype, device, triton):
    if triton is None:
        pytest.skip("of the Triton kernel")
    shapes = ((triton.CHUNK * 2 + 5,), (7,), (300, 31), (0,))
    ours = [torch.nn.Parameter(param.detach().to(device)) for param in group(shapes, dtype)]
    for param, drawn in zip(ours, group(shapes, dtype, seed=1), strict=True):
        param.grad = (drawn.detach() + 0.3).to(device)
    lists = lists_of(FREE, ours)
    hyper = Hyper(step=0.01, decay=0.1, lion_decay=0.2, beta1=0.9, beta2=0.99, eps=1e-8, scalar=0.5, age=1)
    for age in (1, 2):
        h = hyper._replace(age=age)
        twins = tuple([_in_float64(part) for part in column] for column in lists)
        expected = measured(twins, h, by_rule)
        found = measured(lists, h, lambda lists, h, sums: triton.run(FREE.update, lists, h, 1.0, sums))
        assert found == pytest.approx(expected, rel=1e-12 if dtype is torch.float64 else 1e-6)


def _in_float64(part):
    if isinstance(part, dict):
        return {name: _in_float64(tensor) for name, tensor in part.items()}
    return part.detach().to("cpu", torch.float64, copy=True)


def test_the_norm_of_all_weights(device, triton):
    params = [param.detach() for param in weights(device)]
    exact = sum(param.double().abs().sum().item() for param in params)
    assert geometry.l1_norm(params) == pytest.approx(exact, rel=1e-7)
    if triton is not None:
        assert kernels.l1_norm("auto", params) == pytest.approx(exact, rel=1e-7)
