"""What importing emo_hf changes in transformers and accelerate, when, and how it is undone.

    once it has been executed    changes                                                      unless
    transformers.trainer_utils   "emopulse" is an ``lr_scheduler_type``                       EMO_HF_REGISTER=0
    transformers.optimization    ``get_scheduler`` builds an `EmoPulse` for it                EMO_HF_REGISTER=0
    transformers.training_args   every name of the registry is an ``optim``                   EMO_HF_REGISTER=0
                                 ``TrainingArguments`` refuses wrong options of these         EMO_HF_PATCH=0
    transformers.trainer         Trainer builds our optimizers for these names                EMO_HF_REGISTER=0
                                 ``Trainer.create_optimizer`` connects them to the loss       EMO_HF_PATCH=0
                                 ``Trainer.train`` refuses another optimizer in their place   EMO_HF_PATCH=0
    accelerate.accelerator       ``Accelerator.prepare`` does so in other loops               EMO_HF_PATCH=0

transformers has no registration API. A name becomes a genuine member of the enumeration of such names; from 5.2 on, a
table takes the function that builds the optimizer; before, ``Trainer.get_optimizer_cls_and_kwargs`` is wrapped once.

``import emo_hf`` must not import transformers, which a loop of one's own does without, and may come before it or after
it. So `emo_hf.hf.loading` makes each change right after the module was executed, and each change imports nothing else
of transformers before it is used: modules of transformers import each other half-way.
"""

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from emo_hf.errors import RegistrationError
from emo_hf.hf import loading
from emo_hf.hf.names import add_members, remove_members

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from transformers import Trainer, TrainingArguments

    from emo_hf.scheduler import EmoPulse

_getter: list[Any] = []  # our Trainer.get_optimizer_cls_and_kwargs and the staticmethod it replaces


def register() -> None:
    """Registers the ``optim`` and scheduler names and wraps the methods above; ``import emo_hf`` calls it.

    What of transformers is not loaded yet is changed when it is. Calling it again changes nothing.

    Environment: ``EMO_HF_PATCH=0`` leaves the methods alone (use `EmoTrainer`, `attach` or
    `EmotionCallback`); ``EMO_HF_REGISTER=0`` leaves the names out.

    Raises:
        RegistrationError: transformers has moved the private names this relies on. If it is not loaded yet, its own
            import raises this.
    """
    changes: dict[str, list[Callable[[], None]]] = {}
    for change in CHANGES:
        if os.environ.get(change.switch) != "0":
            changes.setdefault(change.module, []).append(change.make)
    loading.act_after({module: functools.partial(_make, makes) for module, makes in changes.items()})


def unregister() -> None:
    """Leaves transformers and accelerate as they were before `register`; `EmoTrainer` and `attach` still work.

    What another package has wrapped since stays in place. Calling it again changes nothing.
    """
    loading.forget()
    for change in reversed(CHANGES):
        if change.module in sys.modules:
            change.undo()


def _trainer_class() -> Any:
    """Trainer as what it is here: a class whose methods may be replaced."""
    from transformers.trainer import Trainer

    return Trainer


def _make(changes: Iterable[Callable[[], None]]) -> None:
    for change in changes:
        change()


# -- the optimizers ---------------------------------------------------------------------------------------------------


def add_optim_names() -> None:
    with _refusing("optim names", "instead of optim='emosens' use Trainer(optimizer_cls_and_kwargs=(EmoSens, {}))"):
        import torch
        from transformers.training_args import OptimizerNames

        from emo_hf import registry

        add_members(OptimizerNames, registry.names())
        # training_args.bin holds a name as the string that it is, which torch.load(weights_only=True) must know
        torch.serialization.add_safe_globals([str])


def remove_optim_names() -> None:
    from transformers.training_args import OptimizerNames

    from emo_hf import registry

    remove_members(OptimizerNames, registry.names())


def add_optimizers() -> None:
    """Tells Trainer how to build the optimizer of each name."""
    from emo_hf import registry

    with _refusing("optim names", "instead of optim='emosens' use Trainer(optimizer_cls_and_kwargs=(EmoSens, {}))"):
        try:
            from transformers import trainer_optimizer
        except ImportError:  # transformers < 5.2: an if-chain inside a static method
            wrap_getter(frozenset(registry.names()))
            return
        for name in registry.names():
            trainer_optimizer._OPTIMIZER_HANDLERS[name] = _build_optimizer


