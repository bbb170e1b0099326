"""What a mechanism that measures needs of the gradients, beside the update: three sums over all entries of a group.

    following    <g, u_old>    u_old: the direction of the step before, formed again from the state before the update
    magnitude    sum |g|
    descent      <g, u>        u: the direction of this step, formed again from the state after the update

Here they are passes of their own over the state, for every way to apply an update; a kernel that holds g, m and v in
registers can add them up in its one pass. Sums are of float64, on the device of the tensors; nobody waits for them.
"""

import torch
from torch import Tensor

from emo_hf.kernels import foreach
from emo_hf.updates import Hyper, TensorState, Update

Lists = tuple[list[Tensor], list[Tensor], list[TensorState]]


class Sums:
    """The sums of one step, group by group. `before` and `after` enclose the update of a group."""

    def __init__(self) -> None:
        self._parts: list[list[Tensor]] = [[], [], []]  # following, magnitude, descent: a part for each tensor
        self._weights: list[float] = []  # of the group of each part

    def magnitude(self, weight: float, grads: list[Tensor]) -> None:
        """Adds the size of gradients alone."""
        sizes = [grad.abs().sum(dtype=torch.float64) for grad in grads]
        zeros = [torch.zeros_like(size) for size in sizes]
        self._add(weight, zeros, sizes)
        self._parts[2] += zeros

    def before(self, weight: float, update: Update, lists: Lists, h: Hyper) -> None:
        """Adds what the state before the update tells of a group that goes `weight` times as fast as others."""
        _, grads, states = lists
        sizes = [grad.abs().sum(dtype=torch.float64) for grad in grads]
        earlier = h._replace(age=h.age - 1)
        followed = _inner(update, grads, states, earlier) if earlier.age else [torch.zeros_like(s) for s in sizes]
        self._add(weight, followed, sizes)

    def after(self, update: Update, lists: Lists, h: Hyper) -> None:
        """Adds what the state after the update tells of the same group."""
        self._parts[2] += _inner(update, *lists[1:], h)

    def _add(self, weight: float, followed: list[Tensor], sizes: list[Tensor]) -> None:
        self._parts[0] += followed
        self._parts[1] += sizes
        self._weights += [weight] * len(sizes)

    def total(self, clipped: float | Tensor) -> Tensor | None:
        """Returns the three sums and `clipped` as one tensor of float64, on the device of the first part."""
        if not self._weights:
            return None
        whole = [[_whole(part) for part in parts] for parts in self._parts]
        device = whole[0][0].device
        table = torch.stack([torch.stack([part.to(device) for part in parts]) for parts in whole])
        weights = torch.tensor(self._weights, dtype=torch.float64, device=device)
        last = torch.as_tensor(clipped, dtype=torch.float64, device=device).reshape(1)
        return torch.cat([table @ weights, last])


def _whole(part: Tensor) -> Tensor:
    return part.full_tensor() if hasattr(part, "full_tensor") else part  # DTensor


def _inner(update: Update, grads: list[Tensor], states: list[TensorState], h: Hyper) -> list[Tensor]:
    """Returns <g, u> of every tensor."""
    form = update.direction
    assert form is not None
    if grads and all(grad.device.type == "cuda" and not hasattr(grad, "to_local") for grad in grads):
        products = torch._foreach_mul(grads, foreach.direction(form, states, h))
        return [product.sum(dtype=torch.float64) for product in products]
    # one by one: no temporary is larger than the largest tensor
    return [(grad * form(state, h)).sum(dtype=torch.float64) for grad, state in zip(grads, states, strict=True)]
