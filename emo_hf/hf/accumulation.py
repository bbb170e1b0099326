"""Whether the loss is a mean over the micro-batches of a step, as Trainer takes it to be.

Trainer hands ``num_items_in_batch``, the labels of all micro-batches, to models that take any keyword argument and to
functions of the user's own, and then only adds their losses up. Where the number is not used, as by the classifier of
GPT-2, the sum of the means is differentiated: 4L with four micro-batches, and 2L in a last group of two.
"""

import warnings
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
    watched = isinstance(vars(trainer).get("compute_loss"), _Watch)
    if args.gradient_accumulation_steps > 1 and adds and not (watched or args.torch_compile or args.n_gpu > 1):
        its: Any = trainer  # a method may be replaced
        its.compute_loss = _Watch(trainer)


def unwatch(trainer: Trainer) -> None:
    """Takes `watch` back, also of a copy of the Trainer that it was for."""
    if isinstance(watch := vars(trainer).get("compute_loss"), _Watch):
        watch.leave(trainer)


def normalize(trainer: Trainer) -> None:
    """Makes Trainer divide the loss of each micro-batch by their number: the objective is the mean of their means."""
    its: Any = trainer
    if trainer.compute_loss_func is not None:
        raise OptionError(
            "normalize_accumulation=True goes with the loss of a model, got a compute_loss_func. It is given"
            " num_items_in_batch, the labels of all micro-batches of a step: divide the sum of your losses by it."
        )
    its.model_accepts_loss_kwargs = False  # so that no model gets a number to divide by as well


class _Watch:
    """In the place of ``trainer.compute_loss`` until a micro-batch has told; what wraps it meanwhile stays."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._compute = trainer, trainer.compute_loss
        self._own = vars(trainer).get("compute_loss")
        self._told = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        count = kwargs.get("num_items_in_batch", args[3] if len(args) > 3 else None)
        if self._told or not isinstance(count, torch.Tensor):  # an evaluation
            return self._compute(*args, **kwargs)
        self._told = True
        self.leave(self._trainer)
        with Uses(count) as uses:
            result = self._compute(*args, **kwargs)
        if not uses.found:
            warnings.warn(_message(self._trainer), UserWarning, stacklevel=2)
        return result

    def leave(self, trainer: Trainer) -> None:
        """Gives the method of `trainer` back, unless something wraps it."""
        its = vars(trainer)
        if its.get("compute_loss") is self:
            if self._own is None:
                del its["compute_loss"]
            else:
                its["compute_loss"] = self._own


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
