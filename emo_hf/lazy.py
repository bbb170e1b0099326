"""Names of a package that are imported when they are first used (PEP 562).

    __getattr__, __dir__ = lazy.names(__name__, {"emo_hf.families": ["EmoSens"]})

A package says the same under ``if TYPE_CHECKING``, as plain imports, for type checkers and editors.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def names(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the ``__getattr__`` and the ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        homes: module -> the names that it has for the package. A module's own name stands for itself.
    """
    found = {name: home for home, there in homes.items() for name in there}

    def __getattr__(name: str) -> Any:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(found[name])
        value = module if found[name] == f"{package}.{name}" else getattr(module, name)
        vars(sys.modules[package])[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *found})

    return __getattr__, __dir__
