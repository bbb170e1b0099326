"""The elementwise rules in Triton's language: `step` is one launch over a table of tensors (`emo_hf.kernels.cuda`).

    buffer    the numbers of the step, HEAD words of 8 bytes, then a row for every tensor
    row       first program, entries, addresses of p, g, m, v and c
    program   finds its row by bisection and takes CHUNK entries of that tensor, BLOCK at a time
    found     three sums for every program (`emo_hf.kernels.measuring`), if MEASURED; of NORM, the sum of |g| alone

Numbers travel in float64 and are rounded to the precision of the arithmetic (WIDE), in which the rule is computed;
tensors are STORED in another. Results depend on nothing but the tensors: no sum is by atomic operations.
"""

import triton
import triton.language as tl

SIGN, MOMENTUM_SIGN, LION, ADAM, NORM = (tl.constexpr(i) for i in range(5))
HEAD, ROW = tl.constexpr(16), tl.constexpr(7)
CHUNK, BLOCK, WARPS = 8192, 1024, 4  # 8 entries a thread: 16 bytes of bfloat16


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
    p, g, m, v, c, at, left, following, magnitude, descent,
    size, keep, beta1, rest1, beta2, rest2, eps, scale, bias1, bias2, least, eps_before,
    RULE: tl.constexpr, COMPENSATED: tl.constexpr, MEASURED: tl.constexpr, MASKED: tl.constexpr,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    here = at + tl.arange(0, BLOCK)
    mask = here < left if MASKED else None
    grad = tl.load(g + here, mask=mask, other=0.0 if MASKED else None).to(WIDE)
    if MEASURED:
        magnitude += tl.abs(grad)
    if RULE != NORM:
        if RULE == SIGN:
            u = _sign_of(grad)
        else:
            first = tl.load(m + here, mask=mask, other=0.0 if MASKED else None).to(WIDE)
            blend = grad * rest1 + first * beta1
            if RULE == ADAM:
                second = tl.load(v + here, mask=mask, other=1.0 if MASKED else None).to(WIDE)  # no 0 / 0
                if MEASURED:
                    following += grad * _quotient(first, _root(second) + eps_before)
                second = second * beta2 + rest2 * grad * grad
                u = _quotient(_quotient(blend, bias1), _root(_quotient(second, bias2)) + eps)
                tl.store(v + here, second.to(v.dtype.element_ty), mask=mask)
            if RULE == LION:
                first = first * beta2 + grad * rest2
            else:
                first = blend
            if RULE != ADAM:
                u = _sign_of(blend)
            tl.store(m + here, first.to(m.dtype.element_ty), mask=mask)
        if MEASURED:
            descent += grad * u
        u = u * (tl.abs(grad) >= least).to(WIDE)
        # p = (1 - decay) scale p - step u;  c holds what rounding cuts off of p
        w = tl.load(p + here, mask=mask).to(WIDE)
        if COMPENSATED:
            w += tl.load(c + here, mask=mask).to(WIDE)
        w = w * scale * keep - size * u
        rounded = w.to(p.dtype.element_ty)
        tl.store(p + here, rounded, mask=mask)
        if COMPENSATED:
            tl.store(c + here, (w - rounded.to(WIDE)).to(c.dtype.element_ty), mask=mask)
    return following, magnitude, descent


@triton.jit
def _row_of(rows, count, program):
    """Returns the last row that begins at this program or before."""
    low = program * 0
    high = low + count
    while high - low > 1:
        middle = (low + high) // 2
        begun = tl.load(rows + middle * ROW) <= program
        low = tl.where(begun, middle, low)
        high = tl.where(begun, high, middle)
    return rows + low * ROW


@triton.jit
def _address(word, start, STORED: tl.constexpr, ALIGNED: tl.constexpr):
    pointer = tl.load(word).to(tl.pointer_type(STORED)) + start
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit(do_not_specialize=["count"])
def step(
    buffer, count, found,
    RULE: tl.constexpr, COMPENSATED: tl.constexpr, MEASURED: tl.constexpr, ALIGNED: tl.constexpr,
    STORED: tl.constexpr, WIDE: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    row = _row_of(buffer + HEAD, count, program)
    start = (program - tl.load(row)) * CHUNK  # 64 bits: a tensor may have more than 2^31 entries
    left = tl.minimum(tl.load(row + 1) - start, CHUNK).to(tl.int32)
    p = _address(row + 2, start, STORED, ALIGNED)
    g = _address(row + 3, start, STORED, ALIGNED)
    m = _address(row + 4, start, STORED, ALIGNED)
    v = _address(row + 5, start, STORED, ALIGNED)
    c = _address(row + 6, start, STORED, ALIGNED)
    head = buffer.to(tl.pointer_type(tl.float64))
    size = tl.load(head).to(WIDE)
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
    eps_before = tl.load(head + 11).to(WIDE)
    following = tl.zeros((BLOCK,), WIDE)
    magnitude = tl.zeros((BLOCK,), WIDE)
    descent = tl.zeros((BLOCK,), WIDE)
    for at in range(0, CHUNK, BLOCK):
        if at + BLOCK <= left:  # without a mask, which would keep a thread from moving 16 bytes at once
            following, magnitude, descent = _block(
                p, g, m, v, c, at, left, following, magnitude, descent,
                size, keep, beta1, rest1, beta2, rest2, eps, scale, bias1, bias2, least, eps_before,
                RULE, COMPENSATED, MEASURED, False, WIDE, BLOCK,
            )  # fmt: skip
        elif at < left:
            following, magnitude, descent = _block(
                p, g, m, v, c, at, left, following, magnitude, descent,
                size, keep, beta1, rest1, beta2, rest2, eps, scale, bias1, bias2, least, eps_before,
                RULE, COMPENSATED, MEASURED, True, WIDE, BLOCK,
            )  # fmt: skip
    if MEASURED:
        place = found + program * 3
        tl.store(place, tl.sum(following.to(tl.float64)))
        tl.store(place + 1, tl.sum(magnitude.to(tl.float64)))
        tl.store(place + 2, tl.sum(descent.to(tl.float64)))
