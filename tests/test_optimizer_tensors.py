"""What every spec of the registry promises about tensors, and about its manners."""

import copy
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from emo_hf import registry
from emo_hf.errors import EmoError, OptionError
from emo_hf.optimizer import EmoOptimizer
from tests.optimizer_contract import (
    LOSSES,
    STEPS,
    Writer,
    build,
    every_row,
    give_gradients,
    make_params,
    run,
    same,
    snapshot,
    trained,
    values,
    without_3_1_warning,
    without_16_bit_warning,
)

without_random_warning = pytest.mark.filterwarnings("ignore:DTensor random operators may not")  # torch 2.6, CPU
pytestmark = [without_3_1_warning, without_16_bit_warning, without_random_warning]

# -- tensors ---------------------------------------------------------------------------------------------------------


@every_row
def test_bfloat16_stays_bfloat16_and_near_float32(spec):
    params = make_params(dtype=torch.bfloat16)
    optimizer = build(spec, params, shadow=True)
    run(optimizer, params, STEPS)
    assert all(p.dtype == torch.bfloat16 for p in params)
    assert all(t.dtype == torch.bfloat16 for state in optimizer.state.values() for t in state.values())
    exact = make_params(dtype=torch.float32)
    run(build(spec, exact, shadow=True), exact, STEPS)
    for rough, fine in zip(params, exact, strict=True):
        torch.testing.assert_close(rough.float(), fine, rtol=0, atol=0.06)


