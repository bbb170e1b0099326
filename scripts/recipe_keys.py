"""Writes the table of every key of a recipe into docs/recipes.md, from the schema and its docstrings.

    python -m scripts.recipe_keys

A test compares what is generated with what is on record.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from emo_hf.lab.recipe import arms, data, fields, rules, schema, task

PAGE = Path("docs/recipes.md")
START, END = "<!-- keys: python -m scripts.recipe_keys -->\n", "<!-- end of keys -->\n"
# section -> what holds its keys; "" is the recipe itself
SECTIONS: dict[str, type[BaseModel]] = {
    "": schema.Recipe,
    "task": task.Task,
    "task.data": data.Data,
    "task.data.hub": data.HubData,
    "sizes.NAME": schema.Size,
    "sizes.NAME.arms.NAME": arms.Change,
    "model": task.Model,
    "model.config": task.Config,
    "model.vision": task.Vision,
    "model.vit": task.Vit,
    "model.hub": task.HubModel,
    "model.llama2c": task.Llama2c,
    "model.llama2c.hub": data.Hub,
    "model.lora": task.Lora,
    "arms.NAME": arms.Arm,
    "arms.NAME.tuning": arms.Tuning,
    "arms.NAME.loss_transform": arms.LossTransform,
    "arms.NAME.replay": arms.Replay,
    "arms.NAME.condition": arms.Condition,
    "arms.NAME.handover": arms.Handover,
    "Lines of the rule: an arm, or a difference": rules.Contrast,
    "Lines of the rule: `minus`": rules.Pair,
    "Lines of the rule: `best_of`": rules.Best,
    "Lines of the rule: `sweep`": rules.Basin,
    "Lines of the rule: `order`": rules.Order,
    "published": schema.Published,
    "A recipe of a function": schema.FunctionRecipe,
    "Its `task`": schema.FunctionTask,
    "Its `sizes.NAME`": schema.Steps,
}
WORDS = {  # what a kind of value is called
    fields.Name: "a name",
    fields.Text: "text",
    data.Holdout: "a share between 0 and 1, or a whole number",
    data.Repository: "owner/name",
    rules.RuleLine: "a line of the rule",
    rules.Metric: "a metric",
    Any: "any value",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "`true` or `false`",
}


def keys() -> str:
    """Returns the tables as Markdown."""
    return "\n".join(line for section, model in SECTIONS.items() for line in _table(section, model))


def filled(page: str) -> str:
    """Returns the page with the tables of today; `ValueError` if it has no place for them."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{PAGE} lacks {START!r} or {END!r}")
    return f"{before}{start}\n{keys()}\n{end}{after}"


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Returns what the docstrings of a model and those it inherits from say of each key."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        _, _, listed = (inspect.cleandoc(cls.__dict__.get("__doc__") or "") + "\n").partition("Attributes:\n")
        for names, text in re.findall(r"^    (\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", listed, re.MULTILINE):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def _table(section: str, model: type[BaseModel]) -> Iterator[str]:
    yield f"### {f'`{section}`' if re.fullmatch(r'[a-zA-Z._0-9]+', section) else section or 'The recipe'}"
    yield ""
    yield from (_ticked(inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0]), "")
    yield from ("| key | value | without it | meaning |", "|---|---|---|---|")
    said = meanings(model)
    for name, field in model.model_fields.items():
        if name == "family":  # what `sweep` becomes
            yield "| `sweep` | a list of numbers | - | learning rates instead of `lr`: one arm for each |"
            continue
        key = field.alias or name
        text = said.get(name) or said[key]
        cells = (f"`{key}`", value(_annotation(model, name)), _default(field), _ticked(text))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _ticked(text: str) -> str:
    """Returns a docstring's words as one line of Markdown."""
    return " ".join(text.split()).replace("``", "`")


def _annotation(model: type[BaseModel], name: str) -> Any:
    """Returns the annotation as it is written, with what pydantic takes out of it."""
    written = (inspect.get_annotations(cls, eval_str=True) for cls in model.__mro__)
    return next(each[name] for each in written if name in each)


def value(kind: Any) -> str:
    """Returns a kind of value in words."""
    if (words := next((text for known, text in WORDS.items() if known == kind), None)) is not None:
        return words
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return value(parts[0]) + _bounds(parts[1:])
    if origin is Literal:
        return _or([f"`{part}`" for part in parts])
    if origin in (Union, UnionType):
        return _or([value(part) for part in parts if part is not NoneType])
    if origin is list:
        return f"a list of: {value(parts[0])}"
    if origin is dict:
        return f"{value(parts[0])}: {value(parts[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "keys, see below"
    raise TypeError(f"no words for {kind!r}: add them to WORDS")


def _bounds(marks: tuple[Any, ...]) -> str:
    """Returns the bounds that an annotation gives a number, but for those that only a typing error is beyond."""
    each = [bound for mark in marks for bound in getattr(mark, "metadata", ())]
    words = {"gt": " above {}", "ge": " from {} on", "lt": " below {}", "le": " to {}"}
    found = [
        text.format(getattr(bound, name)) for bound in each for name, text in words.items() if hasattr(bound, name)
    ]
    most = {f" to {fields.LARGEST_COUNT}", f" below {2**32}"}
    return ",".join(text for text in found if text not in most)


def _or(words: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default in (None, [], {}) or field.default is PydanticUndefined:
        return "-"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
