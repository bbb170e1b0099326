"""A commented recipe for data of one's own, made from a file and the name of a model. What it guesses, it says."""

import math
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.data import Data, TaskType
from emo_hf.lab.sources import guess, own
from emo_hf.lab.sources.guess import Guess
from emo_hf.lab.sources.kinds import Completions, Examples, Text
from emo_hf.lab.sources.packages import PACKAGES
from emo_hf.lab.tasks.pretrained import NO_CODE

HOLDOUT = 0.1
TELLING = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")  # what tells a model from others
NEW_MODEL = "{config: {layers: 2, heads: 4, width: 128, vocabulary: 4000}}"
LONGEST = 256  # tokens; a longer text is cut

SAID = {  # of keys of the data
    "holdout": "this share of the training examples is evaluated on instead; or give test: a second file",
    "test": "what is evaluated on",
    "text": "the texts",
    "label": "the column of the classes",
    "prompt": "the column of what the model reads",
    "completion": "the column of what it is to answer; only this has a loss",
}
# EmoSens: 1.0 is its authors' rate for new models and adapters; at their 0.01 for a full fine-tune it learned next to
# nothing in recipes/finetune.
ARMS = {
    "new": """\
  emosens: {optim: emosens, lr: 1.0, tuning: authors' default} # lr multiplies the step size that the loss decides
  adamw: {optim: adamw_torch, lr: 1e-3, schedule: linear, warmup: 0.1, tuning: untuned}
  # emofree: {optim: emofree, lr: 1.0, tuning: authors' default} # finds its step size by itself""",
    "trained": """\
  emofree: {optim: emofree, lr: 1.0, schedule: linear, tuning: authors' default} # finds its step size by itself
  adamw: {optim: adamw_torch, lr: 5e-5, schedule: linear, tuning: untuned} # as Trainer has it
  # emosens: {optim: emosens, lr: 1.0, tuning: authors' default} # its rate for adapters; see recipes/finetune""",
    "adapters": """\
  emosens: {optim: emosens, lr: 1.0, tuning: authors' default} # lr multiplies the step size that the loss decides
  adamw: {optim: adamw_torch, lr: 2e-4, schedule: linear, tuning: untuned}
  # emofree: {optim: emofree, lr: 1.0, tuning: authors' default} # finds its step size by itself""",
}
TARGETS = {"gpt2": "c_attn", "bert": "query, value", "roberta": "query, value", "distilbert": "q_lin, v_lin"}


@dataclass(frozen=True)
class Base:
    """The model to start from.

    Attributes:
        lines: of YAML, below ``model:``.
        kind: of `ARMS`.
        config: of a trained model; None is a new one.
        reasons: what was guessed.
        folder: that of its copy lies in, what ``--model-dir`` names.
    """

    lines: list[str]
    kind: str = "new"
    config: PretrainedConfig | None = None
    reasons: list[str] = field(default_factory=list)
    folder: Path | None = None


@dataclass(frozen=True)
class FirstRecipe:
    """The text of a recipe, what was guessed, and the options that it needs to run."""

    text: str
    reasons: list[str]
    options: str


def write(
    path: Path, model: str | None, output: Path, given: Mapping[str, str], test: Path | None, model_dir: Path | None
) -> FirstRecipe:
    """Returns a recipe for the file `output`.

    Args:
        path: the data: a file, or a folder.
        model: owner/name of the hub, or the folder of a copy; None is a small new GPT-2.
        output: where the recipe will be. Data below its folder is named from there, other data by ``--data-dir``.
        given: columns by what they are for, which are not guessed then.
        test: what to evaluate on; None holds a share out.
        model_dir: where copies of models lie.

    Raises:
        RecipeError: data or model cannot be read, or do not fit together.
    """
    form = guess.form(path)
    root, places = _places([path, *([test] if test else [])], output)
    source: dict[str, Any] = {form: places[0], **({"test": places[1]} if test else {"holdout": HOLDOUT})}
    if form == "text":
        if given:
            raise RecipeError(f"{path} is running text and has no columns: leave out --{', --'.join(given)}.")
        guessed = Guess("causal-lm", {}, ["the file is running text: a language model reads it"])
    else:
        if form == "saved" and test is None and "test" in own.saved(root, places[0], form):
            del source["holdout"]
        table, _ = own.tables(form, places[0], Data.model_validate(source), root)
        guessed = guess.columns(table, given)
    source |= guessed.columns
    content = own.read(Data.model_validate(source), root)
    base = _base(model, model_dir, guessed.task)
    options = "" if root == output.parent.absolute() else f" --data-dir {shlex.quote(str(root))}"
    options += f" --model-dir {shlex.quote(str(base.folder))}" if base.folder else ""
    reasons = [*guessed.reasons, *base.reasons]
    return FirstRecipe(_text(output, guessed.task, source, content, base, reasons, options), reasons, options)


