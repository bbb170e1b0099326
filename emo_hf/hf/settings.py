"""What really trains: the options of the optimizer, for every record.

TrainingArguments keep Trainer's own defaults, 5e-5 and (0.9, 0.999), where the user leaves them alone; the optimizer
has others. The arguments stay as they are. Beside them stand, as plain numbers and words,

    emo_optimizer, emo_version      which one
    emo_lr                          its multiplier or base rate, before any schedule
    emo_<option>                    each of its other options
    emo_<option>_of_groups          the value in each parameter group, where they differ; emo_<option> is the first
    emo_found_lr, _after            under EmoFree, once its ramp has ended: the step size found, and the steps it took
    emo_found_agreement             and the agreement at its best and at the end
    emo_stopped_at, _after          the step at which on_ready="stop" ended the training, and its ready steps by then
    emo_pulse_floor, _base, _ceiling
                                    the step sizes between which the pulse of the first group moves, and its start
    emo_drives                      under `EmoPulse`: the optimizer that it drives, whose options are listed too

in W&B's config and the settings of other reporters, ``emo_run.json``, ``trainer_state.json``, and the model card.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers import TrainerState, TrainingArguments

from emo_hf.hf.feed import Listener
from emo_hf.scheduler import EmoPulse, innermost
from emo_hf.spec import GROUP_OPTIONS, plain

OF_ARGUMENTS = {"learning_rate": ("lr", None), "adam_beta1": ("betas", 0), "adam_beta2": ("betas", 1)}
OF_ARGUMENTS |= {"adam_epsilon": ("eps", None)}


def settings_of(listener: Listener) -> dict[str, Any]:
    """Returns what ``listener`` trains with, under the names above."""
    name, _, version = listener.key.rpartition("-")
    optimizer, options = innermost(listener), dict(listener.options)
    in_groups = set(GROUP_OPTIONS)
    if isinstance(listener, EmoPulse):
        options |= {"drives": type(optimizer).__name__, **optimizer.defaults}
        in_groups = set(optimizer.defaults)
    of_groups = {}
    for option in in_groups & options.keys():
        found = [_before_schedule(group, option) for group in optimizer.param_groups if option in group]
        options[option] = found[0] if found else options[option]
        if any(value != found[0] for value in found):
            of_groups[f"{option}_of_groups"] = found
    in_order = sorted({**options, **of_groups}.items(), key=lambda item: item[0] not in in_groups)  # the rate first
    known = {f"emo_{option}": plain(value) for option, value in in_order if value is not None}
    return {"emo_optimizer": name, "emo_version": version, **known, **_bounds_of(listener), **found_of(listener)}


def found_of(listener: Listener) -> dict[str, Any]:
    """Returns what the ramp of an EmoFree has found, under the names above; nothing before, and for any other."""
    found = getattr(listener, "found", None)
    if found is None:
        return {}
    agreement = [found.highest, found.last]
    return {"emo_found_lr": found.size, "emo_found_after": found.steps, "emo_found_agreement": agreement}


def _bounds_of(listener: Listener) -> dict[str, float]:
    """Returns the bounds of the pulse, under the names above."""
    bounds = listener.bounds
    return {f"emo_pulse_{name}": size for name, size in bounds._asdict().items()} if bounds else {}


def _before_schedule(group: dict[str, Any], option: str) -> Any:
    return group.get("initial_lr", group["lr"]) if option == "lr" else group[option]


def corrections(args: TrainingArguments, settings: Mapping[str, Any]) -> dict[str, float]:
    """Returns those fields of TrainingArguments that another number was used for, with that number."""
    used = {}
    for field, (option, place) in OF_ARGUMENTS.items():
        value = settings.get(f"emo_{option}")
        value = value[place] if place is not None and value is not None else value
        if value is not None and value != getattr(args, field, value):
            used[field] = value
    return used


def make_plain(state: TrainerState) -> None:
    """Makes Python's own numbers of numpy's that the user gave as arguments (``max_steps``): JSON knows no others."""
    for field in dataclasses.fields(state):
        setattr(state, field.name, plain(getattr(state, field.name)))


def in_words(settings: Mapping[str, Any]) -> str:
    """Returns one line, e.g. "emosens-3.9 of emo_hf with lr=1.0, betas=(0.9, 0.995), eps=1e-08"."""
    options = [
        f"{name.removeprefix('emo_')}={value}"
        for name, value in settings.items()
        if name not in ("emo_optimizer", "emo_version", "emo_drives") and not name.startswith("emo_pulse_")
    ]
    key = f"{settings['emo_optimizer']}-{settings['emo_version']} of emo_hf"
    driven = f"{settings['emo_drives']} driven by {key}" if "emo_drives" in settings else key
    return f"{driven} with {', '.join(options)}"
