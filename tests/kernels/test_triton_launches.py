"""Which tensors the Triton kernel takes in how many launches, where it is chosen, and that every variant compiles."""

import contextlib
import logging
import os
import subprocess
import sys

import pytest
import torch
from packaging.version import Version

from emo_hf import kernels, registry
from emo_hf.kernels import compensation
from emo_hf.kernels.measuring import Sums
from tests.kernels.test_native import H, group, lists_of

triton = pytest.importorskip("triton", reason='no triton: pip install "emo-hf[cuda]"')
from emo_hf.kernels import cuda, triton_rules  # noqa: E402
from tests.kernels.test_triton import displaced, step_of  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("interpreted"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs test_cuda.py"),
]


@pytest.fixture
def launches(monkeypatch):
    """What the kernel is launched with: programs, rows of the table, and whether addresses are aligned."""
    seen, kernel = [], triton_rules.step

    class Watched:
        def __getitem__(self, grid):
            def launch(*arguments, **options):
                _, count, _, _, _, _, aligned, *_ = arguments
                seen.append((*grid, count, aligned))
                kernel[grid](*arguments, **options)

            return launch

    monkeypatch.setattr(triton_rules, "step", Watched())
    monkeypatch.setattr(cuda, "_works", lambda index: True)
    return seen


def test_a_group_is_one_launch_and_what_is_not_aligned_another(launches):
    spec = registry.find("emocats-3.9")
    params = group([(8, 5)] * 20 + [(cuda.CHUNK + 1,), (0,)])
    step_of(spec, params)
    assert launches == [(22, 21, True)]
    params[3].grad = displaced(params[3].grad)
    step_of(spec, params)
    assert launches[1:] == [(21, 20, True), (1, 1, False)]
    step_of(spec, group([(0,), (2, 0)]))
    assert len(launches) == 3


def test_a_group_of_mixed_tensors_is_split(launches):
    spec = registry.find("emosens-3.9")
    params = [*group([(8, 5)] * 2), *group([(3,)], torch.float64), *group([(4,)], torch.bfloat16)]
    rest, lists = step_of(spec, params)
    assert rest == []
    assert sorted(launches) == [(1, 1, True), (1, 1, True), (2, 2, True)]
    lists[2][1][compensation.KEY] = torch.zeros(8, 5)
    assert cuda.run(spec.update, lists, H) == []
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
        assert cuda.run(spec.update, lists, H) == [1, 2, 3]
    assert launches == [(1, 1, True)]
    assert [torch.equal(a, b) for a, b in zip(before, lists[0], strict=True)] == [False, True, True, True]
    assert cuda.run(registry.find("emofact-3.0").update, lists, H) == [0, 1, 2, 3]
    assert cuda.run(spec.update, lists, H, sums=Sums()) == [0, 1, 2, 3]


# -- choosing --------------------------------------------------------------------------------------------------------


def test_without_triton_auto_takes_what_fits(monkeypatch):
    assert kernels._auto(registry.find("emosens-3.9").update, "cuda") == "fused"
    assert kernels._auto(registry.find("emofact-3.1").update, "cuda") == "foreach"
    assert kernels._auto(registry.find("emosens-3.9").update, "mps") == "forloop"
    monkeypatch.setattr(kernels, "_imported", kernels._imported.__wrapped__)
    assert kernels._imported() is cuda
    monkeypatch.setitem(sys.modules, "emo_hf.kernels.cuda", None)
    monkeypatch.delattr(kernels, "cuda")
    assert kernels._imported() is None


def test_the_kernel_is_for_cuda_and_can_be_switched_off(monkeypatch):
    monkeypatch.undo()

    class Param:
        is_cuda = True

    monkeypatch.setenv("EMO_HF_NATIVE", "1")
    assert kernels.triton_kernel([torch.ones(1), Param()]) is cuda
    assert kernels.triton_kernel([torch.ones(1)]) is None
    monkeypatch.setenv("EMO_HF_NATIVE", "0")
    assert kernels.triton_kernel([Param()]) is None


def test_a_device_that_cannot_compile_it_is_said_once_and_left_to_torch(monkeypatch, caplog):
    class Broken:
        def __getitem__(self, grid):
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(triton_rules, "step", Broken())
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
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from emo_hf.kernels import cuda, triton_rules  # noqa: E402

kernel = triton_rules.step
# no number of a step is an argument, so none compiles the kernel again
assert [each.name for each in kernel.params if not each.is_constexpr] == ["buffer", "count", "found"]
assert kernel.params[1].do_not_specialize


def check(capability, kind, keys, dtype, compensated, measured):
    stored, wide = cuda.TYPES[dtype]
    fixed = dict(RULE=kind, COMPENSATED=compensated, MEASURED=measured, ALIGNED=True, STORED=stored, WIDE=wide)
    fixed |= dict(CHUNK=cuda.CHUNK, BLOCK=cuda.BLOCK)
    signature = {"buffer": "*i64", "count": "i32", "found": "*fp64" if measured else "*i64"}
    source = ASTSource(
        kernel,
        signature | dict.fromkeys(fixed, "constexpr"),
        {(kernel.arg_names.index(name),): value for name, value in fixed.items()},
        {(0,): [["tt.divisibility", 16]]},
    )
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": cuda.WARPS})
    assert built.asm["cubin"] and (measured or built.metadata.shared == 0)
    wide_loads = re.findall(r"ld\.global\.v\d", built.asm["ptx"])
    # one tensor is 1024 entries, 8 a thread, in moves of 16 bytes
    tensors = 1 if kind == triton_rules.NORM.value else 2 + len(keys) + compensated
    assert len(wide_loads) == tensors * 8 * dtype.itemsize // 16, (kind, dtype, compensated, wide_loads)
    print("compiled")


for kind, *keys in {each[0].value: each for each in cuda.RULES.values()}.values():
    for dtype, compensated in ((torch.float32, False), (torch.bfloat16, True)):
        check(80, kind, keys, dtype, compensated, measured=False)
        if kind == cuda.ADAM:
            check(90, kind, keys, dtype, compensated, measured=True)
check(90, triton_rules.NORM.value, [], torch.float16, False, measured=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    Version(triton.__version__) < Version("3.3"), reason="asks Triton to compile as it does from 3.3 on"
)
def test_every_kind_compiles_and_moves_16_bytes_at_once(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("compiled") == 4 * 2 + 2 + 1
