"""From a file to a checked recipe. An error lists every problem with its path, or the first of very many."""

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Tag, ValidationError

import emo_hf
from emo_hf.errors import RecipeError, did_you_mean
from emo_hf.hf import confidential
from emo_hf.lab.recipe import parsing
from emo_hf.lab.recipe.fields import StrictModel, with_new_keys
from emo_hf.lab.recipe.schema import FORMER, FunctionRecipe, Recipe, RunConfig

_PACKAGE = Path(emo_hf.__file__).parent
# The shipped recipes lie inside an installed package, and beside it in a checkout.
FOLDER = _PACKAGE / "recipes" if (_PACKAGE / "recipes").is_dir() else _PACKAGE.parent / "recipes"
ModelT = TypeVar("ModelT", bound=StrictModel)
MOST_PROBLEMS, LONGEST_LINE = 40, 400  # that an error shows


def recipe(name: str) -> Recipe | FunctionRecipe:
    """Reads a recipe: a YAML file, or a shipped recipe by its name.

    Raises:
        RecipeError: there is no such file, or a list of its problems.
    """
    path = find(name)
    content = _extend(parsing.read(path), path)
    if secrets := list(islice(confidential.places(content), MOST_PROBLEMS)):
        raise RecipeError("\n  ".join([f"{path}: a recipe must not hold a key or a password", *secrets]))
    content, problems = _spread(content)
    task = content.get("task")
    if isinstance(task, dict) and task.get("type") == "function":
        return _check(FunctionRecipe, content, path, problems)
    return _check(Recipe, content, path, problems)


def run_config(path: Path) -> RunConfig:
    """Reads the ``config.yaml`` of a run."""
    return _check(RunConfig, parsing.read(path), path)


def shipped(folder: Path = FOLDER) -> list[Path]:
    """Returns the recipes below `folder`, without the copies in folders of results."""
    return [path for path in sorted(folder.rglob("*.yaml")) if "results" not in path.relative_to(folder).parts]


def shipped_names() -> dict[str, Path]:
    """Returns the shipped recipes by their names: "quickstart", "trec/gpt2-emosens"."""
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in shipped()}


