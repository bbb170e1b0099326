"""The elementwise rules by one Triton kernel: all tensors of a group in one launch, one trip through memory.

The table of addresses and the numbers of the step (`emo_hf.kernels.triton_rules`) are one buffer in pinned memory,
sent anew at every step: nothing waits for the device, nothing is kept from step to step, and no number of the step
compiles a kernel again. Tensors that lie where a thread cannot move 16 bytes at once are a second launch.

Importing this module needs Triton. On a CPU it runs by Triton's interpreter, in tests only.
"""

import contextlib
import functools
import itertools
import logging
import operator
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from emo_hf import updates
from emo_hf.kernels import compensation, fused, triton_rules
from emo_hf.kernels.measuring import Layout, Sums
from emo_hf.kernels.triton_rules import ADAM, BLOCK, CHUNK, LION, MOMENTUM_SIGN, NORM, SIGN, WARPS
from emo_hf.updates import Hyper, Rule, TensorState, Update

Lists = tuple[list[Tensor], list[Tensor], list[TensorState]]
Columns = list[list[Tensor]]  # parameters, gradients, states, what rounding cut off

logger = logging.getLogger(__name__)
RULES: dict[Rule, tuple[Any, ...]] = {  # rule -> its kind and its state; biases and filters are numbers of the step
    updates.adam_: (ADAM, "exp_avg", "exp_avg_sq"),
    updates.corrected_adam_: (ADAM, "exp_avg", "exp_avg_sq"),
    updates.filtered_adam_: (ADAM, "exp_avg", "exp_avg_sq"),
    updates.lion_: (LION, "exp_avg"),
    updates.filtered_lion_: (LION, "exp_avg"),
    updates.momentum_sign_: (MOMENTUM_SIGN, "exp_avg"),
    updates.sign_: (SIGN,),
}
FILTERED: set[Rule] = {updates.filtered_adam_, updates.filtered_lion_}
TYPES = {
    torch.float32: (tl.float32, tl.float32),  # of the tensors, of the arithmetic
    torch.bfloat16: (tl.bfloat16, tl.float32),
    torch.float16: (tl.float16, tl.float32),
    torch.float64: (tl.float64, tl.float64),
}
LEAST_CAPABILITY = (8, 0)  # Ampere; older ones have no bfloat16
ALIGNMENT = 16  # bytes that a thread can move at once
HEAD, ROW = triton_rules.HEAD.value, triton_rules.ROW.value  # words of 8 bytes
PLAIN = {Tensor, torch.nn.Parameter}


class _Traits(NamedTuple):
    """What tensors of one launch have in common."""

    card: int  # index of the device
    dtype: torch.dtype
    width: int  # columns


def run(
    update: Update,
    lists: Lists,
    h: Hyper,
    scale: float = 1.0,
    sums: Sums | None = None,
    layout: Layout | None = None,
) -> list[int]:
    """Applies `update` to the tensors that it can take, after multiplying them by `scale`.

    Args:
        sums: get what the tensors tell that it takes.
        layout: how the shards of DTensors, which these are, are spread over ranks.

    Returns:
        The places of the others.
    """
    places = list(range(len(lists[0])))
    if update.apply not in RULES or not places or (sums is not None and update.apply is not updates.corrected_adam_):
        return places
    kind, *keys = RULES[update.apply]
    left: list[int] = []
    batches: dict[_Traits, Columns] = {}
    columns = _columns(keys, *lists)
    if (traits := _traits(columns)) is not None:
        batches[traits] = columns
    else:
        for i, (param, grad, state) in enumerate(zip(*lists, strict=True)):
            single = _columns(keys, [param], [grad], [state])
            if (traits := _traits(single)) is None:
                left.append(i)
                continue
            for column, tensors in zip(batches.setdefault(traits, [[] for _ in single]), single, strict=True):
                column += tensors
    numbers = _numbers(update, h, scale)
    for traits, columns in batches.items():
        lost = columns.pop() if traits.width == 3 + len(keys) else None
        found = _launch(kind, traits, columns, lost, numbers, measured=sums is not None)
        if sums is not None:
            _add(sums, found, h, layout)
        changed = itertools.chain(columns[0], *columns[2:], lost or ())
        torch.autograd.graph.increment_version(changed)  # as autograd's checks expect
    return left


def _add(sums: Sums, found: list[Tensor], h: Hyper, layout: Layout | None) -> None:
    """Adds up what the programs found; at the step before, other corrections of the bias were due."""
    before, _ = fused.correction(h._replace(age=h.age - 1))
    for each in found:
        following, magnitude, descent = each.sum(dim=0)
        sums.add_there(following * before, magnitude, descent, layout)


def l1_norm(params: Sequence[Tensor]) -> float | None:
    """Sum of |p| over all entries of all tensors; None if that is not for this kernel. Waits for the device."""
    columns = [list(params)] * 2
    traits = _traits(columns)
    if traits is None:
        return None
    found = _launch(NORM, traits, columns, None, [], measured=True)
    return float(sum(each[:, 1].sum() for each in found))


def _columns(keys: list[str], params: list[Tensor], grads: list[Tensor], states: list[TensorState]) -> Columns:
    """Returns parameters, gradients, their states and, if there is compensation, what rounding cut off."""
    keys = [*keys, compensation.KEY] if compensation.KEY in states[0] else keys
    return [params, grads, *([state[key] for state in states if key in state] for key in keys)]


