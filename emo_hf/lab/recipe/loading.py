"""From YAML text to a checked recipe. An error lists every problem with its path.

The loader is PyYAML's safe one with two corrections: ``1e-3`` is a number, and a key given twice is an error.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Tag, ValidationError

import emo_hf
from emo_hf.errors import RecipeError, did_you_mean
from emo_hf.hf import confidential
from emo_hf.lab.recipe.fields import StrictModel, with_new_keys
from emo_hf.lab.recipe.schema import FORMER, FunctionRecipe, Recipe, RunConfig

_PACKAGE = Path(emo_hf.__file__).parent
# The shipped recipes lie inside an installed package, and beside it in a checkout.
FOLDER = _PACKAGE / "recipes" if (_PACKAGE / "recipes").is_dir() else _PACKAGE.parent / "recipes"
ModelT = TypeVar("ModelT", bound=StrictModel)


def recipe(name: str) -> Recipe | FunctionRecipe:
    """Reads a recipe: a YAML file, or a shipped recipe by its name.

    Raises:
        RecipeError: there is no such file, or a list of its problems.
    """
    path = find(name)
    content = _extend(_content(path), path)
    if secrets := list(confidential.places(content)):
        raise RecipeError("\n  ".join([f"{path}: a recipe must not hold a key or a password", *secrets]))
    content, problems = _spread(content)
    task = content.get("task")
    if isinstance(task, dict) and task.get("type") == "function":
        return _check(FunctionRecipe, content, path, problems)
    return _check(Recipe, content, path, problems)


def run_config(path: Path) -> RunConfig:
    """Reads the ``config.yaml`` of a run."""
    return _check(RunConfig, _content(path), path)


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
    content = _content(path)
    text = re.sub(r"^# emo-hf run \S+", f"# emo-hf run {name}", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if "extends" in content:
        commands = [line for line in text.splitlines() if line.startswith("# emo-hf run ")]
        text = "\n".join([*commands, yaml.safe_dump(_extend(content, path), sort_keys=False, allow_unicode=True)])
    return text


def _content(path: Path) -> dict[Any, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    except RecursionError:
        raise RecipeError(f"{path} cannot be read: it is nested too deeply for a recipe.") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected keys and values, got {type(content).__name__}.")
    return content


def _extend(content: dict[Any, Any], path: Path) -> dict[Any, Any]:
    """Adds the keys that `content` lacks from the recipe that its ``extends`` names, one level deep."""
    if "extends" not in content:
        return content
    name = content.pop("extends")
    under = _content(_parent(name, path))
    if "extends" in under:
        raise RecipeError(f"{path}: extends {name}, which itself extends {under['extends']}: one level only.")
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
        f"{path}: extends: expected a YAML file, seen from this one's folder, below {folder.parent}, got {name!r}."
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
    problems = [*problems, *(line for detail in details for line in _explain(model, detail))]
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise RecipeError("\n  ".join([f"{path}: {count}", *problems]))


def _explain(model: type[StrictModel], detail: Any) -> list[str]:
    """Returns an error of pydantic in words: its path, what is wrong, and what to write instead."""
    # parts in brackets are not in the file: pydantic's mark of a bad key, and the kind of a line
    marked = detail["loc"]
    path = [part for part in marked if not str(part).startswith("[")]
    where = ".".join(map(str, path))
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
    shown = "" if isinstance(detail["input"], dict | list) else f" (got {detail['input']!r})"
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


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, ArithmeticError, AttributeError, LookupError) as error:  # 2001-99-99, !!int x
            message = f"no value can be made of {str(node.value)[:40]!r} ({error}); quote it if it is a word"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark) from None

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        float(value)  # OverflowError: no number of a recipe is that large
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                message = "expected a word as a key, got a list or a mapping"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
