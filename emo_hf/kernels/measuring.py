"""What a mechanism that measures needs of the gradients, beside the update: three sums over all entries of a group.

    following    <g, u_old>    u_old: the direction of the step before, formed again from the state before the update
    magnitude    sum |g|
    descent      <g, u>        u: the direction of this step, formed again from the state after the update

Here they are passes of their own over the state, for every way to apply an update; a kernel that holds g, m and v in
registers can add them up in its one pass. Sums are of float64, on the device of the tensors; nobody waits for them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from emo_hf.kernels import foreach
from emo_hf.updates import Hyper, TensorState, Update

Lists = tuple[list[Tensor], list[Tensor], list[TensorState]]
Layout = tuple[Any, tuple[Any, ...]]  # mesh and placements of a DTensor


class Sums:
    """The sums of one step.

    Attributes:
        weight: what the tensors to come count: so many times as fast as others they go.
    """

    def __init__(self) -> None:
        self.weight = 1.0
        self._parts: dict[Layout | None, list[Tensor]] = {}  # each of the three sums, of the shards of a layout

    def measure(
        self, run: Callable[..., None], update: Update, lists: Lists, h: Hyper, layout: Layout | None = None
    ) -> None:
        """Applies `update` by `run`, and adds what it tells.

        Args:
            lists: tensors of one device, their gradients and states; of a DTensor the shard that this rank holds.
            layout: how these shards are spread over ranks.
        """
        _, grads, states = lists
        magnitude, earlier = _magnitude(grads), h._replace(age=h.age - 1)
        following = _inner(update, grads, states, earlier) if earlier.age else torch.zeros_like(magnitude)
        run(update, *lists, h)
        self.add(torch.stack((following, magnitude, _inner(update, grads, states, h))), layout)

    def add_magnitude(self, grads: Sequence[Tensor]) -> None:
        """Adds the size of gradients alone."""
        for grad in grads:
            magnitude = _magnitude([grad])
            magnitude = magnitude.full_tensor() if hasattr(magnitude, "full_tensor") else magnitude  # DTensor
            self.add(torch.stack((torch.zeros_like(magnitude), magnitude, torch.zeros_like(magnitude))))

    def add(self, part: Tensor, layout: Layout | None = None) -> None:
        """Adds following, magnitude and descent: a tensor (3,) of float64."""
        self._parts.setdefault(layout, []).append(part * self.weight)

    def total(self, clipped: float | Tensor) -> Tensor | None:
        """Returns the three sums and `clipped`: a tensor (4,) of float64, on the device of the first tensor."""
        if not self._parts:
            return None
        sums = _added([_whole(_added(parts), layout) for layout, parts in self._parts.items()])
        # filled there, not copied from the host: that would wait for the device
        last = clipped.detach().to(sums) if isinstance(clipped, Tensor) else torch.full_like(sums[0], clipped)
        return torch.cat([sums, last.reshape(1)])


def _added(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.to(parts[0].device) for part in parts]).sum(dim=0)


def _whole(part: Tensor, layout: Layout | None) -> Tensor:
    """Returns the sum over all ranks of what each has of the shards of a layout."""
    if layout is None:
        return part
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh, placements = layout
    spread = [Replicate() if placement.is_replicate() else Partial() for placement in placements]
    return DTensor.from_local(part, mesh, spread).full_tensor()


def _magnitude(grads: Sequence[Tensor]) -> Tensor:
    return torch.stack([grad.abs().sum(dtype=torch.float64) for grad in grads]).sum()


def _inner(update: Update, grads: list[Tensor], states: list[TensorState], h: Hyper) -> Tensor:
    """Returns <g, u>."""
    form = update.direction
    assert form is not None
    if grads[0].device.type == "cuda":
        products = torch._foreach_mul(grads, foreach.direction(form, states, h))
        return torch.stack([product.sum(dtype=torch.float64) for product in products]).sum()
    # one by one: no temporary is larger than the largest tensor
    each = [(grad * form(state, h)).sum(dtype=torch.float64) for grad, state in zip(grads, states, strict=True)]
    return torch.stack(each).sum()