def _places(paths: list[Path], output: Path) -> tuple[Path, list[str]]:
    """Returns the folder that `paths` are seen from, and what they are there: the recipe's, if they lie below it."""
    whole, root = [path.absolute() for path in paths], output.parent.absolute()
    if not all(root in path.parents for path in whole):
        root = Path(os.path.commonpath([path.parent for path in whole]))
    return root, [path.relative_to(root).as_posix() for path in whole]


# ---- the model


def _base(model: str | None, model_dir: Path | None, task: TaskType) -> Base:
    if model is None:
        return Base([f"&model {NEW_MODEL} # a new GPT-2, small enough for any machine"])
    name, _, revision = model.partition("@")
    folder = Path(model)
    if not folder.is_dir() and model_dir and not folder.is_absolute():
        folder = model_dir / name.rpartition("/")[2]
    is_copy = folder.is_dir()
    where: dict[str, Any] = {"local_files_only": True} if is_copy else {"revision": revision or None}
    weights = sorted(folder.glob("*.gguf"))[:1] if is_copy and not (folder / "config.json").is_file() else []
    if weights:
        where["gguf_file"] = weights[0].name
    try:
        config = AutoConfig.from_pretrained(str(folder) if is_copy else name, **NO_CODE, **where)
    except Exception as error:  # the hub, its cache and transformers raise all kinds of errors
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise RecipeError(
            f"No model {model!r} ({told[0]}). Give owner/name of the hub, owner/name@revision, or a copy's folder;"
            " without a hub, emo-hf fetch-models DIR makes two."
        ) from error
    reasons = []
    if is_copy:
        name = name if _is_name(name) else _name(folder.absolute().name, config)
        reasons.append(f"{folder} is a copy of {name} of the hub; its values under config tell it from other models")
    if not revision:
        revision = getattr(config, "_commit_hash", None) or "main"
    if revision == "main":
        reasons.append(f"the revision of {name} is not known: main; give a commit, as main can change")
    _check_task(task, config, name)
    told = [f"{key}: {value!r}" for key in TELLING if (value := getattr(config, key, None)) is not None]
    lines = ["&model", "  hub:", f"    name: {word(name)}", f"    revision: {word(revision)}"]
    lines += [f"    gguf: {word(weights[0].name)}"] if weights else []
    lines.append(f"    config: {{{', '.join(told).replace(chr(39), '')}}} # a local copy must have these values")
    lora = f"lora: {{rank: 8, alpha: 16, targets: [{TARGETS.get(config.model_type, 'q_proj, v_proj')}]}}"
    if weights:
        reasons.append("weights in GGUF cannot be trained, so adapters beside them are; this needs the package peft")
        lines.append(f"  {lora}")
    else:
        lines.append(f"  # {lora} # trains adapters only; then with a higher learning rate")
    return Base(
        lines, "adapters" if weights else "trained", config, reasons, folder.absolute().parent if is_copy else None
    )


