"""Fact 3.6, Airy 3.7.0 and later and Void keep no state, and still take the released code's steps.

The released Fact and Airy divide the gradient by a factored root mean square before they take the sign. The divisor
is positive, so the sign is the gradient's. Where floating point says otherwise is declared by the last tests.
"""

import pytest
import torch

from emo_hf import registry, updates

STATELESS = [row for row in registry.specs() if row.update is updates.SIGN]
FACTORED = [row for row in STATELESS if row.name != "emovoid"]
SHAPES = [(7, 5), (1, 6), (6, 1), (3, 4, 2), (2, 3, 1, 2), (5,), (1,), ()]
BETA1, BETA2, EPS = 0.9, 0.995, 1e-8


class Released:
    """The direction of the released code for one tensor.

    `squares` False: 3.6 to 3.7, averages of roots by beta1 (Fact 3.6, Airy 3.7.0 and 3.7).
    `squares` True: 3.8 and 3.9, averages of squares by beta2.
    """

    def __init__(self, squares: bool):
        self.squares = squares
        self.row = self.column = self.square = 0.0

    def __call__(self, grad: torch.Tensor) -> torch.Tensor:
        beta = BETA2 if self.squares else BETA1
        if grad.dim() < 2:
            self.square = beta * self.square + (1 - BETA2) * grad * grad
            denominator = self.square.sqrt() + EPS
        else:
            row = (grad * grad).mean(dim=tuple(range(1, grad.dim())), keepdim=True)
            column = (grad * grad).mean(dim=0, keepdim=True)
            if not self.squares:
                row, column = (row + EPS).sqrt(), (column + EPS).sqrt()
            self.row = beta * self.row + (1 - beta) * row
            self.column = beta * self.column + (1 - beta) * column
            denominator = (self.row * self.column).sqrt() + EPS
        return (grad / denominator).sign()


def is_of_squares(row) -> bool:
    return row.version in ("3.8", "3.9")


def ours(row, grads: list[torch.Tensor]):
    """Yields the direction our optimizer takes for each gradient: its move from 0, divided by the step size."""
    param = torch.nn.Parameter(torch.zeros_like(grads[0]))
    optimizer = registry.build(row.key, [param], **({} if "weight_decay" in row.dead else {"weight_decay": 0.0}))
    for t, grad in enumerate(grads):
        with torch.no_grad():
            param.zero_()
        param.grad = grad
        optimizer.step(loss=1.0 + 0.1 * (t % 3))
        assert not optimizer.state[param]
        yield -param.detach() / torch.tensor(optimizer.effective_lr, dtype=grad.dtype)


def random_gradients(shape: tuple, dtype: torch.dtype, decades: float, steps: int = 60) -> list[torch.Tensor]:
    """Normal numbers times 10 ** U(-decades, decades), element by element; a fifth of them are exactly 0."""
    generator = torch.Generator().manual_seed(len(shape))
    size, exact = (steps, *shape), {"generator": generator, "dtype": torch.float64}
    exponent = (2 * torch.rand(size, **exact) - 1) * decades
    grads = torch.randn(size, **exact) * 10**exponent
    return list(grads.masked_fill(torch.rand(size, **exact) < 0.2, 0.0).to(dtype))


def test_these_keep_no_state():
    keys = "emofact-3.6 emoairy-3.7.0 emoairy-3.7 emoairy-3.8 emoairy-3.9 emovoid-3.9"
    assert [row.key for row in STATELESS] == keys.split()
    assert all(row.state_ratio == 0 for row in STATELESS)


@pytest.mark.parametrize(("dtype", "decades"), [(torch.float32, 8), (torch.float64, 60)], ids=["float32", "float64"])
@pytest.mark.parametrize("row", FACTORED, ids=lambda row: row.key)
def test_the_sign_is_that_of_the_released_factored_direction(row, dtype, decades):
    for shape in SHAPES:
        grads = random_gradients(shape, dtype, decades)
        released = Released(is_of_squares(row))
        for grad, direction in zip(grads, ours(row, grads), strict=True):
            assert torch.equal(direction, released(grad)), (shape, grad)


def test_void_takes_the_sign_of_the_gradient():
    row = registry.find("emovoid")
    for shape in SHAPES:
        grads = random_gradients(shape, torch.float32, decades=30)
        for grad, direction in zip(grads, ours(row, grads), strict=True):
            assert torch.equal(direction, grad.sign()), (shape, grad)


# -- declared exceptions of the released formula, which are not copied -----------------------------------------------


@pytest.mark.parametrize("row", FACTORED, ids=lambda row: row.key)
def test_released_code_loses_gradients_in_the_denormal_range(row):
    grads = [torch.tensor([[1e-44, 1e6], [1e6, 1e6]])]
    assert Released(is_of_squares(row))(grads[0]).tolist() == [[0.0, 1.0], [1.0, 1.0]]
    assert next(ours(row, grads)).tolist() == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("bad", [torch.inf, torch.nan, 1e20], ids=["inf", "nan", "overflowing square"])
@pytest.mark.parametrize("row", FACTORED, ids=lambda row: row.key)
def test_one_bad_gradient_freezes_its_row_and_column_in_the_released_code_only(row, bad):
    spoiled = torch.ones(3, 3)
    spoiled[0, 0] = bad
    grads = [spoiled] + [torch.ones(3, 3)] * 200
    released = Released(is_of_squares(row))
    last = [released(grad) for grad in grads][-1]
    frozen = last.isnan() | (last == 0)
    assert frozen.tolist() == [[True, True, True], [True, False, False], [True, False, False]]
    assert all(direction.eq(1).all() for direction in list(ours(row, grads))[1:])


@pytest.mark.parametrize("row", FACTORED, ids=lambda row: row.key)
def test_released_3_8_and_3_9_stand_still_while_the_product_of_their_averages_overflows(row):
    grads = [torch.full((2, 2), 1e11)]
    assert Released(is_of_squares(row))(grads[0]).eq(0).all() == is_of_squares(row)
    assert next(ours(row, grads)).eq(1).all()
