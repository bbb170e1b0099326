"""From YAML text to a checked recipe, with every problem at once and its path.

The loader is PyYAML's safe one with two corrections: ``1e-3`` is a number, and a key given twice is an error.
"""

import re
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from emo_hf.errors import RecipeError, did_you_mean
from emo_hf.lab.spec import Cell, FunctionRecipe, Recipe
from emo_hf.lab.strict import Strict

FOLDER = Path("recipes")  # where a bare name is looked up
ModelT = TypeVar("ModelT", bound=Strict)


def recipe(name: str) -> Recipe | FunctionRecipe:
    """Reads a recipe: the path of a YAML file, or the bare name of one below ``recipes/``.

    Raises:
        RecipeError: no such file, or a list of all its problems.
    """
    path = _find(name)
    content = _content(path)
    task = content.get("task")
    descends = isinstance(task, dict) and task.get("type") == "function"
    return _check(FunctionRecipe if descends else Recipe, content, path)


def cell(path: Path) -> Cell:
    """Reads the ``config.yaml`` of a run."""
    return _check(Cell, _content(path), path)


def _find(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    known = {found.stem: found for found in sorted(FOLDER.rglob("*.yaml"))}
    if name in known:
        return known[name]
    near = did_you_mean(path.stem, known)
    raise RecipeError(f"No recipe {name!r}: expected a YAML file, or the name of one in {FOLDER.resolve()}.{near}")


def _content(path: Path) -> dict:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected keys and values, got {type(content).__name__}.")
    return content


def _check(model: type[ModelT], content: dict, path: Path) -> ModelT:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False)
    problems = [line for detail in details for line in _explain(model, detail)]
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise RecipeError("\n  ".join([f"{path}: {count}", *problems]))


def _explain(model: type[Strict], detail: Any) -> list[str]:
    """Returns an error of pydantic in words: its path, what is wrong, and what to write instead."""
    # pydantic marks a bad key of a mapping by a last part that is not in the file
    path = [part for part in detail["loc"] if part != "[key]"]
    where = ".".join(map(str, path))
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if not where:  # a check of the whole recipe: each of its lines names its path
        return message.split("\n")
    match detail["type"]:
        case "missing":
            return [f"{where}: missing"]
        case "extra_forbidden":
            known = _keys(model, path[:-1])
            return [f"{where}: unknown key.{did_you_mean(str(path[-1]), known)} Known: {', '.join(known)}"]
        case "string_pattern_mismatch":
            message = "a name has lower-case letters and digits, joined by single . _ or -"
        case "literal_error":
            message += did_you_mean(str(detail["input"]), re.findall(r"'([^']+)'", detail["ctx"]["expected"]))
    shown = "" if isinstance(detail["input"], dict | list) else f" (got {detail['input']!r})"
    return [f"{where}: {message}{shown}"]


def _keys(model: Any, path: list[Any]) -> list[str]:
    """Returns the keys that the schema knows at ``path``."""
    for part in path:
        model = model.model_fields[part].annotation if _is_model(model) else get_args(model)[-1]
        while not _is_model(model) and get_origin(model) not in (dict, list):  # X | None, Annotated[X, ...]
            model = get_args(model)[0]
    return list(model.model_fields)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
