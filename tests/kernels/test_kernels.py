"""Every implementation computes what the rules of `emo_hf.updates` say."""

import warnings

import pytest
import torch
from torch._dynamo.utils import counters

from emo_hf import kernels, registry
from emo_hf.errors import OptionError
from emo_hf.geometry import PIECE, l1_norm
from emo_hf.kernels import IMPLEMENTATIONS, compensation, fused
from emo_hf.updates import Hyper
from tests.optimizer_contract import LOSSES, build, every_row, same, without_3_1_warning, without_16_bit_warning

pytestmark = [
    without_3_1_warning,
    without_16_bit_warning,
    pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated:DeprecationWarning"),  # torch.compile's own imports
]
SHAPES = ((70, 50), (3000,), (7,), (4, 3), (5, 4, 3), (2, 3, 2, 2))
COMPILED = ("emoairy-3.9", "emocats-3.9", "emotion-3.9", "emosens-2.0")  # a spec of every rule that is compiled


@pytest.fixture
def pieces(monkeypatch):
    """Small tensors take the way of large ones."""
    monkeypatch.setattr(fused, "SMALL", 64)
    monkeypatch.setattr(fused, "PIECE", 1000)


def trained(spec, implementation, dtype=torch.float32, strided=False, size=1.0, **options):
    generator = torch.Generator().manual_seed(0)

    def draw(shape):
        tensor = torch.randn(shape, generator=generator).to(dtype)
        return tensor.mT.contiguous().mT if strided and len(shape) > 1 else tensor

    params = [torch.nn.Parameter(size * draw(shape)) for shape in SHAPES]
    optimizer = build(spec, params, implementation=implementation, **options)
    for loss in LOSSES:
        for param in params:
            param.grad = draw(param.shape)
        optimizer.step(loss=loss)
    assert all(param.is_contiguous() is not (strided and param.dim() > 1) for param in params)
    return params


def distance(params, others):
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(params, others, strict=True))


@every_row
@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("implementation", ["foreach", "fused"])
def test_implementations_agree_in_float32(spec, implementation, shadow, pieces):
    expected = trained(spec, "forloop", shadow=shadow)
    assert distance(trained(spec, implementation, shadow=shadow), expected) < 2e-5


@every_row
def test_no_implementation_loses_more_in_bfloat16_than_the_rule(spec, pieces):
    exact = trained(spec, "forloop", size=0.01)  # weights this small move far: by many units in their last place

    def error(implementation):
        params = trained(spec, implementation, torch.bfloat16, size=0.01)
        return sum((a.double() - b.double()).square().sum() for a, b in zip(params, exact, strict=True)).sqrt()

    assert max(error("foreach"), error("fused")) < 1.5 * error("forloop")


@every_row
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_strided_tensors_take_the_rule_itself(spec, implementation, pieces, monkeypatch):
    monkeypatch.setitem(globals(), "SHAPES", ((70, 50), (4, 3)))
    assert same(trained(spec, implementation, strided=True), trained(spec, "forloop", strided=True))


@pytest.mark.parametrize("implementation", ["auto", "foreach", "fused"])
def test_mixed_dtypes_and_frozen_parameters(implementation, pieces):
    def run(way):
        torch.manual_seed(0)
        dtypes = (torch.float32, torch.bfloat16, torch.float64, torch.float32)
        params = [torch.nn.Parameter(torch.randn(70, 3).to(dtype)) for dtype in dtypes]
        optimizer = registry.build("emocats", params, implementation=way)
        for step in range(5):
            for param in params[:-1]:
                param.grad = torch.randn(70, 3).to(param.dtype)
            if step == 3:
                params[0].grad = None
            optimizer.step(loss=1.0 + step)
        return params

    ours, expected = run(implementation), run("forloop")
    assert distance(ours, expected) <= 2**-6
    assert torch.equal(ours[-1], expected[-1])


@pytest.mark.parametrize("implementation", ["foreach", "fused", "compile"])
@pytest.mark.parametrize("name", ["emosens", "emocats", "emoairy", "emolynx"])
def test_decay_without_a_step(name, implementation, pieces):
    def run(way):
        param = torch.nn.Parameter(torch.ones(100))
        param.grad = torch.ones(100)
        optimizer = registry.build(name, [param], implementation=way, weight_decay=0.1)
        monkey = optimizer.mechanism.rate
        object.__setattr__(optimizer, "mechanism", _Still(optimizer.mechanism, monkey))
        optimizer.step(loss=1.0)
        return param

    torch.testing.assert_close(run(implementation), run("forloop"))
    assert run(implementation)[0].item() == pytest.approx(0.95)


class _Still:
    """A mechanism that grants decay and no step, as a damper of 0 would."""

    def __init__(self, mechanism, rate):
        self._mechanism, self._rate = mechanism, rate

    def __getattr__(self, name):
        return getattr(self._mechanism, name)

    def rate(self, state, lr, scope):
        return self._rate(state, lr, scope)._replace(step=0.0, decay=0.5)


