"""From a YAML file to keys and values, within bounds: nobody waits for a file that somebody else has written.

The loader is PyYAML's safe one, but

    ``1e-3``                       is a number
    a key given twice              is an error
    ``!!binary``, dates, sets      are errors: a recipe has numbers, words, lists and keys
    size, depth, number of values  are bounded; an alias counts as all the values that it stands for, before anything
                                   is built of them, and may not stand within its own anchor
"""

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from emo_hf.errors import RecipeError

MOST_BYTES = 100_000  # the longest recipe of ours has 4,000
MOST_VALUES = 10_000  # keys included
DEEPEST = 20  # the deepest recipe of ours has 8
KINDS = ("null", "bool", "int", "float", "str", "seq", "map")


def read(path: Path) -> dict[Any, Any]:
    """Returns the content of a YAML file.

    Raises:
        RecipeError: it cannot be read, is beyond the bounds, or holds something else than keys and values.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise RecipeError(f"{path} cannot be read: it has more than {MOST_BYTES:,} bytes, too many for a recipe.")
        content = yaml.load(text.decode("utf-8"), Loader=Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected keys and values, got {type(content).__name__}.")
    return content


class Loader(yaml.SafeLoader):
    yaml_constructors = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag and tag.rpartition(":")[2] in KINDS
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}  # of the nodes that are complete, by their ids

    # -- bounds: composing makes nodes of the file, and calls itself for what is within one

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        start = self.peek_event().start_mark
        alias = self.peek_event().anchor if self.check_event(yaml.AliasEvent) else None
        self._depth += 1
        if self._depth > DEEPEST:
            raise ConstructorError(None, None, f"nested too deeply for a recipe, by more than {DEEPEST} levels", start)
        before = self._values
        node = super().compose_node(parent, index)
        if alias is None:
            self._values += 1
            self._sizes[id(node)] = self._values - before
        elif id(node) not in self._sizes:
            raise ConstructorError(None, None, f"*{alias} stands within what it is a name of", start)
        else:
            self._values += self._sizes[id(node)]
        if self._values > MOST_VALUES:
            message = (
                f"more than {MOST_VALUES:,} values, too many for a recipe (an alias counts as all that it stands for)"
            )
            raise ConstructorError(None, None, message, start)
        self._depth -= 1
        return node

    # -- values

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, ArithmeticError, AttributeError, LookupError) as error:  # !!int x
            raise _no_value(node, str(error)) from None

    def construct_undefined(self, node: yaml.Node) -> Any:
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        raise _no_value(node, f"{kind:.40} is no kind of value in a recipe")

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        float(value)  # OverflowError: no number of a recipe is that large
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "expected a word as a key, got a list or a mapping", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"{key.value[:60]!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _no_value(node: yaml.Node, why: str) -> ConstructorError:
    message = f"no value can be made of {str(node.value)[:40]!r} ({why}); quote it if it is a word"
    return ConstructorError(None, None, message, node.start_mark)


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
Loader.add_constructor(None, Loader.construct_undefined)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
