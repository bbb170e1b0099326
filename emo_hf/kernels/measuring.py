"""What a mechanism that measures needs of the gradients, beside the update: three sums over all entries of a group.

    following    <g, u_old>    u_old: the direction of the step before, formed again from the state before the update
    magnitude    sum |g|
    descent      <g, u>        u: the direction of this step, formed again from the state after the update

The kernels in C++ and Triton, which hold g, m and v in registers, add them up in their one pass. Here they are passes
of their own over the state, for every other way to apply an update; they are of float64, stay on the device of the
tensors, and nobody waits for them. Of a tensor that was without a gradient, u_old is the direction of its own last
step.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from emo_hf.kernels import foreach, fused
from emo_hf.updates import Hyper, TensorState, Update

Lists = tuple[list[Tensor], list[Tensor], list[TensorState]]
Layout = tuple[Any, tuple[Any, ...]]  # mesh and placements of a DTensor


class Sums:
    """The three sums of one step.

    Attributes:
        weight: what the tensors to come count: so many times as fast as others they go.
    """

    def __init__(self) -> None:
        self.weight = 1.0
        self._here: list[tuple[float, ...]] = []  # known to the host
        self._there: dict[Layout | None, list[Tensor]] = {}  # of the shards of a layout, on their device

    def measure(
        self, run: Callable[..., None], update: Update, lists: Lists, h: Hyper, layout: Layout | None = None
    ) -> None:
        """Applies `update` by `run`, and adds what it tells.

        Args:
            lists: tensors of one device, their gradients and states; of a DTensor the shard that this rank holds.
            layout: how these shards are spread over ranks.
        """
        portions, earlier = list(_portions(*lists[1:])), h._replace(age=h.age - 1)
        magnitude = _sum(grad.abs() for grads, _ in portions for grad in grads)
        following = _inner(update, portions, earlier) if earlier.age else torch.zeros_like(magnitude)
        run(update, *lists, h)
        self.add_there(following, magnitude, _inner(update, portions, h), layout)

    def add(self, following: float, magnitude: float, descent: float) -> None:
        """Adds what a kernel has measured by itself."""
        self._here.append((following * self.weight, magnitude * self.weight, descent * self.weight))

    def add_magnitude(self, grads: Sequence[Tensor]) -> None:
        """Adds the size of gradients alone."""
        for grad in grads:
            magnitude = _sum([grad.abs()])
            magnitude = magnitude.full_tensor() if hasattr(magnitude, "full_tensor") else magnitude  # DTensor
            self.add_there(torch.zeros_like(magnitude), magnitude, torch.zeros_like(magnitude))

    def add_there(self, following: Tensor, magnitude: Tensor, descent: Tensor, layout: Layout | None = None) -> None:
        """Adds what a kernel has measured by itself, or of a layout's shards, and left on the device."""
        part = torch.stack((following, magnitude, descent)) * self.weight
        self._there.setdefault(layout, []).append(part)

    def close(self) -> bool:
        """Adds up over ranks, which have to do so together; returns whether there was anything."""
        if self._there:
            whole = [_whole(_added(parts), layout) for layout, parts in self._there.items()]
            self._there = {None: [_added(whole)]}
        return bool(self._here or self._there)

    def read(self) -> tuple[float, float, float]:
        """Returns following, magnitude and descent of all that was added, if any; waits for the device."""
        there = [part.tolist() for parts in self._there.values() for part in parts]
        following, magnitude, descent = (sum(parts) for parts in zip(*self._here, *there, strict=True))
        return following, magnitude, descent


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


def _portions(grads: list[Tensor], states: list[TensorState]) -> Iterator[tuple[list[Tensor], list[TensorState]]]:
    """Splits tensors so that temporaries stay in the cache of a CPU; on a GPU few calls count for more."""
    if grads[0].device.type != "cpu":
        yield grads, states
    elif all(
        tensor.is_contiguous() for grad, state in zip(grads, states, strict=True) for tensor in (grad, *state.values())
    ):
        yield from ((pieces, parts) for _, pieces, parts in fused.portions(grads, grads, states))
    else:
        yield from (([grad], [state]) for grad, state in zip(grads, states, strict=True))


def _inner(update: Update, portions: Sequence[tuple[list[Tensor], list[TensorState]]], h: Hyper) -> Tensor:
    """Returns <g, u>."""
    form = update.direction
    assert form is not None
    return _sum(
        product
        for grads, states in portions
        for product in torch._foreach_mul(grads, foreach.direction(form, states, h))
    )


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([tensor.sum(dtype=torch.float64) for tensor in tensors]).sum()
