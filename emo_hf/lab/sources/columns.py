"""From the columns of a table to what a task learns from. An error names table, column and row.

Rows count from 1, without the line that names the columns.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from emo_hf.errors import RecipeError, did_you_mean
from emo_hf.lab.sources.kinds import Completions, Example, Examples, Prompted, Text, held_out


class Table(NamedTuple):
    """The rows of a table, as a `datasets.Dataset` or anything like it, and what errors call it."""

    rows: Any
    name: str


def content(
    columns: Mapping[str, str], train: Table, test: Table | None, holdout: int | float | None = None
) -> Examples | Completions | Text:
    """Returns what a task learns from.

    Args:
        columns: what is read from which column, see `emo_hf.lab.recipe.data.LEARNS`.
        train: the table to learn from.
        test: the table to evaluate on. None: what is held out.
        holdout: for running text only, the share or number of rows to hold out.

    Raises:
        RecipeError: a column is missing, or holds something else.
    """
    if "label" in columns:
        return _examples(columns, train, test)
    if "prompt" in columns:
        return Completions(_prompted(columns, train), _prompted(columns, test) if test else ())
    name = columns["text"]
    read = texts(train, "text", name, may_be_empty=True)
    if holdout is None:
        return Text(stripped_lines(read), stripped_lines(texts(test, "text", name, may_be_empty=True)) if test else "")
    kept, held = held_out(read, read, holdout)
    return Text(stripped_lines(kept), stripped_lines(held))


def stripped_lines(rows: Any) -> str:
    """Joins the rows of a table, or lines, so that a file and the hub's data set give the same text."""
    return "\n".join(row.strip() for row in rows).strip() + "\n"


def _examples(columns: Mapping[str, str], train: Table, test: Table | None) -> Examples:
    found, tested = labels(train, columns["label"]), labels(test, columns["label"]) if test else []
    classes = in_order(set(found))
    if len(classes) < 2:
        raise RecipeError(
            f"{train.name}, column {columns['label']!r}: expected two classes or more, got {_few(classes)}."
        )
    if test and (new := in_order(set(tested) - set(classes))):
        raise RecipeError(
            f"{test.name}, column {columns['label']!r}: expected the classes of {train.name}, {_few(classes)}, got"
            f" {_few(new)} as well. Take these rows out, or add such rows to {train.name}."
        )
    return Examples(_labelled(columns, train, found), _labelled(columns, test, tested) if test else (), classes)


def in_order(names: Collection[str]) -> tuple[str, ...]:
    """Returns the names of classes sorted, and whole numbers by their size."""
    are_numbers = all(re.fullmatch(r"-?\d{1,18}", name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if are_numbers else 0, name)))


def _labelled(columns: Mapping[str, str], table: Table, found: list[str]) -> tuple[Example, ...]:
    pairs = zip(texts(table, "text", columns["text"]), found, strict=True)
    return tuple(Example(text, str(label)) for text, label in pairs)


def _prompted(columns: Mapping[str, str], table: Table) -> tuple[Prompted, ...]:
    prompts, completions = (texts(table, key, columns[key]) for key in ("prompt", "completion"))
    return tuple(map(Prompted, prompts, completions))


def _few(names: Any) -> str:
    """Returns the first names of a list that may be long."""
    shown = ", ".join(repr(f"{name:.40}") for name in names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def texts(table: Table, key: str, name: str, may_be_empty: bool = False) -> list[str]:
    """Returns a column of texts; `key` is what the recipe calls it."""
    values = _values(table, key, name)
    for number, value in enumerate(values, 1):
        if not isinstance(value, str) or not (value.strip() or may_be_empty):
            got = "an empty one" if isinstance(value, str) else _told(value)
            raise RecipeError(
                f"{table.name}, column {name!r}, row {number}: expected a text, got {got}. Give a column of texts as"
                f" {key}, or take the row out."
            )
    if not any(value.strip() for value in values):
        raise RecipeError(f"{table.name}, column {name!r}: expected text, got {len(values)} empty rows.")
    return values


def labels(table: Table, name: str) -> list[str]:
    """Returns a column of classes by their names; that of a number are its digits."""
    values = _values(table, "label", name)
    feature: Any = getattr(table.rows, "features", {}).get(name)
    if hasattr(feature, "int2str"):  # a ClassLabel, where -1 stands for none
        values = [feature.int2str(value) if value is not None and value >= 0 else None for value in values]
    return [_label(table, name, number, value) for number, value in enumerate(values, 1)]


def _label(table: Table, name: str, number: int, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():  # how some tables keep whole numbers
        return str(int(value))
    if isinstance(value, int) or (isinstance(value, str) and value.strip()):  # True is an int
        return str(value)
    got = "an empty one" if isinstance(value, str) else _told(value)
    raise RecipeError(
        f"{table.name}, column {name!r}, row {number}: expected a class (text or a whole number), got {got}. Give a"
        " column of classes as label, or take the row out."
    )


def _told(value: Any) -> str:
    return "none" if value is None else f"{value!r:.40} ({type(value).__name__})"


def _values(table: Table, key: str, name: str) -> list[Any]:
    known = table.rows.column_names
    if name not in known:
        raise RecipeError(
            f"{table.name} has no column {name!r}: expected the one that task.data names as {key} among {_few(known)}."
            f"{did_you_mean(name, known)}"
        )
    if not len(table.rows):
        raise RecipeError(f"{table.name} is empty: expected a row for each example, got none.")
    return list(table.rows[name])
