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
    """The sums of one step, group by group. `before` and `after` enclose the update of a group.

    A group that goes `weight` times as fast as others counts that much.
    """

    def __init__(self) -> None:
        self._following: list[Tensor] = []  # one for each tensor, and so on
        self._magnitude: list[Tensor] = []
        self._descent: list[Tensor] = []

    def magnitude(self, weight: float, grads: list[Tensor]) -> None:
        """Adds the size of gradients alone."""
        sizes = [weight * grad.abs().sum(dtype=torch.float64) for grad in grads]
        self._magnitude += sizes
        self._following += (zeros := [torch.zeros_like(size) for size in sizes])
        self._descent += zeros

    def before(self, weight: float, update: Update, lists: Lists, h: Hyper) -> None:
        """Adds what the state before the update tells."""
        _, grads, states = lists
        sizes = [weight * grad.abs().sum(dtype=torch.float64) for grad in grads]
        earlier = h._replace(age=h.age - 1)
        self._magnitude += sizes
        if earlier.age:
            self._following += [weight * product for product in _inner(update, grads, states, earlier)]
        else:
            self._following += [torch.zeros_like(size) for size in sizes]

    def after(self, weight: float, update: Update, lists: Lists, h: Hyper) -> None:
        """Adds what the state after the update tells of the same group."""
        self._descent += [weight * product for product in _inner(update, *lists[1:], h)]

    def total(self, clipped: float | Tensor) -> Tensor | None:
        """Returns the three sums and `clipped` as one tensor of float64, on the device of the first tensor."""
        parts = [_whole(part) for part in (*self._following, *self._magnitude, *self._descent)]
        if not parts:
            return None
        device = parts[0].device
        sums = torch.stack([part.to(device) for part in parts]).view(3, -1).sum(dim=1)
        # filled there, not copied from the host: that would wait for the device
        last = clipped.detach().to(sums) if isinstance(clipped, Tensor) else torch.full_like(sums[0], clipped)
        return torch.cat([sums, last.reshape(1)])


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
