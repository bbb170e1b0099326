"""The elementwise rules by one Triton kernel: all tensors of a group in one launch, one trip through memory.

    row of the table     first program, entries, addresses of p, g, m, v and c     one for every tensor
    program              finds its row by bisection and takes one chunk of that tensor

The table and the numbers of the step are one buffer in pinned memory, sent anew at every step: nothing waits for the
device, nothing is kept from step to step, and no number of the step compiles a kernel again. Numbers travel in float64
and are rounded to the precision of the arithmetic: float32, for float64 tensors float64.

Importing this module needs Triton. On a CPU it runs by Triton's interpreter, in tests only.
"""

import contextlib
import functools
import itertools
import logging
import operator
from array import array
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from emo_hf import updates
from emo_hf.kernels import compensation
from emo_hf.updates import Hyper, Rule, TensorState, Update

Lists = tuple[list[Tensor], list[Tensor], list[TensorState]]
Columns = list[list[Tensor]]

logger = logging.getLogger(__name__)
SIGN, MOMENTUM_SIGN, LION, ADAM = (tl.constexpr(i) for i in range(4))
RULES: dict[
    Rule, tuple[Any, ...]
] = {  # rule -> its kind and its state; corrections of the bias and filters are numbers of the step
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
CHUNK, BLOCK, WARPS = (
    8192,
    1024,
    4,
)  # entries of a program, of one turn of it; 8 entries a thread: 16 bytes of bfloat16
ALIGNMENT = 16  # bytes that a thread can move at once
HEAD, ROW = 16, 7  # words of 8 bytes: the numbers, a row of the table
PLAIN = {Tensor, torch.nn.Parameter}


def run(update: Update, lists: Lists, h: Hyper, scale: float = 1.0) -> Lists:
    """Applies `update` to the tensors that it can take, after multiplying them by `scale`, and returns the others."""
    if update.apply not in RULES or not lists[0]:
        return lists
    kind, *keys = RULES[update.apply]
    left: list[int] = []
    batches: dict[tuple[int, torch.dtype, int], Columns] = {}
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
    for (index, dtype, width), columns in batches.items():
        _step(kind, index, dtype, width == 3 + len(keys), columns, numbers)
    params, grads, states = lists
    return [params[i] for i in left], [grads[i] for i in left], [states[i] for i in left]


def _columns(keys: list[str], params: list[Tensor], grads: list[Tensor], states: list[TensorState]) -> Columns:
    """Returns parameters, gradients, their states and, if there is compensation, what rounding cut off."""
    keys = [*keys, compensation.KEY] if compensation.KEY in states[0] else keys
    return [params, grads, *([state[key] for state in states if key in state] for key in keys)]


def _traits(columns: Columns) -> tuple[int, torch.dtype, int] | None:
    """Returns the device, the dtype and the number of columns if one launch can take them, else None."""
    tensors = list(itertools.chain(*columns))
    indices, dtypes = set(map(Tensor.get_device, tensors)), {tensor.dtype for tensor in tensors}
    alike = len(indices) == len(dtypes) == 1 and dtypes <= TYPES.keys() and not set(map(type, tensors)) - PLAIN
    if not alike or not _lie_alike(tensors) or any(map(Tensor.is_neg, columns[1])):
        return None
    shapes = [tensor.shape for tensor in columns[0]]
    if any([tensor.shape for tensor in column] != shapes for column in columns[1:]) or not _works(*indices):
        return None
    return indices.pop(), dtypes.pop(), len(columns)


def _lie_alike(tensors: list[Tensor]) -> bool:
    """Whether their entries are in one order, without gaps."""
    if all(map(Tensor.is_contiguous, tensors)):
        return True
    return all(tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors)


def _numbers(update: Update, h: Hyper, scale: float) -> list[float]:
    """Returns what `_kernel` reads at the head of its buffer, in its order."""
    rule = update.apply
    decay = h.lion_decay if RULES[rule][0] is LION else h.decay
    beta1 = 1 - (1 - h.beta1) * h.freshness if rule is updates.momentum_sign_ else h.beta1
    corrected = rule is updates.corrected_adam_
    bias1, bias2 = (1 - h.beta1**h.age, 1 - h.beta2**h.age) if corrected else (1.0, 1.0)
    # |g| ** (1/3) >= 1e-4 (1 + |scalar|)
    least = (1e-4 * (1 + abs(h.scalar))) ** 3 if rule in FILTERED else 0.0
    return [h.step, 1 - decay, beta1, 1 - beta1, h.beta2, 1 - h.beta2, h.eps, scale, bias1, bias2, least]


def _step(
    kind: Any, index: int, dtype: torch.dtype, compensated: bool, columns: Columns, numbers: list[float]
) -> None:
    addresses = [map(Tensor.data_ptr, column) for column in columns]
    none = [0] * len(columns[0])
    lost = addresses.pop() if compensated else none
    tables: dict[bool, array[int]] = {True: array("q"), False: array("q")}
    programs = {True: 0, False: 0}
    for row in zip(map(Tensor.numel, columns[0]), *addresses, *[none] * (4 - len(addresses)), lost, strict=True):
        size, *places = row
        aligned = not functools.reduce(operator.or_, places) % ALIGNMENT
        if size:
            tables[aligned].extend((programs[aligned], *row))
            programs[aligned] += -(-size // CHUNK)
    head = array("d", numbers + [0.0] * (HEAD - len(numbers))).tobytes()
    for aligned, table in tables.items():
        if table:
            buffer = _sent(bytearray(head + table.tobytes()), index)
            with _on(index):
                _kernel[(programs[aligned],)](
                    buffer, len(table) // ROW, kind, compensated, aligned, *TYPES[dtype], CHUNK, BLOCK, num_warps=WARPS
                )
    del columns[1]
    torch.autograd.graph.increment_version(itertools.chain(*columns))  # as autograd's checks expect


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
        return not isinstance(_kernel, triton.JITFunction)
    if torch.cuda.get_device_capability(index) < LEAST_CAPABILITY:
        return False
    try:
        with _on(index):
            _kernel[(1,)](
                _sent(bytearray(8 * (HEAD + ROW)), index), 1, SIGN, False, True, *TYPES[torch.float32], CHUNK, BLOCK,
                num_warps=WARPS,
            )  # fmt: skip
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


# -- on the device ---------------------------------------------------------------------------------------------------


@triton.jit
def _sign_of(x):  # 0 for nan, as in torch
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


@triton.jit
def _quotient(x, y):  # rounded as torch rounds it, not Triton's faster one
    if x.dtype == tl.float64:
        return x / y
    else:
        return tl.div_rn(x, y)


@triton.jit
def _root(x):
    if x.dtype == tl.float64:
        return tl.sqrt(x)
    else:
        return tl.sqrt_rn(x)


@triton.jit
def _block(
    p, g, m, v, c, at, left,
    step, keep, beta1, rest1, beta2, rest2, eps, scale, bias1, bias2, least,
    RULE: tl.constexpr, COMPENSATED: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    here = at + tl.arange(0, BLOCK)
    mask = here < left if MASKED else None
    grad = tl.load(g + here, mask=mask).to(WIDE)
    if RULE == SIGN:
        u = _sign_of(grad)
    else:
        first = tl.load(m + here, mask=mask).to(WIDE)
        blend = grad * rest1 + first * beta1
        if RULE == LION:
            first = first * beta2 + grad * rest2
            u = _sign_of(blend)
        else:
            first = blend
        if RULE == MOMENTUM_SIGN:
            u = _sign_of(first)
        if RULE == ADAM:
            second = tl.load(v + here, mask=mask).to(WIDE) * beta2 + rest2 * grad * grad
            u = _quotient(_quotient(first, bias1), _root(_quotient(second, bias2)) + eps)
            tl.store(v + here, second.to(v.dtype.element_ty), mask=mask)
        tl.store(m + here, first.to(m.dtype.element_ty), mask=mask)
    u = u * (tl.abs(grad) >= least).to(WIDE)
    # p = (1 - decay) scale p - step u;  c holds what rounding cuts off of p
    w = tl.load(p + here, mask=mask).to(WIDE)
    if COMPENSATED:
        w += tl.load(c + here, mask=mask).to(WIDE)
    w = w * scale * keep - step * u
    rounded = w.to(p.dtype.element_ty)
    tl.store(p + here, rounded, mask=mask)
    if COMPENSATED:
        tl.store(c + here, (w - rounded.to(WIDE)).to(c.dtype.element_ty), mask=mask)


@triton.jit
def _address(word, start, STORED: tl.constexpr, ALIGNED: tl.constexpr):
    pointer = tl.load(word).to(tl.pointer_type(STORED)) + start
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit(do_not_specialize=["count"])
def _kernel(
    buffer, count,
    RULE: tl.constexpr, COMPENSATED: tl.constexpr, ALIGNED: tl.constexpr, STORED: tl.constexpr, WIDE: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    rows = buffer + 16
    program = tl.program_id(0)
    low = program * 0
    high = low + count
    while high - low > 1:  # the last row that begins at this program or before
        middle = (low + high) // 2
        begun = tl.load(rows + middle * 7) <= program
        low = tl.where(begun, middle, low)
        high = tl.where(begun, high, middle)
    row = rows + low * 7
    start = (program - tl.load(row)) * CHUNK  # 64 bits: a tensor may have more than 2^31 entries
    left = tl.minimum(tl.load(row + 1) - start, CHUNK).to(tl.int32)
    p = _address(row + 2, start, STORED, ALIGNED)
    g = _address(row + 3, start, STORED, ALIGNED)
    m = _address(row + 4, start, STORED, ALIGNED)
    v = _address(row + 5, start, STORED, ALIGNED)
    c = _address(row + 6, start, STORED, ALIGNED)
    head = buffer.to(tl.pointer_type(tl.float64))
    step = tl.load(head).to(WIDE)
    keep = tl.load(head + 1).to(WIDE)
    beta1 = tl.load(head + 2).to(WIDE)
    rest1 = tl.load(head + 3).to(WIDE)
    beta2 = tl.load(head + 4).to(WIDE)
    rest2 = tl.load(head + 5).to(WIDE)
    eps = tl.load(head + 6).to(WIDE)
    scale = tl.load(head + 7).to(WIDE)
    bias1 = tl.load(head + 8).to(WIDE)
    bias2 = tl.load(head + 9).to(WIDE)
    least = tl.load(head + 10).to(WIDE)
    for at in range(0, CHUNK, BLOCK):
        if at + BLOCK <= left:  # without a mask, which would keep a thread from moving 16 bytes at once
            _block(
                p, g, m, v, c, at, left, step, keep, beta1, rest1, beta2, rest2, eps, scale, bias1, bias2, least,
                RULE, COMPENSATED, False, WIDE, BLOCK,
            )  # fmt: skip
        elif at < left:
            _block(
                p, g, m, v, c, at, left, step, keep, beta1, rest1, beta2, rest2, eps, scale, bias1, bias2, least,
                RULE, COMPENSATED, True, WIDE, BLOCK,
            )  # fmt: skip