def _is_name(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith((".", "/")) and not Path(model).exists()


def _name(folder: str, config: PretrainedConfig) -> str:
    """Returns the name that a copy has on the hub, as far as it is known."""
    known = {package.folder: package.model for package in PACKAGES}
    told = str(getattr(config, "_name_or_path", ""))
    if folder in known:
        return known[folder]
    return told if _is_name(told) and told.endswith(f"/{folder}") else f"local/{folder}"


def _check_task(task: TaskType, config: PretrainedConfig, name: str) -> None:
    kind = config.model_type
    if task == "causal-lm" and (
        kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    ):
        raise RecipeError(
            f"{name} ({kind}) is no language model that writes texts, and this data is for one: give another model, or"
            " name a column of classes by --label."
        )
    if task == "sequence-classification" and kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise RecipeError(f"{name} ({kind}) has no form in transformers that names classes: give another model.")


# ---- the text


def word(value: str | float) -> str:
    """Returns `value` as YAML reads it: plain if it can be, else in quotes on one line."""
    if not isinstance(value, str):
        return str(value)
    if re.fullmatch(r"[A-Za-z](?:[\w ./-]*[\w])?", value, re.ASCII) and yaml.safe_load(value) == value:
        return value
    return yaml.safe_dump(value, default_style='"', width=10**9).strip()


def _text(
    output: Path,
    task: TaskType,
    source: Mapping[str, Any],
    content: Examples | Completions | Text,
    base: Base,
    reasons: list[str],
    options: str,
) -> str:
    tokens = _max_tokens(content, base.config)
    smoke = min(tokens, 64)
    name = re.sub(r"[^a-z0-9]+", "-", output.stem.lower()).strip("-")[:40].strip("-") or "mine"
    file = shlex.quote(output.name)
    lines = [
        f"# emo-hf run {file} --size smoke --seeds 0{options}",
        f"# emo-hf run {file}{options}",
        "# Guessed; change what is wrong:",
        *(f"#   {' '.join(reason.split())}" for reason in reasons),
        f"name: {word(name)} # the folder of its runs: runs/{name}",
        f"description: {word(f'Own data, {output.stem}: two optimizers compared.')}",
        "task:",
        f"  type: {task}",
        "  data:",
        *(f"    {key}: {word(value)}{_said(key)}" for key, value in source.items()),
        "baseline: adamw # the report pairs the others with it",
        "seeds: [0, 1, 2] # each arm is trained once for each of them",
        "default_size: small",
        "sizes:",
        "  smoke: # about a minute: shows that everything runs, decides nothing",
        f"    model: {base.lines[0]}",
        *(f"    {line}" for line in base.lines[1:]),
        "    steps: 4",
        "    batch_size: 8",
        f"    max_tokens: {smoke}",
        *(f"    {key}: {count}" for key, count in _first(content, smoke).items()),
        "  small:",
        "    model: *model",
        "    epochs: 3 # passes over the training examples; or steps: 500",
        "    batch_size: 16",
        f"    max_tokens: {tokens} # longer texts are cut",
        "    evaluations: 3 # evenly spread; the last one is the result",
        "arms: # optimizer settings; emo-hf ls lists the emo optimizers",
        ARMS[base.kind],
    ]
    return "\n".join([*lines, ""])


def _said(key: str) -> str:
    return f" # {SAID[key]}" if key in SAID else ""


def _max_tokens(content: Examples | Completions | Text, config: PretrainedConfig | None) -> int:
    """Returns the length that most texts have at most, at about three characters a token."""
    if isinstance(content, Text):
        wanted = LONGEST // 2
    else:
        texts = [astuple(row) for row in content.train]
        texts = [row[:1] if isinstance(content, Examples) else row for row in texts]
        lengths = sorted(sum(map(len, row)) for row in texts)
        wanted = 32 * math.ceil(lengths[int(0.95 * (len(lengths) - 1))] / 3 / 32)
    positions = getattr(config, "max_position_embeddings", None)
    return min(wanted, LONGEST, positions if isinstance(positions, int) and positions > 0 else LONGEST)


def _first(content: Examples | Completions | Text, tokens: int) -> dict[str, int]:
    """Returns how many examples the smoke size has, as far as that many are sure to be there."""
    if isinstance(content, Text):  # a token has 8 characters at most, or nearly so
        there = [len(part) // (8 * tokens) for part in (content.train, content.test)]
        there = there if content.test else [there[0] // 2, there[0] // 20]
    else:
        train, test = len(content.train), len(content.test)
        held = max(1, int(HOLDOUT * train))
        there = [train, test] if test else [train - 2 * held, held // 2]
    wanted = zip(("train_examples", "test_examples"), there, (64, 32), strict=True)
    return {key: min(count, most) for key, count, most in wanted if count >= 1}
