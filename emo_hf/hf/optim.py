"""The ``optim`` string: ``TrainingArguments(optim="emosens")``, or pinned to a version, ``optim="emosens-3.9"``.

`emo_hf.hf.registration` makes transformers accept the name. What reaches the optimizer, the strongest first:

    optim_args="stopcoef=0.1,use_shadow=true,beta2=0.99"      names and types of the registry spec's options
    emo_stopcoef=0.1, ...                                     the same of `EmoTrainingArguments`; not both
    learning_rate, adam_beta1, adam_beta2, adam_epsilon       where they differ from the defaults of type(args)
    the registry spec's own defaults

Trainer sets the weight decay of every parameter group (``TrainingArguments.weight_decay``).
"""

import functools
import inspect
import logging
from dataclasses import fields
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from emo_hf import registry
from emo_hf.errors import OptionError, did_you_mean
from emo_hf.registry import names
from emo_hf.scheduler import NAME
from emo_hf.spec import OptimizerSpec

logger = logging.getLogger(__name__)

# fields of TrainingArguments -> options of a registry spec
FIELDS = {"learning_rate": "lr", "adam_beta1": "beta1", "adam_beta2": "beta2", "adam_epsilon": "eps"}

# fields of EmoTrainingArguments that are options of a registry spec
EMO_FIELDS = ("emo_version", "emo_use_shadow", "emo_stopcoef", "emo_branch", "emo_on_nonfinite_loss")


def class_and_kwargs(args: TrainingArguments) -> tuple[type, dict[str, Any]]:
    """Returns the optimizer class that ``args.optim`` names and its keyword arguments.

    Raises:
        OptionError: ``args.optim_args`` or an ``emo_*`` field holds an unknown option or a value of the wrong type.
        UnknownOptimizerError: they ask for a version that does not exist.
    """
    spec, written = _read_options(args)
    fields_set = _set_fields(args)
    chosen = {**_from_fields(fields_set, spec), **written}
    # always given: who makes groups of other rates (LoRA+, embeddings) asks for it
    chosen.setdefault("lr", spec.trainer_lr or spec.options["lr"])
    if args.process_index == 0:
        _advise(args, spec, fields_set)
    return registry.optimizer_class(spec.name), {"version": spec.version, **_with_tuples(spec, chosen)}


def check(args: TrainingArguments) -> None:
    """Raises what `class_and_kwargs` would, before there is a model; and if ``emo_*`` options are without effect."""
    name, given = OptimizerNames(args.optim).value, _emo_options(args)
    if name in names():
        spec, written = _read_options(args)
        spec.resolve(_with_tuples(spec, {**_from_fields(_set_fields(args), spec), **written}))
        if args.lr_scheduler_type == NAME:
            raise OptionError(
                f"optim={name!r} got lr_scheduler_type={NAME!r}, but it sets its own step size by the loss: use"
                " lr_scheduler_type='constant', or optim='adamw_torch' with this schedule."
            )
    elif given:
        raise OptionError(
            f"{_spell(given)}: no effect with optim={name!r}, which no emotion drives. Remove it, or choose one of "
            f"{', '.join(registry.families())}. (Under lr_scheduler_type='emopulse', use lr_scheduler_kwargs.)"
        )


def _emo_options(args: TrainingArguments) -> dict[str, Any]:
    """Returns option -> value of the ``emo_*`` fields that are set; a plain TrainingArguments has none."""
    values = {name.removeprefix("emo_"): getattr(args, name, None) for name in EMO_FIELDS}
    return {name: value for name, value in values.items() if value is not None}


def _spell(given: dict[str, Any]) -> str:
    return ", ".join(f"emo_{name}={value!r}" for name, value in given.items())


def _read_options(args: TrainingArguments) -> tuple[OptimizerSpec, dict[str, Any]]:
    """Returns the spec that ``args`` name, and the options written for it in ``optim_args`` and ``emo_*`` fields."""
    texts, given = _parse(args.optim_args), _emo_options(args)
    if twice := {name: value for name, value in given.items() if name in texts}:
        raise OptionError(
            f"{_spell(twice)} and optim_args={args.optim_args!r} set the same option: keep one of the two."
        )
    versions = [options.pop("version") for options in (texts, given) if "version" in options]
    spec = _find_spec(OptimizerNames(args.optim).value, *versions)
    settable = _settable(spec)
    if unknown := {name: value for name, value in given.items() if name not in settable}:
        raise OptionError(
            f"{_spell(unknown)}: {spec.key} has no such option. Its options: {', '.join(sorted(settable))}. "
            "Remove it, or choose another optim or emo_version."
        )
    return spec, {**given, **{name: _typed(spec, settable, name, text) for name, text in texts.items()}}


