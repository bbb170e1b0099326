"""Whether a saved optimizer state fits an optimizer. It is looked at whole, before anything of it is loaded.

    groups    as many as the optimizer has, each with as many parameters, and its options in range
    emotion   as many numbers as a new one has, none that the mechanism could not have come to
    tensors   those of the update rule, of the shapes that it makes for each parameter; dtypes that torch would cast

A tensor of another shape would reach fused operators, which read and write past its end. Values inside tensors are
not looked at.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from emo_hf.errors import CheckpointError
from emo_hf.free import FreeState
from emo_hf.kernels import compensation
from emo_hf.mechanism import WINDOW, Mechanism, MechanismState
from emo_hf.spec import GROUP_OPTIONS, OptimizerSpec, flaw_of_option, is_number, plain

Group = dict[str, Any]


def check(saved: Any, spec: OptimizerSpec, groups: list[Group]) -> None:
    """Compares a saved state with the optimizer's own `groups`. Nothing is changed.

    Args:
        saved: the argument of ``load_state_dict``.
        spec: of the optimizer.
        groups: its parameter groups.

    Raises:
        CheckpointError: the state is of another spec, or does not fit; the first misfit is named, and how many follow.
    """
    _refuse_others(saved, spec)
    flaws = list(_flaws_of_groups(saved, spec, groups)) or list(_flaws_of_tensors(saved, spec, groups))
    if flaws:
        more = f" So it is with {len(flaws) - 1} more." if len(flaws) > 1 else ""
        raise CheckpointError(
            f"The saved state of {spec.key} does not fit this optimizer, and nothing was loaded. {flaws[0]}.{more}"
            " Build model and optimizer as they were when it was saved, or start anew from the saved weights without"
            " the optimizer state."
        )


def _refuse_others(saved: Any, spec: OptimizerSpec) -> None:
    groups = saved.get("param_groups") if isinstance(saved, dict) else None
    for group in groups if isinstance(groups, list) and groups else [{}]:
        name = group.get("optimizer", "another optimizer") if isinstance(group, dict) else "another optimizer"
        if name != spec.key or "emo" not in group:
            raise CheckpointError(
                f"The saved optimizer state is of {name}, this optimizer is {spec.key}. Continue with"
                f" {name}, or start {spec.key} anew from the saved weights without the optimizer state."
            )


# -- groups ----------------------------------------------------------------------------------------------------------


def _flaws_of_groups(saved: dict[str, Any], spec: OptimizerSpec, groups: list[Group]) -> Iterator[str]:
    theirs = saved["param_groups"]
    if len(theirs) != len(groups):
        yield f"It has {_count(theirs, 'parameter group')}, expected {len(groups)}"
        return
    for place, (their, own) in enumerate(zip(theirs, groups, strict=True)):
        params = their.get("params")
        if not isinstance(params, list | tuple) or not all(isinstance(param, int | str) for param in params):
            yield f"Group {place} lists no parameters"
        elif len(params) != len(own["params"]):
            yield f"Group {place} has {_count(params, 'parameter')}, expected {len(own['params'])}"
        for name, flaw in _flaws_of_options(their, own, spec):
            yield f"Group {place}: {name}: {flaw}"


def _flaws_of_options(their: Group, own: Group, spec: OptimizerSpec) -> Iterator[tuple[str, str]]:
    if flaw := flaw_of_emotion(their["emo"], spec.mechanism):
        yield "emo", flaw
    if spec.geometry and (flaw := _flaw_of_geometry(their.get("geometry"))):
        yield "geometry", flaw
    for name in ("scope", "start", *(name for name in GROUP_OPTIONS if name in own)):
        if name not in own:
            continue
        if name not in their:
            yield name, "missing"
            continue
        value = plain(their[name])
        match name:
            case "lr" | "start":
                expected = "" if is_number(value) and value >= 0 else "a number >= 0"
            case "scope":
                least = "> 0" if spec.lr_is_multiplier else ">= 0"
                sound = is_number(value) and (value > 0 or (value == 0 and not spec.lr_is_multiplier))
                expected = "" if sound else f"a number {least}"
            case _:
                expected = flaw_of_option(spec, name, value)
        if expected:
            yield name, f"got {value!r:.60}, expected {expected}"


# -- emotion ---------------------------------------------------------------------------------------------------------

ROUNDING = 1e-9  # averages of numbers up to 1 can be above it by that
HUGE = 1e150  # a loss whose square is no float


def flaw_of_emotion(values: Any, mechanism: Mechanism) -> str:
    """Returns what keeps `values` from being a packed state of `mechanism`, in words; empty if nothing does."""
    most = len(mechanism.start().pack())
    # the history at the end of it grew step by step in early versions
    least = most if isinstance(mechanism.start(), FreeState) else most - WINDOW
    if flaw := _flaw_of_numbers(values, least, most):
        return flaw
    state = mechanism.restore(tuple(map(float, values)))
    holds = _of_every_mechanism(state)
    if mechanism.pulse:
        holds |= _of_a_pulse(state)
    if isinstance(state, FreeState):
        holds |= _of_emofree(state)
    wrong = [name for name, sound in holds.items() if not sound]
    return f"{', '.join(wrong)} out of range" if wrong else ""


def _flaw_of_numbers(values: Any, least: int, most: int) -> str:
    if not isinstance(values, tuple | list):
        return f"got {values!r:.60}, expected a tuple of numbers"
    if not least <= len(values) <= most:
        return f"got {len(values)} numbers, expected {most}"
    for place, value in enumerate(values):
        if type(value) is not float and not is_number(value):
            return f"got {value!r:.60} at place {place}, expected a number"
    return ""


def _is_count(value: float) -> bool:
    return 0 <= value < math.inf and value == int(value)


def _is_flag(value: float) -> bool:
    return value in (0, 1)


def _are_losses(*values: float) -> bool:
    return all(abs(value) < HUGE for value in values)


def _of_every_mechanism(state: MechanismState) -> dict[str, bool]:
    averages = (state.averages.short, state.averages.medium, state.averages.long)
    return {
        "steps": _is_count(state.steps),
        "skipped": _is_count(state.skipped),
        "averages of the loss": all(map(math.isfinite if state.steps > 0 else math.isnan, averages)),
        "scalar": abs(state.scalar) <= 1,
        "ready": _is_flag(state.ready) and _is_flag(state.resting),
        "history": all(abs(scalar) <= 1 for scalar in state.history),
    }


def _of_a_pulse(state: MechanismState) -> dict[str, bool]:
    s = state.pulse
    return {
        "noise and distance": 0 <= s.noise <= 1 + ROUNDING and 0 <= s.distance <= 1 + ROUNDING,
        "drift": abs(s.drift) <= 1 + ROUNDING,
        "snr": 0 <= s.snr < math.inf,
        "signal and doubt": 0 < s.signal < math.inf and 0 < s.doubt < math.inf,
    }


def _of_emofree(state: FreeState) -> dict[str, bool]:
    started = 0 < state.unit < math.inf and 0 < state.size < math.inf
    waiting = math.isnan(state.unit) and math.isnan(state.size) and not state.steering
    found = 0 < state.found < math.inf and _is_count(state.found_after) and math.isfinite(state.found_at)
    sums = (state.followed, state.descended, state.predicted, state.seen)
    return {
        "unit and size": started or waiting,
        "steering and what was found": state.steering == 0 or (state.steering == 1 and found),
        "agreement": all(map(math.isfinite, sums)) and (math.isfinite(state.descent) or not state.measured),
        "pairs": _is_count(state.pairs) and _is_count(state.measured),
        "highest agreement": math.isfinite(state.highest) or (state.highest == -math.inf and not state.steering),
        "loss": _are_losses(state.fast, state.slow, state.last) or not state.steps,
        "variance": 0 <= state.variance < math.inf,
        "braking": 0 <= state.braking <= 1,
        "schedule": 0 <= state.schedule < math.inf and 0 <= state.peak < math.inf and _is_flag(state.annealed),
    }


def _flaw_of_geometry(values: Any) -> str:
    if flaw := _flaw_of_numbers(values, 4, 4):
        return flaw
    norm, freshness, count, size = values
    if not (0 <= freshness <= 1 and 0 <= count < math.inf and 0 <= size < math.inf):
        return f"got freshness {freshness}, count {count}, size {size}, expected [0, 1] and two numbers >= 0"
    if not (0 <= norm < math.inf or (math.isnan(norm) and size == 0)):  # before the first step
        return f"got norm {norm}, expected a number >= 0"
    return ""


# -- tensors ---------------------------------------------------------------------------------------------------------


def _flaws_of_tensors(saved: dict[str, Any], spec: OptimizerSpec, groups: list[Group]) -> Iterator[str]:
    states = saved.get("state")
    if not isinstance(states, dict):
        yield f"Its state is {type(states).__name__}, expected a dict"
        return
    known: dict[Any, str] = {}
    for place, (their, own) in enumerate(zip(saved["param_groups"], groups, strict=True)):
        names = own.get("param_names") or their.get("param_names") or [None] * len(own["params"])
        for number, (key, param, name) in enumerate(zip(their["params"], own["params"], names, strict=False)):
            name = name or (key if isinstance(key, str) else None)
            where = f"Parameter {number} of group {place}" + (f" ({name})" if name else "")
            if key in known:
                yield f"{where} shares its state with another: {known[key]}"
            known[key] = where
            for flaw in _flaws_of_state(states.get(key, {}), param, spec):
                yield f"{where}: {flaw}"
    if unknown := [key for key in states if key not in known]:
        yield f"It has a state for {unknown[0]!r:.60}, which is no parameter of its groups"


def _flaws_of_state(state: Any, param: Tensor, spec: OptimizerSpec) -> Iterator[str]:
    if not isinstance(state, dict):
        yield f"its state is {type(state).__name__}, expected a dict of tensors"
        return
    if not state:  # it has not had a gradient yet
        return
    needed = {name: tuple(tensor.shape) for name, tensor in spec.update.init(_like(param)).items()}
    allowed = {**needed, compensation.KEY: tuple(param.shape), "shadow": tuple(param.shape)}
    for name in needed.keys() - state.keys():
        yield f"{name} is missing"
    for name, tensor in state.items():
        if name not in allowed:
            yield f"got {name!r:.60}, expected {' and '.join(needed) or 'nothing'}"
        elif not isinstance(tensor, Tensor):
            yield f"{name} is {type(tensor).__name__}, expected a tensor"
        elif flaw := _flaw_of_tensor(tensor, allowed[name], param, whole=not spec.update.elementwise):
            yield f"{name} {flaw}"


def _like(param: Tensor) -> Tensor:
    """Returns a tensor of the shape and dtype of `param`, without data."""
    return torch.empty(param.shape, dtype=param.dtype, device="meta")


def _flaw_of_tensor(tensor: Tensor, shape: tuple[int, ...], param: Tensor, whole: bool) -> str:
    """Returns what is wrong with a tensor of the state; `whole`: the rule sees all shards of a DTensor together."""
    if tuple(tensor.shape) != shape:
        return f"has shape {tuple(tensor.shape)}, expected {shape}"
    if not (tensor.is_floating_point() or (tensor.is_complex() and param.is_complex())):
        return f"is of {tensor.dtype}, expected a floating point type, as {param.dtype} of the parameter"
    if tensor.layout is not torch.strided or tensor.is_meta:
        return "holds no dense numbers, expected a dense tensor with data"
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        return "has entries that share their memory, expected one number for each"
    if hasattr(tensor, "to_local") != hasattr(param, "to_local"):
        kinds = ("a DTensor", "a plain tensor") if hasattr(tensor, "to_local") else ("a plain tensor", "a DTensor")
        return f"is {kinds[0]}, expected {kinds[1]}, as the parameter is"
    if hasattr(tensor, "to_local") and hasattr(param, "to_local") and not whole:
        got, expected = tuple(tensor.to_local().shape), tuple(param.to_local().shape)
        return "" if got == expected else f"has a shard of shape {got} here, expected {expected}"
    return ""


def _count(things: Any, name: str) -> str:
    return f"{len(things)} {name}" + ("" if len(things) == 1 else "s")
