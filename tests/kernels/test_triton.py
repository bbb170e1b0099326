"""The Triton kernel computes what the rules of `emo_hf.updates` say; on a CPU by Triton's interpreter."""

import pytest
import torch
import torch.distributed as dist

from emo_hf import geometry, kernels, registry, updates
from emo_hf.kernels import compensation
from emo_hf.kernels.measuring import Sums
from tests import golden_traces
from tests.kernels.test_kernels import distance, rescaled, trained
from tests.kernels.test_native import FREE, H, check_measured, group, lists_of
from tests.optimizer_contract import build, same, without_3_1_warning, without_16_bit_warning

triton = pytest.importorskip("triton", reason='no triton: pip install "emo-hf[cuda]"')
from emo_hf.kernels import cuda, triton_rules  # noqa: E402

ROWS = [spec for spec in registry.specs() if spec.update.apply in cuda.RULES]
RULES = {spec.update.apply.__name__: spec for spec in ROWS}
rules = pytest.mark.parametrize("spec", RULES.values(), ids=RULES)
LARGE = ((cuda.CHUNK + cuda.BLOCK + 5,), (300, 31), (cuda.BLOCK,), (3,), (), (2, 3, 4, 5), (0,))
CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}

pytestmark = [
    pytest.mark.usefixtures("interpreted"),
    without_3_1_warning,
    without_16_bit_warning,
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs test_cuda.py"),
]


def test_every_elementwise_rule_of_the_registry_has_a_kernel():
    assert {spec.update.apply for spec in registry.specs() if spec.update.elementwise} == set(cuda.RULES)


TRACED = {spec.update.apply: spec for spec in registry.SPECS if spec.update.apply in cuda.RULES}


@pytest.mark.parametrize("spec", TRACED.values(), ids=lambda spec: spec.key)
def test_parameters_are_those_of_the_released_code(spec):
    for run in golden_traces.load(f"updates/{spec.key}")["runs"][:2]:
        params = golden_traces.parameters(run)
        optimizer = registry.build(spec.key, params.values(), **golden_traces.options(spec, run))
        for step in golden_traces.replay(optimizer, params, run["losses"]):
            assert golden_traces.distance(params, run["params"][str(step)]) < 1e-9, (run["losses"], run["options"])
            if step >= 10:  # the interpreter takes some 20 ms a step
                break


@pytest.mark.parametrize(
    ("rule", "dtype", "compensated"),
    [
        *((rule, torch.float32, False) for rule in RULES),
        *(("adam_", dtype, False) for dtype in (torch.float64, torch.bfloat16, torch.float16)),
        *((rule, torch.bfloat16, True) for rule in ("adam_", "sign_")),
        ("lion_", torch.float16, True),
    ],
)
def test_tensors_of_all_sizes_and_places_in_one_call(rule, dtype, compensated):
    spec = RULES[rule]
    ours, theirs = lists_of(spec, group(LARGE, dtype)), lists_of(spec, group(LARGE, torch.float64))
    ours = tuple([displaced(part) if i % 2 else part for i, part in enumerate(parts)] for parts in ours)
    for i, (a, b) in enumerate(zip(ours[0], theirs[0], strict=True)):
        b.data.copy_(a)
        theirs[1][i].copy_(ours[1][i])
        if compensated:
            ours[2][i][compensation.KEY] = 1e-3 * ours[1][i]
            b.data.add_(ours[2][i][compensation.KEY])
    with torch.no_grad():
        for _ in range(2):
            assert cuda.run(spec.update, ours, H, 1.01) == []
            for param, grad, state in zip(*theirs, strict=True):
                spec.update.apply(param.mul_(1.01), grad, state, H)
    for param, state, other, expected in zip(ours[0], ours[2], theirs[0], theirs[2], strict=True):
        close = CLOSE[dtype]
        whole = param.double() + (state.pop(compensation.KEY).double() if compensated else 0)
        right = torch.isclose(whole, other, rtol=close, atol=2**-14 if compensated else close)
        assert right.double().sum() >= (1.0 if close < 1e-5 else 0.99) * param.numel()  # rounded averages turn signs
        torch.testing.assert_close({k: v.double() for k, v in state.items()}, expected, rtol=close, atol=close)


