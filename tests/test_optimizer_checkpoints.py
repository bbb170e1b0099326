"""What every spec of the registry promises about its state: saved, copied or pickled, it continues bit for bit."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from emo_hf import registry
from emo_hf.errors import CheckpointError
from tests.optimizer_contract import LOSSES, build, every_row, make_params, run, same, snapshot, without_3_1_warning

pytestmark = without_3_1_warning
MIDWAY = pytest.mark.parametrize("done", [0, 5, len(LOSSES) - 1], ids=lambda n: f"after {n}")


def restarted(spec, params, state_dict):
    """Returns copies of `params` and a new optimizer over them that has loaded `state_dict`."""
    params = copy.deepcopy(params)
    for param in params:
        param.grad = None
    optimizer = build(spec, params, shadow=True)
    optimizer.load_state_dict(state_dict)
    return params, optimizer


def start(spec, done):
    params = make_params()
    optimizer = build(spec, params, shadow=True)
    run(optimizer, params, range(done))
    return params, optimizer


def assert_continues(spec, done, params, optimizer):
    run(optimizer, params, range(done, len(LOSSES)))
    whole, reference = start(spec, len(LOSSES))
    assert same(snapshot(optimizer, params), snapshot(reference, whole))
    assert optimizer.signals() == reference.signals()


@every_row
@MIDWAY
def test_a_saved_state_continues_bit_for_bit(spec, done):
    params, optimizer = start(spec, done)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert same(loaded, optimizer.state_dict())
    before = copy.deepcopy(loaded)
    params, resumed = restarted(spec, params, loaded)
    assert same(loaded, before)
    assert same(resumed.state_dict(), optimizer.state_dict())
    assert_continues(spec, done, params, resumed)


@every_row
@MIDWAY
def test_a_deepcopy_continues_bit_for_bit_and_leaves_the_original_alone(spec, done):
    params, optimizer = start(spec, done)
    before = snapshot(optimizer, params)
    twins, twin = copy.deepcopy((params, optimizer))
    assert_continues(spec, done, twins, twin)
    assert same(snapshot(optimizer, params), before)


@every_row
@MIDWAY
def test_a_pickle_continues_bit_for_bit(spec, done):
    params, optimizer = pickle.loads(pickle.dumps(start(spec, done)))
    assert type(optimizer) is registry.optimizer_class(spec.name)
    assert_continues(spec, done, params, optimizer)


class Model(torch.nn.Module):
    def __init__(self, params):
        super().__init__()
        self.params = torch.nn.ParameterList(params)


@every_row
@MIDWAY
def test_torchs_distributed_checkpoint_continues_bit_for_bit(spec, done):
    params, optimizer = start(spec, done)
    saved = copy.deepcopy(get_optimizer_state_dict(Model(params), optimizer))
    params = copy.deepcopy(params)
    for param in params:
        param.grad = None
    resumed = build(spec, params, shadow=True)
    set_optimizer_state_dict(Model(params), resumed, saved)
    assert_continues(spec, done, params, resumed)


@every_row
def test_the_emotion_is_a_tuple_of_plain_floats_in_every_group(spec):
    params = make_params()
    optimizer = build(spec, [{"params": params[:2]}, {"params": params[2:]}])
    assert all(len(group["emo"]) > 0 for group in optimizer.param_groups)
    for steps in ([], range(len(LOSSES))):
        run(optimizer, params, steps)
        first, second = optimizer.param_groups
        assert same(first["emo"], second["emo"])
        for name in ("emo", "geometry") if spec.geometry else ("emo",):
            assert type(first[name]) is tuple
            assert all(type(value) is float for value in first[name])
    assert all(isinstance(key, torch.Tensor) for key in optimizer.state)


@every_row
def test_the_state_of_another_row_is_refused_and_both_are_named(spec):
    params, optimizer = start(spec, 3)
    others = [other for other in registry.specs() if other is not spec]
    for other in others:
        saved = registry.build(other.key, make_params()).state_dict()
        before = snapshot(optimizer, params)
        with pytest.raises(CheckpointError, match=rf"is of {other.key}, this optimizer is {spec.key}\."):
            optimizer.load_state_dict(saved)
        assert same(snapshot(optimizer, params), before)


@pytest.mark.parametrize("saved", [torch.optim.AdamW(make_params()).state_dict(), {}], ids=["AdamW", "empty"])
def test_the_state_of_a_foreign_optimizer_is_refused(saved):
    with pytest.raises(CheckpointError, match=r"is of another optimizer, this optimizer is emosens-3\.9"):
        registry.build("emosens", make_params()).load_state_dict(saved)


@every_row
def test_a_loaded_state_has_forgotten_the_loss_of_the_step_before(spec):
    _, optimizer = start(spec, 3)
    optimizer.observe(1.0)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.signals() is None
    with pytest.raises(RuntimeError, match="got no loss"):
        optimizer.step()


def test_a_checkpoint_made_with_a_schedule_keeps_its_scope():
    params, optimizer = start(registry.find("emosens"), 3)
    optimizer.param_groups[0]["lr"] = 0.25
    _, resumed = restarted(registry.find("emosens"), params, optimizer.state_dict())
    assert (resumed.param_groups[0]["lr"], resumed.param_groups[0]["scope"]) == (0.25, 1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@every_row
def test_options_that_are_switched_on_after_a_checkpoint_start_with_it(spec, dtype):
    params = make_params(dtype=dtype)
    optimizer = build(spec, params)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*without compensation")
        run(optimizer, params, range(3))
    other = build(spec, params, shadow=True, compensation="kahan")
    other.load_state_dict(optimizer.state_dict())
    run(other, params, range(3, 6))
    for param in params:
        assert ("shadow" in other.state[param]) is (spec.shadow.always or "use_shadow" in spec.options)
        assert ("compensation" in other.state[param]) is (dtype == torch.bfloat16)