def remove_optimizers() -> None:
    from emo_hf import registry

    try:
        from transformers import trainer_optimizer
    except ImportError:
        unwrap_getter()
        return
    for name in registry.names():
        if trainer_optimizer._OPTIMIZER_HANDLERS.get(name) is _build_optimizer:
            del trainer_optimizer._OPTIMIZER_HANDLERS[name]


def _build_optimizer(context: Any) -> tuple[type, dict[str, Any]]:
    from emo_hf.hf.optim import class_and_kwargs

    return class_and_kwargs(context.args)


def wrap_getter(names: frozenset[str]) -> None:
    """Does for transformers < 5.2 what its table does later."""
    from transformers.training_args import OptimizerNames

    trainer_class = _trainer_class()
    original = trainer_class.get_optimizer_cls_and_kwargs
    if hasattr(original, "emo_hf_wraps"):  # also if another package has wrapped ours, with functools.wraps
        return

    def get_optimizer_cls_and_kwargs(args: "TrainingArguments", *rest: Any, **kwargs: Any) -> tuple[Any, Any]:
        from emo_hf.hf.optim import class_and_kwargs

        if OptimizerNames(args.optim).value in names:
            return class_and_kwargs(args)
        return original(args, *rest, **kwargs)

    ours: Any = functools.wraps(original)(get_optimizer_cls_and_kwargs)
    ours.emo_hf_wraps = original
    _getter[:] = ours, vars(trainer_class)["get_optimizer_cls_and_kwargs"]
    trainer_class.get_optimizer_cls_and_kwargs = staticmethod(ours)


def unwrap_getter() -> None:
    """Undoes `wrap_getter`, unless another package has wrapped the method since."""
    trainer_class = _trainer_class()
    if trainer_class.get_optimizer_cls_and_kwargs in _getter[:1]:
        trainer_class.get_optimizer_cls_and_kwargs = _getter[1]


# -- the schedule -----------------------------------------------------------------------------------------------------


def add_schedule_name() -> None:
    with _refusing("lr_scheduler_type", "pass Trainer(optimizers=(optimizer, emo_hf.EmoPulse(optimizer)))"):
        from transformers.trainer_utils import SchedulerType

        from emo_hf.scheduler import NAME

        add_members(SchedulerType, [NAME])


def remove_schedule_name() -> None:
    from transformers.trainer_utils import SchedulerType

    from emo_hf.scheduler import NAME

    remove_members(SchedulerType, [NAME])


def add_schedule() -> None:
    """Tells ``get_scheduler`` how to build an `EmoPulse`."""
    with _refusing("lr_scheduler_type", "pass Trainer(optimizers=(optimizer, emo_hf.EmoPulse(optimizer)))"):
        from transformers import optimization

        from emo_hf.scheduler import NAME

        table: dict[Any, Any] = optimization.TYPE_TO_SCHEDULER_FUNCTION  # a member is equal to its string
        table[NAME] = _build_schedule


def remove_schedule() -> None:
    from transformers import optimization

    from emo_hf.scheduler import NAME

    table: dict[Any, Any] = optimization.TYPE_TO_SCHEDULER_FUNCTION
    if table.get(NAME) is _build_schedule:
        del table[NAME]


def _build_schedule(
    optimizer: "torch.optim.Optimizer", num_warmup_steps: int, num_training_steps: int, **options: Any
) -> "EmoPulse":
    """The pulse has no end to plan for: ``num_training_steps`` does not matter."""
    from emo_hf.scheduler import EmoPulse

    return EmoPulse(optimizer, warmup_steps=num_warmup_steps, **options)


# -- the loss ---------------------------------------------------------------------------------------------------------


