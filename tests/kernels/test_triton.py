"""The Triton kernel computes what the rules of `emo_hf.updates` say; on a CPU by Triton's interpreter."""

import contextlib
import itertools
import logging
import os
import subprocess
import sys

import pytest
import torch

from emo_hf import kernels, registry, updates
from emo_hf.kernels import compensation
from tests import golden_traces
from tests.kernels.test_kernels import distance, drift, trained
from tests.kernels.test_native import H, group, lists_of
from tests.optimizer_contract import build, same, without_3_1_warning, without_16_bit_warning

triton = pytest.importorskip("triton", reason='no triton: pip install "emo-hf[cuda]"')
from emo_hf.kernels import cuda  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS = [spec for spec in registry.specs() if spec.update.apply in cuda.RULES]
RULES = list({spec.update.apply: spec for spec in ROWS}.values())
rules = pytest.mark.parametrize("spec", RULES, ids=lambda spec: spec.update.apply.__name__)
LARGE = ((cuda.CHUNK + cuda.BLOCK + 5,), (300, 31), (cuda.BLOCK,), (3,), (), (2, 3, 4, 5), (0,))
CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}

pytestmark = [
    without_3_1_warning,
    without_16_bit_warning,
    pytest.mark.skipif(DEVICE == "cuda", reason="a GPU runs test_cuda.py"),
]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """The kernel takes the tensors of a CPU, and rounds to bfloat16 as a GPU does: the interpreter cuts off."""
    from triton.runtime import interpreter

    plain = interpreter._convert_float

    def convert(source, source_type, target_type, rounding):
        if (source_type.name, target_type.name) != ("fp32", "bf16"):
            return plain(source, source_type, target_type, rounding)
        return torch.from_numpy(source.copy()).bfloat16().view(torch.uint16).numpy()

    monkeypatch.setattr(interpreter, "_convert_float", convert)
    monkeypatch.setattr(kernels, "_on_gpu", cuda.run)


def test_every_elementwise_rule_of_the_registry_has_a_kernel():
    assert {spec.update.apply for spec in registry.specs() if spec.update.elementwise} == set(cuda.RULES)


TRACED = {spec.update.apply: spec for spec in registry.SPECS if spec.update.apply in cuda.RULES}


@pytest.mark.parametrize("spec", TRACED.values(), ids=lambda spec: spec.key)
def test_parameters_are_those_of_the_released_code(spec):
    steps = itertools.chain([80], itertools.repeat(10))  # the interpreter takes some 20 ms a step
    for run, last in zip(golden_traces.load(f"updates/{spec.key}")["runs"], steps, strict=False):
        params = golden_traces.parameters(run)
        optimizer = registry.build(spec.key, params.values(), **golden_traces.options(spec, run))
        for step in golden_traces.replay(optimizer, params, run["losses"]):
            assert golden_traces.distance(params, run["params"][str(step)]) < 1e-9, (run["losses"], run["options"])
            if step == last:
                break


@rules
@pytest.mark.parametrize(
    ("dtype", "compensated"),
    [*((dtype, False) for dtype in cuda.TYPES), (torch.bfloat16, True), (torch.float16, True)],
    ids=str,
)
def test_tensors_of_all_sizes_and_places_in_one_call(spec, dtype, compensated):
    ours, theirs = lists_of(spec, group(LARGE, dtype)), lists_of(spec, group(LARGE, torch.float64))
    ours = tuple([displaced(part) if i % 2 else part for i, part in enumerate(parts)] for parts in ours)
    for i, (a, b) in enumerate(zip(ours[0], theirs[0], strict=True)):
        b.data.copy_(a)
        theirs[1][i].copy_(ours[1][i])
        if compensated:
            ours[2][i][compensation.KEY] = 1e-3 * ours[1][i]
            b.data.add_(ours[2][i][compensation.KEY])
    h = H._replace(age=3)
    with torch.no_grad():
        for _ in range(2):
            assert cuda.run(spec.update, ours, h, 1.01) == ([], [], [])
            for param, grad, state in zip(*theirs, strict=True):
                spec.update.apply(param.mul_(1.01), grad, state, h)
    for param, state, other, expected in zip(ours[0], ours[2], theirs[0], theirs[2], strict=True):
        close = CLOSE[dtype]
        whole = param.double() + (state.pop(compensation.KEY).double() if compensated else 0)
        right = torch.isclose(whole, other, rtol=close, atol=2**-14 if compensated else close)
        assert right.double().sum() >= (1.0 if close < 1e-5 else 0.99) * param.numel()  # rounded averages turn signs
        torch.testing.assert_close({k: v.double() for k, v in state.items()}, expected, rtol=close, atol=close)


def displaced(part):
    """A copy that begins one element after an address at which a thread can move 16 bytes."""
    if isinstance(part, dict):
        return {name: displaced(tensor) for name, tensor in part.items()}
    place = torch.empty(part.numel() + 1, dtype=part.dtype)[1:].view(part.shape)
    return place.copy_(part.detach())


