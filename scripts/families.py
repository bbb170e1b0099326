"""Writes emo_hf/families.py: the class of every family, with the options of its versions spelled out.

    python -m scripts.families

An option has a default in the signature where all versions have it with the same one, else None, and the docstring
names the defaults. A test compares the file with what this would write. To begin with, a family needs its first line
in `SUMMARIES`, an option its line in `OPTIONS`.
"""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from emo_hf.spec import OptimizerSpec
from emo_hf.versions import EXPERIMENTS, OWN, SPECS

FILE = Path("emo_hf/families.py")
WIDTH = 119
SUMMARIES = {
    "emonavi": "Adam without bias correction, damped.",
    "emofact": "A factored second moment (signSGD in 3.6), damped.",
    "emolynx": "Lion, damped.",
    "emoclan": "Lion, factored or Adam, by the scalar.",
    "emozeal": "Factored, with a cautious sign or softsign step before it.",
    "emoneco": "A cautious sign or softsign of Lion's blend.",
    "emosens": "Adam without bias correction, at the pulse's step size.",
    "emoairy": "signSGD at the pulse's step size (2.0: factored, damped). No state.",
    "emocats": "Lion at the pulse's step size.",
    "emotion": "Sign of a momentum that listens to the norm of the weights, at the pulse's step size.",
    "emofree": "Adam at a step size that it finds itself: no learning rate to set. Ours, not of the authors.",
    "emovoid": "signSGD with a rescaled weight norm, at the pulse's step size. No state.",
}
BASE, MULTIPLIER = "Base learning rate, >= 0", "Multiplier of the pulse, > 0, around 1.0"
FACTOR = "Multiplier of the step size that is found, > 0, around 1.0"
OPTIONS = {  # in the order of the signature: type, and what it is
    "lr": ("float", ""),
    "betas": ("tuple[float, float]", "Decay rates of the running averages, each in [0, 1)."),
    "eps": ("float", "Added to the denominator, >= 0."),
    "weight_decay": ("float", "Share of the weights taken off per unit of step size, >= 0."),
    "lynx_betas": ("tuple[float, float]", "`betas` of the Lion steps, each in [0, 1)."),
    "decoupled_weight_decay": ("bool", "Whether the decay of Lion steps is independent of the initial lr."),
    "total_steps": (
        "int",
        "Steps of the whole training, for the length of the ramp; a Trainer tells it. None counts as 625.",
    ),
    "use_shadow": (
        "bool",
        "Whether a slow copy of the weights is mixed back on shocks; costs one more copy of memory.",
    ),
    "stopcoef": (
        "float",
        "Where the stop signal comes up, >= 0: as a share of the least pulse (3.8), as a loss (3.9).",
    ),
    "fftmode": ("bool", "Whether the pulse is the smaller one for full fine-tuning."),
    "branch": ("Branch", "Which average of the loss decides; see `emo_hf.emotion`."),
    "hold_pulse": ("bool", "Whether the step size stays that of the start, whatever the loss does."),
    "moments": ("UseOfMoments", "Experimental: log the moments of the gradient, or let them drive the step size too."),
    "on_nonfinite_loss": (
        "OnNonfiniteLoss",
        "At a NaN or infinite loss: raise, skip the step, or (auto) skip it if every gradient is finite.",
    ),
    "implementation": ("Implementation", "How the update is computed; see `emo_hf.kernels`."),
    "compensation": ("Compensation", 'For weights in 16 bits: "kahan" keeps what rounding cuts off, in 2 more bytes.'),
    "loss_over_ranks": (
        "LossOverRanks",
        "What `step(loss=...)` takes on several ranks: the mean of their losses, or each rank its own.",
    ),
}
HEAD = '''\
"""The families of the registry as classes. Made by ``python -m scripts.families`` from `emo_hf.versions`: not to edit.

    EmoSens(model.parameters())                       the newest version
    EmoSens(model.parameters(), version="3.8", stopcoef=0.1)

An option that is None, or not given, is the default of the version.
"""

from typing import Any, NoReturn

from torch.optim.optimizer import ParamsT

from emo_hf.emotion import Branch
from emo_hf.kernels import Implementation
from emo_hf.loss import LossOverRanks
from emo_hf.optimizer import EmoOptimizer, Writer
from emo_hf.spec import Compensation, OnNonfiniteLoss, UseOfMoments
from emo_hf.versions import find


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
'''
CLASS = '''

class {name}(EmoOptimizer):
    """{summary}

    Args:
{arguments}

    Raises:
        OptionError: An option is unknown to this version, or out of range. One that it ignores is a warning.
        UnknownOptimizerError: There is no such version.
    """

    def __init__(
        self,
        params: ParamsT,
        {signature},
        writer: Writer | None = None,
        **unknown: NoReturn,
    ) -> None:
        options = _given({passed}, **unknown)
        super().__init__(params, find("{family}", version), writer=writer, **options)
'''