def _parse(optim_args: str | None) -> dict[str, str]:
    given = {}
    for item in filter(None, (optim_args or "").replace(" ", "").split(",")):
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise OptionError(f"optim_args={optim_args!r}: got {item!r}, expected name=value pairs joined by commas.")
        given[key] = value
    return given


def _find_spec(name: str, version: str | None = None) -> OptimizerSpec:
    spec = registry.find(name)
    if version is None or version == spec.version:
        return spec
    if name == spec.key:
        raise OptionError(f"optim={name!r} and version {version} contradict each other: drop one of them.")
    return registry.find(name, version)


def _settable(spec: OptimizerSpec) -> dict[str, Any]:
    """Returns option -> default as ``optim_args`` spells them: ``betas`` is ``beta1`` and ``beta2``."""
    options: dict[str, Any] = {}
    for name, default in spec.options.items():
        if isinstance(default, tuple):
            options |= {f"{name[:-1]}{i}": part for i, part in enumerate(default, start=1)}
        elif isinstance(default, (bool, int, float, str)) and name != "weight_decay":
            options[name] = default
    return options


def _with_tuples(spec: OptimizerSpec, chosen: dict[str, Any]) -> dict[str, Any]:
    """Joins ``beta1`` and ``beta2`` to the ``betas`` that the constructor takes."""
    chosen = dict(chosen)
    for name, default in spec.options.items():
        if isinstance(default, tuple):
            parts = [f"{name[:-1]}{i}" for i in range(1, len(default) + 1)]
            if any(part in chosen for part in parts):
                chosen[name] = tuple(chosen.pop(part, value) for part, value in zip(parts, default, strict=True))
    return chosen


def _set_fields(args: TrainingArguments) -> dict[str, float]:
    """Returns the fields of ``args`` among `FIELDS` that were set.

    A field that still has the default of ``type(args)`` (5e-5 in TrainingArguments, 2e-5 in TRL's SFTConfig) was
    chosen for AdamW by the class, not by the user: the spec's own default applies. An ``__init__`` that is not the
    dataclass's own may have another default than the field (Unsloth).
    """
    defaults = {field.name: field.default for field in fields(args) if field.name in FIELDS}
    for name, parameter in inspect.signature(type(args).__init__).parameters.items():
        if name in defaults and parameter.default is not parameter.empty:
            defaults[name] = parameter.default
    return {name: value for name, default in defaults.items() if (value := getattr(args, name)) != default}


def _from_fields(fields_set: dict[str, float], spec: OptimizerSpec) -> dict[str, float]:
    """Returns the options of ``spec`` that were set through fields."""
    settable = _settable(spec)
    return {FIELDS[name]: value for name, value in fields_set.items() if FIELDS[name] in settable}


def _typed(spec: OptimizerSpec, settable: dict[str, Any], key: str, text: str) -> bool | int | float | str:
    """Returns ``text`` as a value of the type of the option's default."""
    if key == "weight_decay":
        raise OptionError(
            "optim_args weight_decay has no effect: Trainer sets it; use TrainingArguments.weight_decay."
        )
    if key not in settable:
        raise OptionError(
            f"optim_args: {spec.key} has no option {key!r}.{did_you_mean(key, settable)} "
            f"Its options: {', '.join(sorted(settable))}, version."
        )
    default = settable[key]
    try:
        return {"true": True, "false": False}[text.lower()] if isinstance(default, bool) else type(default)(text)
    except (KeyError, ValueError):
        expected = "true or false" if isinstance(default, bool) else f"a value like {default}"
        raise OptionError(f"optim_args: {spec.key} got {key}={text}, expected {expected}.") from None


def _advise(args: TrainingArguments, spec: OptimizerSpec, fields_set: dict[str, float]) -> None:
    for name, value in fields_set.items():
        if FIELDS[name] not in _settable(spec):
            logger.warning("%s=%s has no effect: %s has no such option.", name, value, spec.key)
    by_default = any(field.name == "lr_scheduler_type" and field.default == "linear" for field in fields(args))
    if by_default and not spec.mechanism.measures and args.lr_scheduler_type == SchedulerType.LINEAR:
        _say_linear()


@functools.cache
def _say_linear() -> None:
    """Says it once per process: Trainer's default cannot be told from a chosen schedule."""
    logger.warning(
        "The linear schedule (Trainer's default) multiplies the emotion-driven step size down to 0. It is kept; "
        "lr_scheduler_type='constant' leaves the step size to the emotion alone, as the authors do."
    )