def connecting(create: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the method ``create`` of a Trainer, followed by `emo_hf.hf.trainer.attach_feed`."""

    @functools.wraps(create)
    def create_optimizer(self: "Trainer", *args: Any, **kwargs: Any) -> Any:
        from emo_hf.hf.trainer import attach_feed

        optimizer = create(self, *args, **kwargs)
        attach_feed(self)
        return optimizer

    return create_optimizer


def expecting(train: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the method ``train`` of a Trainer, preceded by `emo_hf.hf.trainer.expect_optimizer`."""

    @functools.wraps(train)
    def expect_and_train(self: "Trainer", *args: Any, **kwargs: Any) -> Any:
        from emo_hf.hf.trainer import expect_optimizer

        expect_optimizer(self)
        return train(self, *args, **kwargs)

    return expect_and_train


def feeding(prepare: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the method ``prepare`` of an Accelerator, followed by `emo_hf.hf.loops.feed`."""

    @functools.wraps(prepare)
    def prepare_and_feed(self: "Accelerator", *args: Any, **kwargs: Any) -> Any:
        from emo_hf.hf import loops

        result = prepare(self, *args, **kwargs)
        loops.feed(self)
        return result

    return prepare_and_feed


def checking(finish: Callable[..., None]) -> Callable[..., None]:
    """Returns the method ``finish`` of TrainingArguments, followed by `emo_hf.hf.optim.check`."""

    @functools.wraps(finish)
    def finish_and_check(self: "TrainingArguments", *args: Any, **kwargs: Any) -> None:
        from emo_hf.hf.arguments import EmoArgumentsMixin
        from emo_hf.hf.optim import check

        finish(self, *args, **kwargs)
        if not isinstance(self, EmoArgumentsMixin):  # which checks its own fields as well
            check(self)

    return finish_and_check


class MethodWrap:
    """A method of a class elsewhere, with something of ours around it; where it was wrapped again since, that stays.

    Args:
        module, owner, method: which one.
        around: takes the method, returns the one that replaces it.
    """

    def __init__(self, module: str, owner: str, method: str, around: Callable[..., Any]) -> None:
        self.module, self.owner, self.method, self.around = module, owner, method, around
        self.pair: tuple[Callable[..., Any], ...] = ()  # ours and the one it replaces, once they are known

    def install(self) -> None:
        owner = self._owner()
        if not self.pair:
            original = getattr(owner, self.method)
            self.pair = self.around(original), original
        ours, original = self.pair
        if getattr(owner, self.method) is original:
            setattr(owner, self.method, ours)

    @property
    def is_installed(self) -> bool:
        return bool(self.pair) and getattr(self._owner(), self.method) is self.pair[0]

    def remove(self) -> None:
        owner = self._owner()
        if getattr(owner, self.method) in self.pair[:1]:
            setattr(owner, self.method, self.pair[1])

    def _owner(self) -> type:
        owner: type = getattr(importlib.import_module(self.module), self.owner)
        return owner


ARGUMENTS = MethodWrap("transformers.training_args", "TrainingArguments", "__post_init__", checking)
CREATE_OPTIMIZER = MethodWrap("transformers.trainer", "Trainer", "create_optimizer", connecting)
TRAIN = MethodWrap("transformers.trainer", "Trainer", "train", expecting)
PREPARE = MethodWrap("accelerate.accelerator", "Accelerator", "prepare", feeding)


# -- all of them ------------------------------------------------------------------------------------------------------


@contextmanager
def _refusing(what: str, instead: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        raise RegistrationError(
            f"The installed transformers does not accept a new {what} ({type(error).__name__}: {error}). Install a"
            f" supported transformers; or set EMO_HF_REGISTER=0, which leaves our names out, and {instead}."
        ) from error


class Change(NamedTuple):
    """One change of a module elsewhere; `switch` is the environment variable that leaves it out."""

    module: str
    make: Callable[[], None]
    undo: Callable[[], None]
    switch: str = "EMO_HF_REGISTER"


CHANGES = (
    Change("transformers.trainer_utils", add_schedule_name, remove_schedule_name),
    Change("transformers.optimization", add_schedule, remove_schedule),
    Change("transformers.training_args", add_optim_names, remove_optim_names),
    Change("transformers.trainer", add_optimizers, remove_optimizers),
    Change(ARGUMENTS.module, ARGUMENTS.install, ARGUMENTS.remove, "EMO_HF_PATCH"),
    Change(CREATE_OPTIMIZER.module, CREATE_OPTIMIZER.install, CREATE_OPTIMIZER.remove, "EMO_HF_PATCH"),
    Change(TRAIN.module, TRAIN.install, TRAIN.remove, "EMO_HF_PATCH"),
    Change(PREPARE.module, PREPARE.install, PREPARE.remove, "EMO_HF_PATCH"),
)


def install_patches() -> None:
    """Makes the changes that ``EMO_HF_PATCH=0`` leaves out."""
    for change in CHANGES:
        if change.switch == "EMO_HF_PATCH":
            change.make()


def remove_patches() -> None:
    """Undoes `install_patches`: no class is wrapped, the names stay."""
    for change in CHANGES:
        if change.switch == "EMO_HF_PATCH":
            change.undo()
