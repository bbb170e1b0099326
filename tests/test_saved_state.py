"""A saved state that does not fit is one error, before anything is loaded: for every spec and implementation."""

import copy
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emo_hf import registry
from emo_hf.errors import CheckpointError, EmoError
from emo_hf.kernels import IMPLEMENTATIONS, compensation
from tests.optimizer_contract import (
    build,
    every_row,
    give_gradients,
    make_params,
    run,
    same,
    snapshot,
    without_3_1_warning,
    without_16_bit_warning,
)

pytestmark = [without_3_1_warning, without_16_bit_warning]
SHAPES = ((6, 4), (5,), (4, 6), (1, 8), ())


def trained(spec, steps=6, dtype=torch.float64, **options):
    params = make_params(SHAPES, dtype)
    optimizer = build(spec, params, **options)
    run(optimizer, params, range(steps))
    return params, optimizer


def refused(optimizer, params, state, message):
    """Asserts that loading `state` is an error of ours with `message`, and that it changes nothing."""
    before = snapshot(optimizer, params)
    with pytest.raises(CheckpointError, match=message):
        optimizer.load_state_dict(state)
    assert same(snapshot(optimizer, params), before)


def first_tensor(state, place=0):
    return next(iter(state["state"][place]), None)


def change_tensor(make, place=0):
    def change(state):
        name = first_tensor(state, place)
        state["state"][place][name] = make(state["state"][place][name])

    return change


def swap(state):
    for one, other in ((0, 2), (1, 3)):  # (6, 4) and (4, 6), a vector and a matrix
        state["state"][one], state["state"][other] = state["state"][other], state["state"][one]


def twice(state):
    state["param_groups"][0]["params"][2] = 0


def give(place, name, value):
    def change(state):
        state["state"].setdefault(place, {})[name] = value

    return change


def put(key, value):
    def change(state):
        state["param_groups"][0][key] = value

    return change


# kind -> how a state is damaged, and what the error says; those of tensors are for rules that have some
OF_TENSORS = {
    "two parameters swapped": (swap, r"Parameter 0 of group 0: \w+ (has shape|is missing)"),
    "shorter": (
        change_tensor(lambda t: t.flatten()[:-1].clone()),
        r"Parameter 0 of group 0: \w+ has shape .* expected",
    ),
    "more dimensions": (change_tensor(lambda t: t[None]), "has shape"),
    "empty": (change_tensor(lambda t: t.new_empty(0)), r"has shape \(0,\), expected"),
    "a scalar": (change_tensor(lambda t: t.new_zeros(())), r"has shape \(\), expected"),
    "integers": (change_tensor(lambda t: t.long()), r"is of torch.int64, expected a floating point type"),
    "booleans": (change_tensor(lambda t: t.bool()), r"is of torch.bool"),
    "complex": (change_tensor(lambda t: t.to(torch.complex64)), r"is of torch.complex64"),
    "no data": (change_tensor(lambda t: t.to("meta")), "a dense tensor with data"),
    "sparse": (change_tensor(lambda t: t.to_sparse()), "a dense tensor with data"),
    "one number for all": (change_tensor(lambda t: t.new_zeros(1).expand(t.shape)), "share their memory"),
    "a list": (change_tensor(lambda t: t.tolist()), r"is list, expected a tensor"),
    "a number": (change_tensor(lambda t: 0.0), r"is float, expected a tensor"),
    "nothing": (change_tensor(lambda t: None), r"is NoneType, expected a tensor"),
    "a tensor missing": (lambda s: s["state"][1].pop(first_tensor(s, 1)), "Parameter 1 of group 0: .* is missing"),
    "one state for two": (twice, "Parameter 2 of group 0 shares its state"),
}
OF_ALL = {
    "another tensor": (give(0, "momentum_buffer", torch.zeros(6, 4)), "Parameter 0 of group 0: got 'momentum_buffer'"),
    "a shadow of another shape": (give(3, "shadow", torch.zeros(8)), r"shadow has shape \(8,\), expected \(1, 8\)"),
    "a compensation of another shape": (give(1, compensation.KEY, torch.zeros(4)), r"compensation has shape \(4,\)"),
    "no dict": (lambda s: s["state"].update({0: [1]}), "its state is list, expected a dict"),
    "no parameter": (lambda s: s["state"].update({99: {}}), "a state for 99, which is no parameter"),
    "a word for a parameter": (lambda s: s["state"].update({"a": {}}), "a state for 'a'"),
    "no states": (lambda s: s.pop("state"), "Its state is NoneType"),
    "fewer parameters": (lambda s: s["param_groups"][0]["params"].pop(), "Group 0 has 4 parameters, expected 5"),
    "no parameters": (put("params", None), "Group 0 lists no parameters"),
    "more groups": (lambda s: s["param_groups"].append(s["param_groups"][0]), "It has 2 parameter groups, expected 1"),
    "no groups": (lambda s: s["param_groups"].clear(), "of another optimizer"),
    "a group that is none": (lambda s: s["param_groups"].__setitem__(0, None), "of another optimizer"),
    "no scope": (lambda s: s["param_groups"][0].pop("scope"), "Group 0: scope: missing"),
    "a scope of nan": (put("scope", math.nan), "Group 0: scope: got nan, expected a number >"),
    "a scope in words": (put("scope", "1"), "Group 0: scope: got '1'"),
    "a negative rate": (put("lr", -1.0), "Group 0: lr: got -1.0"),
    "a rate of nan": (put("lr", math.nan), "Group 0: lr: got nan"),
    "a rate that no float is": (put("lr", 10**400), "Group 0: lr: got 1000"),
    "an emotion that no float is": (lambda s: put("emo", (10**400, *s["param_groups"][0]["emo"][1:]))(s), "got 1000"),
    "no rate": (lambda s: s["param_groups"][0].pop("lr"), "Group 0: lr: missing"),
    "no emotion": (put("emo", None), "Group 0: emo: got None, expected a tuple of numbers"),
    "an emotion in words": (put("emo", "calm"), "emo: got 'calm'"),
    "no numbers": (put("emo", ()), "emo: got 0 numbers, expected"),
    "too few numbers": (lambda s: put("emo", s["param_groups"][0]["emo"][:7])(s), "emo: got 7 numbers"),
    "too many numbers": (lambda s: put("emo", s["param_groups"][0]["emo"] + (0.0,) * 9)(s), r"emo: got \d+ numbers"),
    "a word among them": (lambda s: put("emo", ("x", *s["param_groups"][0]["emo"][1:]))(s), "emo: got 'x' at place 0"),
    "None among them": (lambda s: put("emo", (None, *s["param_groups"][0]["emo"][1:]))(s), "got None at place 0"),
    "nan among them": (lambda s: put("emo", (math.nan, *s["param_groups"][0]["emo"][1:]))(s), "out of range"),
}


