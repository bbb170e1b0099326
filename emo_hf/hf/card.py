"""What a model card says about an optimizer of the registry: in the card that Trainer writes, and in the laboratory's.

Text that came from elsewhere passes through `plain`: it cannot become markup, and it takes no key and no path of a
machine along.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load, metadata_save

from emo_hf.free import Found
from emo_hf.hf.confidential import masked
from emo_hf.hf.settings import in_words
from emo_hf.spec import OptimizerSpec

TAG = "emo_hf"
ONE_TRAINING = "This is one training (n = 1): no claim about the optimizer is decided by it."
_RATE = re.compile(r"^- learning_rate: .*$", re.MULTILINE)
_OPTIMIZER = re.compile(r"^- optimizer: .*\n(?:(?!- |#)\S.*\n)*", re.MULTILINE)  # its arguments may take more lines
_MARKS = re.compile(r"([\\`*\[\]|])")
_PATHS = re.compile(r"(?<![\w.:/<&])~?/[\w.@+-]+(?:/[\w.@+-]+)*/?|(?<!\w)[A-Za-z]:\\[^\s|]+")


def plain(text: str) -> str:
    """Returns `text` as one line of Markdown that shows it as it is, but for keys, passwords and absolute paths."""
    line = _PATHS.sub("DIR", masked(" ".join(str(text).split())))
    return _MARKS.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def table(rows: Mapping[str, str]) -> str:
    """Returns a Markdown table of two columns; the values are Markdown already."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {_bars(value)} |" for name, value in rows.items())])


def _bars(text: str) -> str:
    """A bar would end the cell, also within code."""
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def section(spec: OptimizerSpec, formulas: Mapping[str, str] | None = None, found: Found | None = None) -> str:
    """Returns where an optimizer comes from, what it does, and what its user would not expect.

    Args:
        formulas: what it computes, as Markdown by title.
        found: the step size that it has found, where it finds one.
    """
    facts = {
        "Optimizer": f"`{spec.key}` of emo_hf",
        "Source": "emo_hf: ours, not of the authors" if spec.is_ours else f"`{spec.name}.py` of {spec.source}",
        **{title.capitalize(): text for title, text in (formulas or {}).items()},
    }
    if spec.is_ours:
        facts["Learning rate"] = plain(spec.recommended_lr)
        if found is not None:
            facts["Found"] = f"{in_short(found.size)} after {found.steps} steps: a learning rate for AdamW"
    else:
        facts["Learning rate"] = "multiplies the step size of emoPulse" if spec.lr_is_multiplier else "base rate"
        facts["The authors' advice for it"] = plain(spec.recommended_lr)
    quirks = [f"* {quirk}" for quirk in spec.quirks]
    return "\n".join([table(facts), *(["", "What to know about this version:", "", *quirks] if quirks else [])])


def in_short(size: float) -> str:
    """Returns a step size as people type one."""
    return f"`{size:.2g}`"


def correct(path: Path, settings: Mapping[str, Any]) -> None:
    """Makes Trainer's list of hyperparameters say what trained, not what TrainingArguments have where nobody set them.

    Args:
        path: of the card.
        settings: `emo_hf.hf.settings.settings_of` the training.
    """
    text = path.read_text(encoding="utf-8")
    optimizer = f"- optimizer: {plain(in_words(settings))}\n"
    text = _RATE.sub(lambda _: f"- learning_rate: {settings['emo_lr']}", text, count=1)
    path.write_text(_OPTIMIZER.sub(lambda _: optimizer, text, count=1), encoding="utf-8")


def add_tags(path: Path, tags: Iterable[str]) -> None:
    """Adds `tags` to the metadata of a card, which keeps everything else."""
    data = metadata_load(path) or {}
    known = data.get("tags") or []
    known = [known] if isinstance(known, str) else list(known)
    metadata_save(path, {**data, "tags": list(dict.fromkeys([*known, *tags]))})