def versions(family: str) -> list[OptimizerSpec]:
    """Returns the specs of a family, released and experimental."""
    return [spec for spec in (*SPECS, *OWN, *EXPERIMENTS) if spec.name == family]


def class_name(family: str) -> str:
    """Returns "EmoSens" for "emosens"."""
    return f"Emo{family[3:].capitalize()}"


def default(specs: list[OptimizerSpec], option: str) -> Any:
    """Returns the default on which all versions agree; None if one lacks the option, or has another."""
    first = specs[0].options.get(option)
    return first if all(spec.options.get(option) == first for spec in specs) else None


def _parameter(specs: list[OptimizerSpec], option: str) -> str:
    kind, value = OPTIONS[option][0], default(specs, option)
    return f"{option}: {kind} | None = None" if value is None else f"{option}: {kind} = {value!r}"


def _defaults(specs: list[OptimizerSpec], option: str) -> str:
    """Returns the defaults of the versions in words; nothing where the signature says it."""
    if default(specs, option) is not None:
        return ""
    having = [spec for spec in specs if option in spec.options]
    lacking = [spec.version for spec in specs if option not in spec.options]
    by_value: dict[str, list[str]] = {}
    for spec in having:
        by_value.setdefault(_text(spec.options[option]), []).append(spec.version)
    if len(by_value) > 1:
        return f" Default: {'; '.join(f'{value} in {_enumerated(found)}' for value, found in by_value.items())}."
    told = f" Default: {next(iter(by_value))}."
    if len(lacking) > len(having):
        return f"{told} Only in {_enumerated([spec.version for spec in having])}."
    return f"{told} Not in {_enumerated(lacking)}." if lacking else told


def _text(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def _enumerated(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def _meaning(specs: list[OptimizerSpec], option: str) -> str:
    if option != "lr":
        return OPTIONS[option][1]
    if all(spec.is_ours for spec in specs):
        return f"{FACTOR}."
    kinds = {spec.version: MULTIPLIER if spec.lr_is_multiplier else BASE for spec in specs}
    if len({*kinds.values()}) == 1:
        return f"{kinds[specs[0].version]}."
    base = [version for version, kind in kinds.items() if kind == BASE]
    return f"{MULTIPLIER}; in {_enumerated(base)} the {BASE[0].lower()}{BASE[1:]}."


def _arguments(specs: list[OptimizerSpec], options: list[str]) -> str:
    released = [spec.version for spec in specs if spec not in EXPERIMENTS]
    own = [f"`{name}`" for name in ("lr", "betas", "eps", "weight_decay") if name in options]
    some = " (experimental)" if len(released) < len(specs) else ""
    texts = {
        "params": f"Parameters, or parameter groups; a group may have its own {_enumerated(own)}.",
        "lr": _meaning(specs, "lr") + _defaults(specs, "lr"),
        "version": f"{', '.join(spec.version for spec in specs)}{some}; None is {released[-1]}, the newest.",
        **{name: _meaning(specs, name) + _defaults(specs, name) for name in options if name != "lr"},
        "writer": "Gets every signal of every step: a SummaryWriter of TensorBoard, or its like.",
    }
    if len(specs) == 1:
        texts["version"] = f"{released[0]} is the only one."
    return "\n".join(
        textwrap.fill(f"{name}: {text}", WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 12)
        for name, text in texts.items()
    )


def _class(family: str) -> str:
    specs = versions(family)
    options = [name for name in OPTIONS if any(name in spec.options for spec in specs)]
    unknown = {name for spec in specs for name in spec.options} - {*options}
    assert not unknown, f"{family}: no line in OPTIONS for {unknown}"
    rest = [_parameter(specs, name) for name in options if name != "lr"]
    return CLASS.format(
        name=class_name(family),
        summary=SUMMARIES[family],
        arguments=_arguments(specs, options),
        signature=",\n        ".join([_parameter(specs, "lr"), "*", "version: str | float | None = None", *rest]),
        passed=", ".join(f"{name}={name}" for name in options),
        family=family,
    )


def module() -> str:
    """Returns the text of the file."""
    families = list(dict.fromkeys(spec.name for spec in (*SPECS, *OWN)))
    table = [f'    "{family}": {class_name(family)},' for family in families]
    kinds = "\n".join(["\n\nCLASSES: dict[str, type[EmoOptimizer]] = {", *table, "}\n"])
    text = HEAD + "".join(map(_class, families)) + kinds
    formatting = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(FILE), "-"]
    return subprocess.run(formatting, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    FILE.write_text(module(), encoding="utf-8")