@every_row
def test_memory_layout_does_not_matter(spec):
    params = make_params()
    strided = [torch.nn.Parameter(torch.stack([p.detach().mT, p.detach().mT], -1)[..., 0].mT) for p in params[:1]]
    strided += [torch.nn.Parameter(torch.stack([p.detach()] * 2, -1)[..., 0]) for p in params[1:]]
    assert not any(p.is_contiguous() for p in strided if p.dim())
    result = trained(spec, strided, shadow=True)
    for ours, expected in zip(result, trained(spec, shadow=True), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def mesh():
    """One process that shards its tensors over itself: the operations are those of FSDP2."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@every_row
def test_sharded_parameters_move_like_whole_ones(spec, mesh):
    def sharded(tensor):
        return distribute_tensor(tensor, mesh, [Shard(0)]) if tensor.dim() else tensor

    whole = make_params()
    params = [torch.nn.Parameter(sharded(param.detach())) for param in whole]
    optimizer = build(spec, params, shadow=True)
    for t in STEPS:
        give_gradients(whole, t)
        for param, source in zip(params, whole, strict=True):
            param.grad = sharded(source.grad)
        optimizer.step(loss=LOSSES[t])
    states = [tensor for state in optimizer.state.values() for tensor in state.values() if isinstance(tensor, DTensor)]
    assert not any(placement.is_partial() for tensor in states for placement in tensor.placements)
    gathered = [param.full_tensor() if param.dim() else param.detach() for param in values(params)]
    assert same(gathered, trained(spec, shadow=True))


def test_a_loaded_state_is_no_view_of_the_whole(mesh):
    """Such views, which torch 2.6 restores, would keep the whole alive and take another kernel."""
    param = torch.nn.Parameter(distribute_tensor(torch.ones(4, 6), mesh, [Shard(1)]))
    optimizer = build(registry.find("emosens-3.9"), [param])
    param.grad = torch.ones_like(param)
    optimizer.step(loss=1.0)
    saved = optimizer.state_dict()
    view = torch.arange(48.0).view(4, 12)[:, :6]
    saved["state"][0]["exp_avg"] = DTensor.from_local(view, mesh, [Shard(1)])
    optimizer.load_state_dict(saved)
    loaded = optimizer.state[param]["exp_avg"]
    assert loaded.placements == param.placements
    assert loaded.to_local().is_contiguous()
    assert torch.equal(loaded.to_local(), view)


@every_row
def test_scalars_and_empty_tensors_are_parameters_too(spec):
    shapes = [(), (0,), (0, 3), (3, 0)]
    result = trained(spec, make_params(shapes), shadow=True)
    assert [tuple(p.shape) for p in result] == shapes
    vector = trained(spec, [torch.nn.Parameter(p.detach().reshape(1)) for p in make_params([()])], shadow=True)
    assert result[0].item() == vector[0].item() != make_params([()])[0].item()


@every_row
def test_gradients_are_not_modified(spec):
    params = make_params()
    optimizer = build(spec, params, shadow=True)
    for t in STEPS:
        give_gradients(params, t)
        before = [param.grad.clone() for param in params]
        optimizer.step(loss=LOSSES[t])
        assert same([param.grad for param in params], before)


@every_row
def test_a_sparse_gradient_is_refused_and_changes_nothing(spec):
    params = make_params()
    optimizer = build(spec, params)
    run(optimizer, params, STEPS[:2])
    give_gradients(params, 2)
    params[3].grad = params[3].grad.to_sparse()
    before = snapshot(optimizer, params)
    with pytest.raises(EmoError, match=r"sparse gradient.*\(4, 3\).*SparseAdam"):
        optimizer.step(loss=1.0)
    assert same(snapshot(optimizer, params), before)


@every_row
def test_a_step_without_any_gradient_moves_the_emotion_only(spec):
    params = make_params()
    optimizer = build(spec, params)
    optimizer.step(loss=2.0)
    optimizer.step(loss=1.0)
    assert same(values(params), values(make_params()))
    assert optimizer.signals().ema_long == pytest.approx(1.99)
    assert not optimizer.state


@pytest.mark.parametrize("missing", ["late group", "layer without gradient", "all gradients"])
def test_void_rescales_only_to_a_norm_of_the_same_weights(missing):
    """Otherwise a group added late would shrink the model, and a step without gradients would set it to 0."""
    params = make_params()
    first = params[:2] if missing == "late group" else params
    optimizer = registry.build("emovoid", first)
    give_gradients(params, 0)
    if missing == "layer without gradient":
        params[0].grad = None
    elif missing == "all gradients":
        optimizer.zero_grad()
    optimizer.step(loss=1.0)
    if missing == "late group":
        optimizer.add_param_group({"params": params[2:]})
    give_gradients(params, 1)
    before = values(params)
    optimizer.step(loss=1.0)
    for ours, start in zip(params, before, strict=True):
        torch.testing.assert_close(ours.detach(), start, rtol=0, atol=1.01 * optimizer.effective_lr)


def test_void_skips_only_the_norms_that_nothing_depends_on():
    """The stop signal rises after steps 82, 124 and 140, long after the first 55, and each rescales the next step."""
    found, looked = [], []
    spec = registry.find("emovoid")
    for law in (spec.geometry, replace(spec.geometry, looks=lambda state, rising: True)):
        params, norms = make_params(), []
        counted = replace(law, before=lambda *args, law=law, norms=norms: (norms.append(args[1]), law.before(*args)))
        optimizer = EmoOptimizer(params, replace(spec, geometry=counted))
        for step in range(160):
            give_gradients(params, step)
            optimizer.step(loss=0.06 if step < 60 else 0.03)
        found.append(values(params))
        looked.append(len(norms))
    assert same(*found)
    assert looked == [56 + 2 * 3, 160]


# -- manners ---------------------------------------------------------------------------------------------------------


@every_row
def test_a_writer_gets_every_signal_of_every_step(spec):
    params, writer = make_params(), Writer()
    optimizer = build(spec, params, writer=writer)
    expected = {}
    for step, t in enumerate(STEPS, start=1):
        run(optimizer, params, [t])
        expected[step] = optimizer.signals().log()
    assert writer.scalars == expected
    assert {"emo/loss", "emo/lr", "emo/scalar", "emo/stop_share"} <= expected[1].keys()
    assert all(type(value) is float for signals in expected.values() for value in signals.values())


@every_row
def test_nothing_is_printed_and_torch_is_left_alone(spec, capfd):
    backward = torch.Tensor.backward
    trained(spec, shadow=True)
    assert capfd.readouterr() == ("", "")
    assert torch.Tensor.backward is backward
    assert (backward.__module__, backward.__qualname__) == ("torch._tensor", "Tensor.backward")


@every_row
def test_dead_options_change_nothing_and_are_said_once(spec):
    assert spec.dead or spec.name not in ("emoairy", "emocats", "emotion", "emovoid") or spec.version == "2.0"
    reference = trained(spec)
    for name in spec.dead:
        value = (0.5, 0.6) if name == "betas" else 0.3
        with pytest.raises(OptionError, match=f"{name} has no effect in {spec.key}"):
            spec.resolve({name: value})  # where it was written for this version: a recipe, optim_args
        for in_group in (False, True):
            params = make_params()
            given = {name: value}
            with pytest.warns(UserWarning, match=f"{spec.key} ignores {name}=") as said:
                optimizer = build(spec, [{"params": params, **given}]) if in_group else build(spec, params, **given)
            assert len(said) == 1
            run(optimizer, params, STEPS)
            assert same(values(params), reference)


@pytest.mark.filterwarnings("always")
def test_an_option_without_effect_is_said_once_whatever_the_groups_add():
    groups = [{"params": make_params(), "weight_decay": decay} for decay in (0.1, 0.2)]
    with pytest.warns(UserWarning, match="ignores") as said:
        optimizer = registry.build("emovoid", groups, weight_decay=0.3, eps=1e-8)
    assert [str(each.message) for each in said] == [
        "emovoid-3.9 ignores weight_decay=0.3, eps=1e-08: its update has no such thing."
    ]
    copy.deepcopy(optimizer).add_param_group({"params": make_params(), "weight_decay": 0.4})
    assert len(said) == 1


@every_row
def test_what_the_released_code_takes_is_taken(spec):
    assert build(spec, make_params(), notify=False).options == spec.options


@pytest.mark.parametrize(
    "spec", [spec for spec in registry.specs() if not spec.shadow.always], ids=lambda spec: spec.key
)
def test_a_group_at_rate_0_is_frozen(spec):  # but for a shadow that cannot be switched off
    params, frozen = make_params(), make_params()
    before = [param.detach().clone() for param in frozen]
    spec = replace(spec, geometry=None)
    optimizer = EmoOptimizer([{"params": params}, {"params": frozen, "lr": 0.0, "weight_decay": 0.0}], spec)
    run(optimizer, [*params, *frozen], STEPS)
    assert same([param.detach() for param in frozen], before)
    assert optimizer.param_groups[1]["effective_lr"] == 0.0
    assert optimizer.param_groups[0]["effective_lr"] == optimizer.effective_lr > 0


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5)], ids=repr)
def test_numbers_of_other_libraries_are_numbers(number):
    optimizer = registry.build("emosens", make_params(), lr=number, betas=(number, number), eps=number)
    assert optimizer.options["lr"] == optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.options["betas"] == (0.5, 0.5)
    assert all(type(value) is float for value in (*optimizer.options["betas"], optimizer.options["lr"]))


def test_the_repr_tells_what_differs():
    first, *rest = make_params()
    groups = [{"params": [first]}, {"params": rest, "lr": 0.1, "weight_decay": 0.0}]
    optimizer = registry.build("emosens", groups, version="3.8", use_shadow=True)
    run(optimizer, [first, *rest], range(2))
    whole = "EmoSens(version='3.8', lr=1.0, use_shadow=True, groups=[{}, {'lr': 0.1, 'weight_decay': 0.0}])"
    assert repr(optimizer) == whole
    assert repr(pickle.loads(pickle.dumps(optimizer))) == whole


@every_row
def test_unknown_options_are_refused(spec):
    with pytest.raises(OptionError, match=r"unknown option 'weight_decaay'.*unknown option 'lrr'") as error:
        build(spec, make_params(), weight_decaay=0.1, lrr=1.0, learning_rate=0.1)
    assert "unknown option 'lrr'. Did you mean 'lr'" in str(error.value)
    assert "unknown option 'learning_rate'. Did you mean 'lr'?" in str(error.value)
    assert f"Valid options: {', '.join(sorted(spec.options))}" in str(error.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("lr", bad) for bad in (0.0, -1.0, math.nan, math.inf, True, "1")),
        *(("betas", bad) for bad in ((0.9,), (0.9, 1.0), 0.9, (-0.1, 0.9))),
        *(("eps", -1e-8), ("weight_decay", -0.1), ("stopcoef", "x"), ("use_shadow", "yes"), ("branch", "short")),
        ("on_nonfinite_loss", "ignore"),
    ],
)
def test_values_out_of_range_are_refused(option, value):
    with pytest.raises(OptionError, match=rf"emosens-3.9: {option}: got .*, expected"):
        registry.build("emosens", make_params(), **{option: value})


def test_a_closure_and_a_loss_together_are_refused():
    with pytest.raises(OptionError, match="both a closure and a loss"):
        registry.build("emosens", make_params()).step(lambda: 1.0, loss=1.0)