def _traits(columns: Columns) -> _Traits | None:
    """Returns what the tensors have in common if one launch can take them, else None."""
    tensors = list(itertools.chain(*columns))
    indices, dtypes = set(map(Tensor.get_device, tensors)), {tensor.dtype for tensor in tensors}
    alike = len(indices) == len(dtypes) == 1 and dtypes <= TYPES.keys() and not set(map(type, tensors)) - PLAIN
    if not alike or not _lie_alike(tensors) or any(map(Tensor.is_neg, columns[1])):
        return None
    shapes = [tensor.shape for tensor in columns[0]]
    if any([tensor.shape for tensor in column] != shapes for column in columns[1:]) or not _works(*indices):
        return None
    return _Traits(indices.pop(), dtypes.pop(), len(columns))


def _lie_alike(tensors: list[Tensor]) -> bool:
    """Whether their entries are in one order, without gaps."""
    if all(map(Tensor.is_contiguous, tensors)):
        return True
    return all(tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors)


def _numbers(update: Update, h: Hyper, scale: float) -> list[float]:
    """Returns what the kernel reads at the head of its buffer, in its order."""
    rule = update.apply
    decay = h.lion_decay if RULES[rule][0] is LION else h.decay
    beta1 = 1 - (1 - h.beta1) * h.freshness if rule is updates.momentum_sign_ else h.beta1
    corrected = rule is updates.corrected_adam_
    bias1, bias2 = (1 - h.beta1**h.age, 1 - h.beta2**h.age) if corrected else (1.0, 1.0)
    # |g| ** (1/3) >= 1e-4 (1 + |scalar|)
    least = (1e-4 * (1 + abs(h.scalar))) ** 3 if rule in FILTERED else 0.0
    _, eps_before = fused.correction(h._replace(age=h.age - 1)) if corrected else (0.0, 0.0)
    return [h.step, 1 - decay, beta1, 1 - beta1, h.beta2, 1 - h.beta2, h.eps, scale, bias1, bias2, least, eps_before]


def _launch(
    kind: Any, traits: _Traits, columns: Columns, lost: list[Tensor] | None, numbers: list[float], *, measured: bool
) -> list[Tensor]:
    """Launches the kernel, at most twice; returns what the programs measured, (programs, 3) each."""
    none = [0] * len(columns[1])
    words = [list(map(Tensor.data_ptr, column)) or none for column in columns]
    words += [none] * (4 - len(words)) + [list(map(Tensor.data_ptr, lost)) if lost else none]
    tables: dict[bool, array[int]] = {True: array("q"), False: array("q")}
    programs = {True: 0, False: 0}
    for size, *places in zip(map(Tensor.numel, columns[1]), *words, strict=True):
        aligned = not functools.reduce(operator.or_, places) % ALIGNMENT
        if size:
            tables[aligned].extend((programs[aligned], size, *places))
            programs[aligned] += -(-size // CHUNK)
    head = array("d", numbers + [0.0] * (HEAD - len(numbers))).tobytes()
    found = []
    for aligned, table in tables.items():
        if not table:
            continue
        buffer = _sent(bytearray(head + table.tobytes()), traits.card)
        target = buffer
        if measured:
            target = torch.empty(programs[aligned], 3, dtype=torch.float64, device=buffer.device)
            found.append(target)
        variant = kind.value, lost is not None, measured, aligned, *TYPES[traits.dtype]
        _start(traits.card, programs[aligned], buffer, len(table) // ROW, target, variant)
    return found


def _start(card: int, programs: int, buffer: Tensor, rows: int, target: Tensor, variant: tuple[Any, ...]) -> None:
    """Starts that many programs of one variant of the kernel."""
    with _on(card):
        triton_rules.step[(programs,)](buffer, rows, target, *variant, CHUNK, BLOCK, num_warps=WARPS)


def _on(index: int) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(index) if index >= 0 else contextlib.nullcontext()


def _sent(buffer: bytearray, index: int) -> Tensor:
    """Returns the buffer as words on the device, without waiting for it."""
    words = torch.frombuffer(buffer, dtype=torch.int64)
    return words.pin_memory().to(torch.device("cuda", index), non_blocking=True) if index >= 0 else words


@functools.cache
def _works(index: int) -> bool:
    """Whether this device can run the kernel: Triton compiles it here, with a compiler for C, and launches it."""
    if index < 0:
        return not isinstance(triton_rules.step, triton.JITFunction)
    if torch.cuda.get_device_capability(index) < LEAST_CAPABILITY:
        return False
    try:
        nothing = _sent(bytearray(8 * (HEAD + ROW)), index)
        _start(index, 1, nothing, 1, nothing, (SIGN.value, False, False, True, *TYPES[torch.float32]))
    except Exception as error:  # of LLVM, ptxas, the C compiler, the driver: each has its own
        logger.warning(
            "emo_hf goes on with torch's own kernels: Triton could not compile or launch its kernel on cuda:%d (%s)."
            " It needs a C compiler, Python's headers and a folder to write to (TRITON_CACHE_DIR). EMO_HF_NATIVE=0"
            " switches it off.",
            index,
            (str(error).splitlines() or [type(error).__name__])[0][:300],
        )
        return False
    return True