def test_rescaling_is_of_the_whole_weight():
    assert rescaled("auto") < 2**-15


def displaced(part):
    """A copy that begins one element after an address at which a thread can move 16 bytes."""
    if isinstance(part, dict):
        return {name: displaced(tensor) for name, tensor in part.items()}
    place = torch.empty(part.numel() + 1, dtype=part.dtype)[1:].view(part.shape)
    return place.copy_(part.detach())


def step_of(spec, params, **changes):
    lists = lists_of(spec, params)
    with torch.no_grad():
        return cuda.run(spec.update, lists, H._replace(**changes)), lists


def test_channels_last_is_taken_in_its_own_order():
    spec = registry.find("emosens-3.9")
    shapes = [(4, 3, 5, 5), (7,), (6, 4, 3, 3)]
    ours, theirs = group(shapes), group(shapes)
    for i in (0, 2):
        ours[i].data = ours[i].data.to(memory_format=torch.channels_last)
        ours[i].grad = ours[i].grad.to(memory_format=torch.channels_last)
    rest, _ = step_of(spec, ours)
    assert rest == []
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
    triton_rules.step[(1,)](
        buffer, 1, buffer, cuda.SIGN.value, False, False, True, *types, cuda.CHUNK, cuda.BLOCK, num_warps=cuda.WARPS
    )
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


# -- measuring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "kahan"), [(torch.float64, False), (torch.float32, False), (torch.bfloat16, True)], ids=str
)
def test_what_is_measured_is_what_the_rule_measures_in_float64(dtype, kahan):
    ours, theirs = lists_of(FREE, group(LARGE, dtype)), lists_of(FREE, group(LARGE, torch.float64))
    ours[0][1].grad = displaced(ours[1][1])  # of one tensor: they go in two launches
    ours[1][1] = ours[0][1].grad
    if kahan:
        ours[2][0][compensation.KEY] = torch.zeros_like(ours[0][0])
    check_measured(ours, theirs, lambda lists, h, sums: cuda.run(FREE.update, lists, h, 1.0, sums), steps=2)


def test_the_norm_of_all_weights():
    params = [param.detach() for param in group(LARGE)]
    assert kernels.l1_norm("auto", params) == pytest.approx(geometry.l1_norm(params), rel=1e-7)
    assert kernels.l1_norm("auto", [*params, params[1].mT]) is None


@pytest.mark.parametrize("key", ["emofree-1.0", "emovoid-3.9", "emoneco-3.0"])
def test_optimizers_with_other_parts_run_with_it(key):
    spec = registry.find(key)
    assert distance(trained(spec, "auto"), trained(spec, "forloop")) < 2e-5


def test_shards_are_taken_and_their_sums_are_of_all_ranks(monkeypatch):
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = dist.init_device_mesh("cpu", (1,))
        lists = lists_of(FREE, group([(8, 5), (3,)]))
        sharded = [distribute_tensor(param.detach(), mesh, [Shard(0)]) for param in lists[0]]
        parts = sharded, [distribute_tensor(grad, mesh, [Shard(0)]) for grad in lists[1]], [
            FREE.update.init(param) for param in sharded
        ]  # fmt: skip
        monkeypatch.setattr(kernels, "_batches", lambda *_: pytest.fail("not by the kernel") if _[2] else ())
        sums, others = Sums(), Sums()
        with torch.no_grad():
            kernels.apply("auto", FREE.update, parts, H, sums=sums)
            kernels.apply("auto", FREE.update, lists, H, sums=others)
        assert sums.close()
        assert others.close()
        assert sums.read() == others.read()
        assert isinstance(sharded[0], DTensor)
        assert same([param.full_tensor() for param in sharded], [param.detach() for param in lists[0]])
    finally:
        dist.destroy_process_group()
