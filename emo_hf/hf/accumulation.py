"""Whether the loss is a mean over the micro-batches of a step, as Trainer takes it to be.

Trainer hands ``num_items_in_batch``, the labels of all micro-batches, to models that take any keyword argument and to
functions of the user's own, and then only adds their losses up. Where the number is not used, as by the classifier of
GPT-2, the sum of the means is differentiated: 4L with four micro-batches, and 2L in a last group of two.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import Trainer

from emo_hf.errors import OptionError

_MOVES = {torch.Tensor.to, torch.Tensor.cuda, torch.Tensor.cpu, torch.Tensor.detach, torch.Tensor.clone}


class Uses(TorchFunctionMode):
    """Notes whether something is computed with a tensor; copies of it on other devices count as the tensor.

    Attributes:
        found: whether it was.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.found = False
        self._same = [tensor]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(one is same for one in (*args, *(kwargs or {}).values()) for same in self._same):
            if func in _MOVES:
                self._same.append(result)
            elif getattr(func, "__name__", "") != "__get__":  # its shape, device or type
                self.found = True
        return result


def watch(trainer: Trainer) -> None:
    """Warns, at the first micro-batch, if `trainer` will add losses up that are means of one micro-batch each."""
    args = trainer.args
    counted = trainer.model_accepts_loss_kwargs or trainer.compute_loss_func is not None
    knob = "loss_is_scaled_for_ga"  # from transformers 5.19 on; before, it is without effect
    adds = counted and not (hasattr(type(trainer), knob) and getattr(trainer, knob) is False)
    if args.gradient_accumulation_steps > 1 and adds and not args.torch_compile and args.n_gpu <= 1:
        its: Any = trainer  # a method may be replaced
        own = vars(trainer).get("compute_loss")
        its.compute_loss = functools.partial(_watch_once, trainer, own, trainer.compute_loss)


def normalize(trainer: Trainer) -> None:
    """Makes Trainer divide the loss of each micro-batch by their number: the objective is the mean of their means."""
    its: Any = trainer
    if trainer.compute_loss_func is not None:
        raise OptionError(
            "normalize_accumulation=True goes with the loss of a model, got a compute_loss_func. It is given"
            " num_items_in_batch, the labels of all micro-batches of a step: divide the sum of your losses by it."
        )
    its.model_accepts_loss_kwargs = False  # so that no model gets a number to divide by as well


def _watch_once(
    trainer: Trainer, own: Callable[..., Any] | None, compute: Callable[..., Any], *args: Any, **kw: Any
) -> Any:
    count = kw.get("num_items_in_batch", args[3] if len(args) > 3 else None)
    if not isinstance(count, torch.Tensor):  # an evaluation
        return compute(*args, **kw)
    its: Any = trainer
    if own is None:
        del its.compute_loss
    else:
        its.compute_loss = own
    with Uses(count) as uses:
        result = compute(*args, **kw)
    if not uses.found:
        warnings.warn(_message(trainer), UserWarning, stacklevel=2)
    return result


def _message(trainer: Trainer) -> str:
    steps = trainer.args.gradient_accumulation_steps
    own = trainer.compute_loss_func is not None
    what = "compute_loss_func" if own else f"The loss of {type(trainer.model).__name__}"
    cure = (
        "Divide the sum of your losses by num_items_in_batch."
        if own
        else "Use EmoTrainer(normalize_accumulation=True), or set trainer.model_accepts_loss_kwargs = False."
    )
    return (
        f"{what} makes no use of num_items_in_batch, so Trainer adds up the losses of the {steps} micro-batches of a"
        " step instead of taking their mean. The optimizer hears that sum, which is smaller where the last group of an"
        f" epoch is shorter, and its step size follows. {cure}"
    )