@pytest.fixture
def launches(monkeypatch):
    """What the kernel is launched with: programs, rows of the table, and whether addresses are aligned."""
    seen, kernel = [], cuda._kernel

    class Watched:
        def __getitem__(self, grid):
            def launch(buffer, count, kind, compensated, aligned, *rest, **kwargs):
                seen.append((*grid, count, aligned))
                kernel[grid](buffer, count, kind, compensated, aligned, *rest, **kwargs)

            return launch

    monkeypatch.setattr(cuda, "_kernel", Watched())
    monkeypatch.setattr(cuda, "_works", lambda index: True)
    return seen


def step_of(spec, params, **changes):
    lists = lists_of(spec, params)
    with torch.no_grad():
        return cuda.run(spec.update, lists, H._replace(**changes)), lists


def test_a_group_is_one_launch_and_what_is_not_aligned_another(launches):
    spec = registry.find("emocats-3.9")
    params = group([(8, 5)] * 100 + [(cuda.CHUNK + 1,), (0,)])
    step_of(spec, params)
    assert launches == [(102, 101, True)]
    params[3].grad = displaced(params[3].grad)
    step_of(spec, params)
    assert launches[1:] == [(101, 100, True), (1, 1, False)]
    step_of(spec, group([(0,), (2, 0)]))
    assert len(launches) == 3


def test_a_group_of_mixed_tensors_is_split(launches):
    spec = registry.find("emosens-3.9")
    params = [*group([(8, 5)] * 2), *group([(3,)], torch.float64), *group([(4,)], torch.bfloat16)]
    rest, lists = step_of(spec, params)
    assert rest == ([], [], [])
    assert sorted(launches) == [(1, 1, True), (1, 1, True), (2, 2, True)]
    lists[2][1][compensation.KEY] = torch.zeros(8, 5)
    assert cuda.run(spec.update, lists, H) == ([], [], [])
    assert len(launches) == 3 + 4


def test_what_it_cannot_take_is_left(launches):
    spec = registry.find("emocats-3.9")
    plain, strided, transposed, wide = group([(6, 4)] * 4)
    strided.data = torch.randn(6, 8)[:, ::2]
    transposed.grad = torch.randn(4, 6).mT
    lists = lists_of(spec, [plain, strided, transposed, wide])
    lists[1][3] = lists[1][3].double()
    before = [param.detach().clone() for param in lists[0]]
    with torch.no_grad():
        left = cuda.run(spec.update, lists, H)
    assert [id(param) for param in left[0]] == [id(strided), id(transposed), id(wide)]
    assert launches == [(1, 1, True)]
    assert [torch.equal(a, b) for a, b in zip(before, lists[0], strict=True)] == [False, True, True, True]
    assert cuda.run(registry.find("emofact-3.0").update, lists, H) is lists


def test_channels_last_is_taken_in_its_own_order(launches):
    spec = registry.find("emosens-3.9")
    shapes = [(4, 3, 5, 5), (7,), (6, 4, 3, 3)]
    ours, theirs = group(shapes), group(shapes)
    for i in (0, 2):
        ours[i].data = ours[i].data.to(memory_format=torch.channels_last)
        ours[i].grad = ours[i].grad.to(memory_format=torch.channels_last)
    rest, _ = step_of(spec, ours)
    assert rest == ([], [], [])
    step_of(spec, theirs)
    assert same([param.detach().contiguous() for param in ours], [param.detach() for param in theirs])


def test_the_entry_after_two_to_the_31_is_found():
    param, grad = torch.zeros(cuda.CHUNK), torch.ones(cuda.CHUNK)
    chunks = 2**31 // cuda.CHUNK  # as if they lay before these, so that program 0 of the launch is theirs
    places = [tensor.data_ptr() - 4 * 2**31 for tensor in (param, grad)]
    numbers = torch.zeros(cuda.HEAD, dtype=torch.float64)
    numbers[: len(cuda._numbers(updates.SIGN, H, 1.0))] = torch.tensor(cuda._numbers(updates.SIGN, H, 1.0)).double()
    row = torch.tensor([-chunks, 2**31 + 5, *places, 0, 0, 0])
    buffer = torch.cat([numbers.view(torch.int64), row])
    types = cuda.TYPES[torch.float32]
    cuda._kernel[(1,)](buffer, 1, cuda.SIGN, False, True, *types, cuda.CHUNK, cuda.BLOCK, num_warps=cuda.WARPS)
    assert param.nonzero().flatten().tolist() == [0, 1, 2, 3, 4]


def test_gradients_and_neighbours_stay_as_they_are():
    spec = registry.find("emosens-3.9")
    whole = torch.full((100,), 7.0)
    param = torch.nn.Parameter(whole[10:47])
    param.grad = torch.ones(37)
    step_of(spec, [param])
    assert (whole == 7).nonzero().flatten().tolist() == [*range(10), *range(47, 100)]
    assert torch.equal(param.grad, torch.ones(37))


