"""From one tensor to a model: five ways to apply an update rule, all held to the rule itself by tests.

    forloop    the rule of `emo_hf.updates`, tensor by tensor
    foreach    the rule, over lists of tensors
    fused      our own kernel: in C++ on a CPU (`native`), in Triton on CUDA (`cuda`); else torch's fused kernels, and
               portions that fit a CPU's cache
    compile    the rule, by torch.compile (opt-in: the first step takes seconds)
    auto       fused on a CPU, with the C++ kernel where there is one, but builds none; on CUDA fused where a kernel
               fits the rule, else foreach; elsewhere forloop

auto is the default. forloop alone is the released trajectory to the last bit.

Tensors that a list cannot take (strided, or of another dtype than their gradient) go one by one in every way. Of a
DTensor, an elementwise rule takes the local shard.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from emo_hf.errors import EmoError
from emo_hf.kernels import compensation, compiled, foreach, fused, native
from emo_hf.kernels.measuring import Layout, Sums
from emo_hf.updates import Hyper, TensorState, Update

ApplyUpdate = Callable[[Update, list[Tensor], list[Tensor], list[TensorState], Hyper], None]
Lists = tuple[list[Tensor], list[Tensor], list[TensorState]]


def loop(update: Update, params: list[Tensor], grads: list[Tensor], states: list[TensorState], h: Hyper) -> None:
    """Applies `update` to any tensors, one by one."""
    for tensors in zip(params, grads, states, strict=True):
        update.apply(*tensors, h)


RUNS: dict[str, ApplyUpdate] = {"fused": fused.run, "foreach": foreach.run, "forloop": loop, "compile": compiled.run}
Implementation = Literal["auto", "fused", "foreach", "forloop", "compile"]
IMPLEMENTATIONS: tuple[str, ...] = get_args(Implementation)


def apply(
    implementation: str, update: Update, lists: Lists, h: Hyper, scale: float = 1.0, sums: Sums | None = None
) -> None:
    """Applies `update` to the tensors of a parameter group, in place.

    Args:
        implementation: one of `IMPLEMENTATIONS`.
        update: the rule.
        lists: parameters, their gradients and their states, of equal length.
        h: the numbers of this step.
        scale: the parameters are multiplied by it first.
        sums: get what this step tells, for a mechanism that measures.
    """
    if implementation in ("auto", "fused"):
        lists = native.run(update, lists, h, scale, sums, build=implementation == "fused")
        lists = _on_gpu(update, lists, h, scale, sums)
    if scale != 1 and lists[0]:
        compensation.scale_(lists[0], lists[2], scale)
    for kind, batch in _batches(implementation, update, *lists):
        if sums is None:
            kind.run(update, *batch, h)
        else:
            sums.measure(kind.run, update, batch, h, kind.layout)


def _on_gpu(update: Update, lists: Lists, h: Hyper, scale: float, sums: Sums | None) -> Lists:
    """Applies `update` to what our Triton kernel can take, and returns the rest."""
    kernel = triton_kernel(lists[0])
    if kernel is None:
        return lists
    places: dict[Layout | None, list[int]] = {}
    for i, param in enumerate(lists[0]):
        sharded = update.elementwise and hasattr(param, "to_local")
        places.setdefault(_layout(param) if sharded else None, []).append(i)
    left: list[int] = []
    for layout, chosen in places.items():
        part = native.pick(lists, chosen)
        if layout is not None:
            params, grads, states = zip(*map(_local, *part), strict=True)
            part = list(params), list(grads), list(states)
        left += [chosen[i] for i in kernel.run(update, part, h, scale, sums, layout)]
    return native.pick(lists, left)


def triton_kernel(params: Sequence[Tensor]) -> Any:
    """Returns `emo_hf.kernels.cuda` if any of `params` is for it; not without Triton, nor where EMO_HF_NATIVE is 0."""
    if os.environ.get("EMO_HF_NATIVE") == "0" or not any(param.is_cuda for param in params):
        return None
    return _imported()


@functools.cache
def _imported() -> Any:
    try:
        from emo_hf.kernels import cuda
    except ImportError:
        return None
    return cuda


def l1_norm(implementation: str, params: Sequence[Tensor]) -> float | None:
    """Returns the sum of |p| over all entries, if this way has one of its own."""
    if implementation in ("forloop", "foreach"):
        return None
    if (kernel := triton_kernel(params)) is not None:
        return kernel.l1_norm(params)
    return native.l1_norm(params, build=implementation == "fused")


class _Kind(NamedTuple):
    """What tensors that go together have in common."""

    run: ApplyUpdate  # the way they go
    regular: bool
    device: torch.device
    dtype: torch.dtype
    dim: int
    layout: Layout | None  # of DTensors whose shards go


def _batches(
    implementation: str, update: Update, params: list[Tensor], grads: list[Tensor], states: list[TensorState]
) -> Iterator[tuple[_Kind, Lists]]:
    batches: dict[_Kind, Lists] = {}
    for param, grad, state in zip(params, grads, states, strict=True):
        layout = None
        if update.elementwise and hasattr(param, "to_local"):
            layout = _layout(param)
            param, grad, state = _local(param, grad, state)
        kind = _kind(implementation, update, layout, param, grad, state)
        batch = batches.setdefault(kind, ([], [], []))
        batch[0].append(param)
        batch[1].append(grad)
        batch[2].append(state)
    yield from batches.items()


def _kind(
    implementation: str, update: Update, layout: Layout | None, param: Tensor, grad: Tensor, state: TensorState
) -> _Kind:
    regular = _is_regular(update, param, grad, state)
    run: ApplyUpdate
    if compensation.KEY in state:
        run = compensation.run
    elif not regular:
        run = loop
    elif implementation == "auto":
        run = RUNS[_auto(update, param.device.type)]
    elif implementation == "fused" and param.device.type not in fused.DEVICES:
        run = foreach.run
    else:
        run = RUNS[implementation]
    return _Kind(run, regular, param.device, param.dtype, param.dim(), layout)


def _auto(update: Update, device: str) -> str:
    if device == "cuda":
        return "fused" if update.apply in fused.LISTS else "foreach"
    return "fused" if device == "cpu" else "forloop"


def _is_regular(update: Update, param: Tensor, grad: Tensor, state: TensorState) -> bool:
    """Tells whether a list can take the tensors. Fused operators trust the shapes of what they are given.

    Raises:
        EmoError: a tensor has another shape than the rule makes for `param`.
    """
    regular = not hasattr(param, "to_local")
    for tensor in (grad, *state.values()):
        if update.elementwise and tensor.shape != param.shape:
            raise _another_shape(param, grad, state)
        regular = regular and tensor.dtype is param.dtype and tensor.is_contiguous()
    return regular and param.is_contiguous()


def _another_shape(param: Tensor, grad: Tensor, state: TensorState) -> EmoError:
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in {"gradient": grad, **state}.items())
    return EmoError(
        f"A parameter of shape {tuple(param.shape)} has tensors of another shape: {shapes}. Its shape was changed"
        " after its first step, or its state was. Build the optimizer anew after changing the model."
    )


def _layout(param: Any) -> Layout:
    """Returns how the shards of a DTensor are spread over ranks."""
    return param.device_mesh, param.placements


def _local(param: Any, grad: Any, state: Mapping[str, Any]) -> tuple[Tensor, Tensor, TensorState]:
    """Returns the shards of DTensors that this rank holds; they are views."""
    if grad.placements != param.placements:
        grad = grad.redistribute(placements=param.placements)
    return param.to_local(), grad.to_local(), {name: tensor.to_local() for name, tensor in state.items()}