def find(name: str) -> Path:
    """Returns the file of a recipe: the path of a YAML file, or the name of a shipped one, if need be with its folder.

    Raises:
        RecipeError: there is none, or there are several.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = shipped_names()
    same = [place for place, path in known.items() if name in (place, path.stem)]
    if len(same) == 1:
        return known[same[0]]
    if same:
        raise RecipeError(f"{name!r} is the name of several recipes: {', '.join(same)}. Give one of these.")
    near = did_you_mean(name, [*known, *(path.stem for path in known.values())])
    raise RecipeError(f"No recipe {name!r}: expected a YAML file, or a name that `emo-hf ls --recipes` lists.{near}")


def standalone(path: Path, name: str) -> str:
    """Returns the text of a recipe for a file `name`: its commands name that file, and it extends no other recipe."""
    content = parsing.read(path)
    text = re.sub(r"^# emo-hf run \S+", f"# emo-hf run {name}", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if "extends" in content:
        commands = [line for line in text.splitlines() if line.startswith("# emo-hf run ")]
        text = "\n".join([*commands, yaml.safe_dump(_extend(content, path), sort_keys=False, allow_unicode=True)])
    return text


def _extend(content: dict[Any, Any], path: Path) -> dict[Any, Any]:
    """Adds the keys that `content` lacks from the recipe that its ``extends`` names, one level deep."""
    if "extends" not in content:
        return content
    name = content.pop("extends")
    under = parsing.read(_parent(name, path))
    if "extends" in under:
        raise RecipeError(
            f"{path}: extends {name:.60}, which itself extends {under['extends']!r:.60}: one level only."
        )
    return {**with_new_keys(under, FORMER), **with_new_keys(content, FORMER)}


def _parent(name: Any, path: Path) -> Path:
    """Returns the file `name`, seen from the folder of the recipe `path`; it lies below the parent of that folder."""
    folder = path.parent.resolve()
    try:
        parent = (folder / name).resolve()
        near = parent.is_relative_to(folder.parent) and not Path(name).is_absolute()
        if near and parent.suffix in (".yaml", ".yml") and parent.is_file():
            return parent
    except (TypeError, ValueError, OSError, RuntimeError):  # no text, too long, or links in a circle
        pass
    raise RecipeError(
        f"{path}: extends: expected a YAML file, seen from this one's folder, below {folder.parent}, got {name!r:.60}."
    )


def _spread(content: dict[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """Replaces every arm with a ``sweep`` by one arm per learning rate. Returns the problems as well."""
    arms = content.get("arms")
    if not isinstance(arms, dict):
        return content, []
    spread: dict[Any, Any] = {}
    problems = []
    for name, arm in arms.items():
        rates = arm.get("sweep") if isinstance(arm, dict) and "lr" not in arm else None
        if not isinstance(rates, list) or not all(isinstance(rate, int | float) for rate in rates):
            spread[name] = arm
            continue
        rest = {key: value for key, value in arm.items() if key != "sweep"}
        if not rates:
            problems.append(f"arms.{name}.sweep: got no rate, expected one or more")
        for rate in rates:
            single = f"{name}-lr-{rate:g}"
            if single in spread or single in arms:
                problems.append(f"arms.{name}.sweep: {single} exists already: its name has 6 digits of the rate")
            spread[single] = {**rest, "lr": rate, "family": name}
    return {**content, "arms": spread}, problems


def _check(model: type[ModelT], content: dict[Any, Any], path: Path, problems: Sequence[str] = ()) -> ModelT:
    """Returns `content` as a `model`; `problems` were found before.

    Raises:
        RecipeError: a list of all problems.
    """
    details = []
    try:
        checked = model.model_validate(content)
        if not problems:
            return checked
    except ValidationError as error:
        details = error.errors(include_url=False)
    problems = [*problems, *(line for detail in details[:MOST_PROBLEMS] for line in _explain(model, detail))]
    more = len(problems) > MOST_PROBLEMS or len(details) > MOST_PROBLEMS
    count = f"more than {MOST_PROBLEMS} problems" if more else _count(problems)
    shown = [line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..." for line in problems[:MOST_PROBLEMS]]
    raise RecipeError("\n  ".join([f"{path}: {count}", *shown]))


def _count(problems: Sequence[str]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def _explain(model: type[StrictModel], detail: Any) -> list[str]:
    """Returns an error of pydantic in words: its path, what is wrong, and what to write instead."""
    # parts in brackets are not in the file: pydantic's mark of a bad key, and the kind of a line
    marked = detail["loc"]
    path = [part for part in marked if not str(part).startswith("[")]
    where = ".".join(f"{part!s:.60}" for part in path)
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if not where:  # a check of the whole recipe, whose lines name their paths
        return message.split("\n")
    match detail["type"]:
        case "missing":
            return [f"{where}: missing"]
        case "extra_forbidden":
            known = _keys(model, [part for part in marked[:-1] if part != "[key]"])
            return [f"{where}: unknown key.{did_you_mean(str(path[-1]), known)} Known: {', '.join(known)}"]
        case "string_pattern_mismatch":
            message = "a name has lower-case letters and digits, joined by single . _ or -"
        case "literal_error":
            message += did_you_mean(str(detail["input"]), re.findall(r"'([^']+)'", detail["ctx"]["expected"]))
        case "model_type":
            message = "expected keys and values"
    shown = "" if isinstance(detail["input"], dict | list) else f" (got {detail['input']!r:.60})"
    return [f"{where}: {message}{shown}"]


def _keys(model: Any, path: list[Any]) -> list[str]:
    """Returns the keys that the schema of `model` has at `path`."""
    for part in path:
        if str(part).startswith("["):  # one of several kinds
            model = next(kind for kind in get_args(model) if Tag(part) in get_args(kind))
        else:
            model = model.model_fields[part].annotation if _is_model(model) else get_args(model)[-1]
        model = _bare(model)
    return list(model.model_fields)


def _bare(annotation: Any) -> Any:
    """Returns X for X | None and for Annotated[X, ...]."""
    while not _is_model(annotation) and get_origin(annotation) not in (dict, list):
        parts = get_args(annotation)
        if get_origin(annotation) in (Union, UnionType) and NoneType not in parts:
            return annotation
        annotation = parts[0]
    return annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