@every_row
def test_every_kind_of_misfit_is_one_error_that_names_it(spec):
    params, optimizer = trained(spec, shadow=True)
    whole = optimizer.state_dict()
    kinds = {**OF_ALL, **(OF_TENSORS if spec.update.init(params[0]) else {})}
    for damage, message in kinds.values():
        state = copy.deepcopy(whole)
        damage(state)
        refused(optimizer, params, state, message)
    optimizer.load_state_dict(whole)
    run(optimizer, params, range(6, 8))


@pytest.mark.parametrize(
    "state", [None, [], "text", {"param_groups": 3, "state": {}}, {"param_groups": [3]}], ids=repr
)
def test_what_is_no_state_at_all(state):
    params, optimizer = trained(registry.find("emosens"))
    refused(optimizer, params, state, "of another optimizer")


@pytest.mark.parametrize("key", ["emosens-3.9", "emocats-3.9", "emofact-3.0", "emotion-3.9", "emofree", "emoclan-3.0"])
@pytest.mark.parametrize("options", [{}, {"shadow": True}, {"compensation": "kahan"}], ids=str)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_way_to_apply_an_update_gets_tensors_of_another_shape(key, options, implementation):
    """Above 2 ** 16 entries, where fused kernels take a tensor alone: a shorter one would be read past its end."""
    spec = registry.find(key)
    dtype = torch.bfloat16 if "compensation" in options else torch.float32
    params = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in ((70_000,), (300, 300), (8,))]
    optimizer = build(spec, params, implementation=implementation, **options)
    saved = optimizer.state_dict()
    saved["state"] = {
        place: {name: torch.zeros(3, dtype=dtype) for name in [*spec.update.init(param), *extra(options)]}
        for place, param in enumerate(params)
    }
    refused(optimizer, params, saved, r"Parameter 0 of group 0: \w+ has shape \(3,\), expected \(70000,\)")