@pytest.mark.parametrize("key", COMPILED)
def test_compiled_rules_agree_and_compile_once(key, pieces):
    spec = registry.find(key)
    expected = trained(spec, "forloop")
    counters.clear()
    assert distance(trained(spec, "compile"), expected) < 2e-5
    assert 1 <= counters["stats"]["unique_graphs"] <= 2  # 3,500 entries and 3,000 in one


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_of_large_tensors_is_added_up_exactly_enough(dtype):
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=generator).to(dtype) for shape in ((2 * PIECE + 5,), (1024, 1024), (3, 4))]
    params.append(params[1].mT)  # strided
    exact = sum(param.double().abs().sum().item() for param in params)
    assert l1_norm(params) == pytest.approx(exact, rel=1e-7)


def test_unknown_implementation_is_refused():
    with pytest.raises(OptionError, match="implementation: got 'eager', expected one of auto, fused"):
        registry.build("emosens", [torch.nn.Parameter(torch.ones(1))], implementation="eager")


# -- compensation ----------------------------------------------------------------------------------------------------


def drift(spec, dtype, steps=200, **options):
    """How far weights of 0.02 to 0.12 came in many steps far below their spacing in bfloat16, and the optimizer."""
    generator = torch.Generator().manual_seed(0)
    param = torch.nn.Parameter((0.02 + 0.1 * torch.rand(40, 25, generator=generator)).bfloat16().to(dtype))
    start = param.detach().clone()
    optimizer = build(spec, [param], lr=1e-5 / 1e-4 if spec.lr_is_multiplier else 1e-5, **options)
    for _ in range(steps):
        param.grad = (0.1 + torch.rand(40, 25, generator=generator)).bfloat16().to(dtype)
        optimizer.step(loss=1.0)
    return param.detach().double() - start.double(), optimizer


@pytest.mark.parametrize(
    "key", ["emosens-3.9", "emocats-3.9", "emoairy-3.9", "emotion-3.9", "emofact-3.0", "emonavi-3.6"]
)
def test_kahan_keeps_steps_that_bfloat16_loses(key, pieces):
    spec = registry.find(key)
    exact, _ = drift(spec, torch.float32)
    lost, _ = drift(spec, torch.bfloat16)
    kept, optimizer = drift(spec, torch.bfloat16, compensation="kahan")
    (state,) = optimizer.state.values()
    kept = kept + state[compensation.KEY].double()
    assert state[compensation.KEY].dtype == torch.bfloat16
    assert (lost - exact).norm() > 0.5 * exact.norm()
    assert (kept - exact).norm() < 0.05 * exact.norm()


def rescaled(implementation):
    """Returns how far weights with compensation are from what they should be, after a step that rescales them."""
    update = registry.find("emovoid-3.9").update
    generator = torch.Generator().manual_seed(0)
    exact = 1 + torch.rand(40, 25, generator=generator, dtype=torch.float64)
    param = torch.nn.Parameter(exact.bfloat16())
    state = {compensation.KEY: (exact - param.detach()).bfloat16()}
    lists = [param], [torch.zeros_like(param)], [{**update.init(param), **state}]
    still = Hyper(step=0.0, decay=0.0, lion_decay=0.0, beta1=0.9, beta2=0.99, eps=1e-8, scalar=0.0)
    with torch.no_grad():
        kernels.apply(implementation, update, lists, still, scale=0.77)
    return (param.double() + lists[2][0][compensation.KEY].double() - 0.77 * exact).abs().max()


@pytest.mark.parametrize("implementation", ["forloop", "foreach", "fused"])
def test_rescaling_is_of_the_whole_weight(implementation, pieces):
    assert rescaled(implementation) < 2**-15


@pytest.mark.parametrize("shadow", [False, True])
def test_emovoid_holds_its_norm_in_bfloat16_with_kahan(shadow):
    spec = registry.find("emovoid-3.9")
    exact, _ = drift(spec, torch.float32, steps=50, shadow=shadow)
    kept, optimizer = drift(spec, torch.bfloat16, steps=50, shadow=shadow, compensation="kahan")
    (state,) = optimizer.state.values()
    assert (kept + state[compensation.KEY].double() - exact).norm() < 0.1 * exact.norm()  # 1.7 if c stays behind


def test_weights_in_16_bits_without_compensation_are_warned_of_once():
    params = [torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)) for _ in range(2)]
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer = registry.build("emoairy", params)
    with pytest.warns(UserWarning, match="torch.bfloat16 without compensation.*compensation='kahan'"):
        optimizer.step(loss=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(loss=1.0)


def test_kahan_is_in_the_checkpoint_and_only_where_it_acts(tmp_path):
    spec = registry.find("emosens-3.9")
    _, optimizer = drift(spec, torch.bfloat16, steps=3, compensation="kahan")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    saved = torch.load(tmp_path / "optimizer.pt", weights_only=True)
    _, other = drift(spec, torch.bfloat16, steps=1, compensation="kahan")
    other.load_state_dict(saved)
    assert same(other.state_dict(), optimizer.state_dict())
    assert other.state_dict()["state"][0][compensation.KEY].abs().sum() > 0
    _, wide = drift(spec, torch.float32, steps=1, compensation="kahan")
    assert compensation.KEY not in wide.state_dict()["state"][0]
