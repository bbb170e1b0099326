"""Acts on modules as soon as they have been executed, without importing them.

    act_after({"transformers.training_args": add_names})

A module that is loaded is acted on at once. Python tells nobody that another has been imported, so a finder stands in
``sys.meta_path`` until it has: it has the other finders find the module, and its loader act after theirs. It touches
no module but the awaited ones, and goes away with the last of them.

An action runs under the import lock of its module: no thread sees the module without it. It must import nothing that
the module may be needed for, since others import modules half-way: transformers.trainer imports
transformers.training_args.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Action = Callable[[], None]


def act_after(actions: Mapping[str, Action]) -> None:
    """Runs each action once its module has been executed. Actions that still wait for a module are replaced.

    An action may run twice, if two threads ask at once. What it raises is raised by the import of the module.
    """
    _finder.awaited.update(actions)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    for name in actions:
        if name in sys.modules:
            importlib.import_module(name)  # waits for a thread that is executing it
            _finder.act(name)


def forget() -> None:
    """Drops the actions that still wait."""
    _finder.awaited.clear()
    _finder.leave()


class _Finder(MetaPathFinder):
    def __init__(self) -> None:
        self.awaited: dict[str, Action] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.awaited:
            return None
        for finder in [other for other in sys.meta_path if other is not self]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, functools.partial(self.act, fullname))
                return spec
        return None

    def act(self, name: str) -> None:
        if action := self.awaited.get(name):
            action()
            self.awaited.pop(name, None)
        if not self.awaited:
            self.leave()

    def leave(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)


class _Loader(Loader):
    """Another loader, and an action after it."""

    def __init__(self, loader: Loader, action: Action) -> None:
        self._loader, self._action = loader, action

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._action()

    def __getattr__(self, name: str) -> Any:  # is_package, get_source, ...
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loader, name)


_finder = _Finder()