@rules
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of numpy
def test_special_gradients_do_what_the_rule_does(spec):
    params, others = group([(8,)]), group([(8,)])
    for param in (*params, *others):
        param.grad[1:7] = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-40])
    _, ours = step_of(spec, params, age=3)
    theirs = lists_of(spec, others)
    with torch.no_grad():
        for each in zip(*theirs, strict=True):
            spec.update.apply(*each, H._replace(age=3))
    for a, b in zip((ours[0], ours[2]), (theirs[0], theirs[2]), strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


def test_autograd_notices_that_parameters_changed():
    (param,) = group([(4,)])
    product = (param * param).sum()
    build(registry.find("emosens-3.9"), [param]).step(loss=1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize("key", ["emosens-3.9", "emoairy-3.9"])
def test_kahan_keeps_the_steps_that_bfloat16_loses(key, monkeypatch):
    spec = registry.find(key)
    exact, _ = drift(spec, torch.float32, steps=60)
    monkeypatch.setattr(compensation, "run", lambda *_: pytest.fail("not by the kernel"))
    kept, optimizer = drift(spec, torch.bfloat16, steps=60, compensation="kahan")
    (state,) = optimizer.state.values()
    kept = kept + state[compensation.KEY].double()
    assert (kept - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("key", ["emofact-3.1", "emoneco-3.0", "emofree-1.0"])
def test_optimizers_with_other_parts_run_with_it(key, monkeypatch):
    spec = registry.find(key)
    monkeypatch.setattr(kernels, "_auto", lambda *_: "foreach")
    assert distance(trained(spec, "auto"), trained(spec, "forloop")) < 2e-5


# -- choosing --------------------------------------------------------------------------------------------------------


def test_without_triton_auto_takes_what_fits(monkeypatch):
    spec = registry.find("emosens-3.9")
    assert kernels._auto(spec.update, "cuda") == "fused"
    assert kernels._auto(registry.find("emofact-3.1").update, "cuda") == "foreach"
    assert kernels._auto(spec.update, "mps") == "forloop"
    monkeypatch.setenv("EMO_HF_NATIVE", "1")
    assert kernels.triton_kernel() is cuda
    monkeypatch.setenv("EMO_HF_NATIVE", "0")
    assert kernels.triton_kernel() is None
    monkeypatch.setenv("EMO_HF_NATIVE", "1")
    kernels._imported.cache_clear()
    monkeypatch.setitem(sys.modules, "emo_hf.kernels.cuda", None)
    monkeypatch.delattr(kernels, "cuda")
    assert kernels.triton_kernel() is None
    kernels._imported.cache_clear()


def test_a_device_that_cannot_compile_it_is_said_once_and_left_to_torch(monkeypatch, caplog):
    class Broken:
        def __getitem__(self, grid):
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(cuda, "_kernel", Broken())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(cuda, "_on", lambda index: contextlib.nullcontext())
    monkeypatch.setattr(cuda, "_sent", lambda buffer, index: torch.frombuffer(buffer, dtype=torch.int64))
    cuda._works.cache_clear()
    with caplog.at_level(logging.WARNING, "emo_hf"):
        assert [cuda._works(7) for _ in range(3)] == [False] * 3
    assert [record.message for record in caplog.records if "Failed to find C compiler." in record.message]
    assert len(caplog.records) == 1
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    cuda._works.cache_clear()
    assert not cuda._works(7)
    cuda._works.cache_clear()


# -- compiling -------------------------------------------------------------------------------------------------------

COMPILE = r"""
import re
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from emo_hf.kernels import cuda

names = cuda._kernel.arg_names
# no number of a step is an argument, so none compiles the kernel again
assert [each.name for each in cuda._kernel.params if not each.is_constexpr] == ["buffer", "count"]
assert cuda._kernel.params[1].do_not_specialize
for capability in (80, 90):
    for kind, *keys in {each[0].value: each for each in cuda.RULES.values()}.values():
        for dtype, (stored, wide) in cuda.TYPES.items():
            for compensated in {False, dtype.itemsize == 2}:
                fixed = dict(RULE=kind, COMPENSATED=compensated, ALIGNED=True, STORED=stored, WIDE=wide)
                fixed |= dict(CHUNK=cuda.CHUNK, BLOCK=cuda.BLOCK)
                source = ASTSource(
                    cuda._kernel,
                    {"buffer": "*i64", "count": "i32"} | dict.fromkeys(fixed, "constexpr"),
                    {(names.index(name),): value for name, value in fixed.items()},
                    {(0,): [["tt.divisibility", 16]]},
                )
                target = GPUTarget("cuda", capability, 32)
                built = triton.compile(source, target=target, options={"num_warps": cuda.WARPS})
                assert built.asm["cubin"] and built.metadata.shared == 0
                wide_loads = re.findall(r"ld\.global\.v\d", built.asm["ptx"])
                # one tensor is 1024 entries, 8 a thread, in moves of 16 bytes
                tensors = 2 + len(keys) + compensated
                assert len(wide_loads) == tensors * 8 * dtype.itemsize // 16, (kind, dtype, compensated, wide_loads)
                print("compiled")
"""


@pytest.mark.slow
def test_every_variant_compiles_and_moves_16_bytes_at_once(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("compiled") == 2 * 4 * (4 + 2)
