"""Counts which way every branch of the core goes.

`instrumented` runs the source of the core's modules again with a counter in every ``if``, conditional expression, part
of an ``and`` or ``or``, and two-armed ``min`` and ``max``. A branch is named by its function and its expression; its
outcomes are True and False, or the index of the argument that won (a tie is neither's).
"""

import ast
import builtins
import importlib
import inspect
import sys
from collections import Counter
from types import ModuleType
from typing import Any

MODULES = ("emotion", "pulse", "mechanism", "updates", "shadow", "geometry")  # counted
ABOVE = ("spec", "optimizer", "versions", "families", "registry")  # run again on top of the counted ones
Branch = tuple[str, str]  # function, expression


class Hits:
    """How often each outcome of each branch was met."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[Branch, Any]] = Counter()

    def declare(self, branch: Branch, outcomes: tuple) -> None:
        for outcome in outcomes:
            self.counts[branch, outcome] += 0

    def choose(self, branch: Branch, value: Any) -> Any:
        self.counts[branch, bool(value)] += 1
        return value

    def clamp(self, branch: Branch, name: str, *values: float) -> float:
        if values[0] != values[1]:
            winner = getattr(builtins, name)(values)
            self.counts[branch, values.index(winner)] += 1
        return getattr(builtins, name)(*values)

    def missed(self) -> set[tuple[Branch, Any]]:
        return {key for key, count in self.counts.items() if not count}


class _Instrument(ast.NodeTransformer):
    def __init__(self, hits: Hits, module: str):
        self.hits, self.scope = hits, [module]

    def _count(self, node: ast.expr, call: str, outcomes: tuple, *arguments: ast.expr) -> ast.expr:
        branch = (".".join(self.scope), ast.unparse(node))
        self.hits.declare(branch, outcomes)
        counter = ast.Attribute(ast.Name("hits_", ast.Load()), call, ast.Load())
        return ast.copy_location(ast.Call(counter, [ast.Constant(branch), *arguments], []), node)

    def _chosen(self, node: ast.expr) -> ast.expr:
        return self._count(node, "choose", (True, False), self.visit(node))

    def _scoped(self, node: Any) -> Any:
        self.scope.append(node.name)
        self.generic_visit(node)
        self.scope.pop()
        return node

    visit_FunctionDef = visit_ClassDef = _scoped

    def visit_If(self, node: ast.If) -> ast.If:
        node.test = self._chosen(node.test)
        node.body = [self.visit(x) for x in node.body]
        node.orelse = [self.visit(x) for x in node.orelse]
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.IfExp:
        return ast.copy_location(
            ast.IfExp(self._chosen(node.test), self.visit(node.body), self.visit(node.orelse)), node
        )

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.BoolOp:
        *parts, last = node.values  # the last part decides nothing in itself, but a comparison is worth counting
        last = self._chosen(last) if isinstance(last, ast.Compare) else self.visit(last)
        return ast.copy_location(ast.BoolOp(node.op, [*map(self._chosen, parts), last]), node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if isinstance(node.func, ast.Name) and node.func.id in ("min", "max") and len(node.args) == 2:
            arguments = [self.visit(x) for x in node.args]
            return self._count(node, "clamp", (0, 1), ast.Constant(node.func.id), *arguments)
        return self.generic_visit(node)


def instrumented(monkeypatch: Any) -> tuple[ModuleType, Hits]:
    """Returns a registry of its own, built on counting copies of the core's modules, and its counter."""
    hits = Hits()
    for name in (*MODULES, *ABOVE):
        original = importlib.import_module(f"emo_hf.{name}")
        tree = ast.parse(inspect.getsource(original))
        if name in MODULES:
            tree = ast.fix_missing_locations(_Instrument(hits, name).visit(tree))
        copy = ModuleType(original.__name__)
        copy.__dict__["hits_"] = hits
        monkeypatch.setitem(sys.modules, copy.__name__, copy)
        monkeypatch.setattr(f"emo_hf.{name}", copy)
        exec(compile(tree, original.__file__, "exec"), copy.__dict__)
    return copy, hits