def extra(options):
    return ["shadow"] if "shadow" in options else [compensation.KEY] if "compensation" in options else []


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("key", ["emosens-3.9", "emocats-3.9", "emotion-3.9"])
def test_a_parameter_that_changed_its_shape_is_no_crash(key, implementation):
    params, optimizer = trained(registry.find(key), implementation=implementation)
    params[0].grad = None
    params[0].data = torch.zeros(40, 40, dtype=torch.float64)  # as after resizing an embedding
    optimizer._shapes.add(params[0].shape)  # even so
    give_gradients(params, 6)
    with pytest.raises(EmoError, match=r"A parameter of shape \(40, 40\) has tensors of another shape: .* \(6, 4\)"):
        optimizer.step(loss=1.0)


def test_a_name_is_told_where_it_is_known():
    named = list(zip("abcde", make_params(SHAPES), strict=True))
    optimizer = build(registry.find("emosens"), named)
    run(optimizer, [param for _, param in named], range(2))
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][2]["exp_avg"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=re.escape("Parameter 2 of group 0 (c): exp_avg has shape (3,)")):
        optimizer.load_state_dict(state)


def test_what_another_hook_makes_of_a_state_is_what_counts():
    params, optimizer = trained(registry.find("emosens"))
    broken = copy.deepcopy(optimizer.state_dict())
    broken["state"][0]["exp_avg"] = torch.zeros(3)
    whole = copy.deepcopy(optimizer.state_dict())
    for made, taken in ((whole, broken), (broken, whole)):
        hook = optimizer.register_load_state_dict_pre_hook(lambda _, state, made=made: made)
        if made is whole:
            optimizer.load_state_dict(taken)
        else:
            refused(optimizer, params, taken, "has shape")
        hook.remove()


# -- what is sound ---------------------------------------------------------------------------------------------------


@every_row
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_state_of_another_precision_is_cast_as_torch_does(spec, dtype):
    _, optimizer = trained(spec, shadow=True)
    params = make_params(SHAPES, dtype)
    other = build(spec, params, shadow=True)
    other.load_state_dict(optimizer.state_dict())
    assert all(t.dtype == dtype for state in other.state.values() for t in state.values())
    run(other, params, range(6, 8))


@every_row
def test_parameters_without_a_state_yet_and_states_of_a_shorter_history(spec):
    params, optimizer = trained(spec)
    state = copy.deepcopy(optimizer.state_dict())
    del state["state"][0]
    state["state"][1] = {}
    if not spec.mechanism.measures:  # early versions packed the scalars that there were
        state["param_groups"][0]["emo"] = tuple(value for value in state["param_groups"][0]["emo"] if value != 2.0)
    optimizer.load_state_dict(state)
    run(optimizer, params, range(6, 8))


# -- the emotion -----------------------------------------------------------------------------------------------------

STRANGE = [math.nan, math.inf, -math.inf, -1.0, 1e300, -1e300, 0.5, 2.0, 1e-320]


@every_row
def test_a_number_of_the_emotion_is_refused_or_harmless(spec):
    """A place that holds something strange is an error, or the training goes on with finite weights and signals."""
    _, optimizer = trained(spec)
    whole = optimizer.state_dict()
    names = ("emo", "geometry") if spec.geometry else ("emo",)
    refusals = 0
    for name in names:
        values = whole["param_groups"][0][name]
        for place in range(min(len(values), 48 if spec.mechanism.measures else 16)):  # the history's are alike
            for strange in STRANGE:
                refusals += not goes_on(spec, whole, name, (*values[:place], strange, *values[place + 1 :]))
    assert refusals > 50


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_an_emotion_of_any_numbers_is_refused_or_harmless(data):
    spec = registry.find(data.draw(st.sampled_from(["emosens-3.9", "emonavi-3.6", "emotion-3.9", "emofree"])))
    _, optimizer = trained(spec)
    whole = optimizer.state_dict()
    values = list(whole["param_groups"][0]["emo"])
    for place in data.draw(st.lists(st.integers(0, len(values) - 1), max_size=4)):
        values[place] = data.draw(st.floats() | st.sampled_from([*STRANGE, None, "1", True, 1, (1.0,)]))
    goes_on(spec, whole, "emo", tuple(values))


def goes_on(spec, whole, name, values):
    """Returns whether a state with these `values` is loaded, and asserts that the weights then stay finite."""
    params = make_params(SHAPES)
    optimizer = build(spec, params)
    state = {**whole, "param_groups": [{**whole["param_groups"][0], name: values}]}
    try:
        optimizer.load_state_dict(state)
    except CheckpointError:
        return False
    run(optimizer, params, range(6, 8))
    assert all(param.isfinite().all() for param in params), values
    assert math.isfinite(optimizer.effective_lr)
    return True
