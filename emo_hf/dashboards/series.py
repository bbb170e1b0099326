"""`Series`: the values of one metric over the steps, as two columns; and how a file of rows becomes some.

    series = Series([1, 2], [0.5, 0.25])
    series.x, series.y           arrays of the steps, ascending, and of the values; nan: it was not finite
    series[2], series.items()    as a dictionary of step -> value

A million rows of 26 signals are read in seconds, into 220 MB: by pyarrow where it is installed, block by block. A
block that it does not take (a damaged line, a value that was not finite) goes row by row, which tells the line.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emo_hf.dashboards.jsonl import NEWLINE, LogRow, parse_row
from emo_hf.dashboards.metrics import OF_ROWS
from emo_hf.reading import GREATEST

BLOCK = 2**22  # bytes that are read at once
SPARE = 8  # a series that grows gets an eighth more room than it needs

Steps = NDArray[np.int64]
Values = NDArray[np.float64]


class Series(Mapping[int, float]):
    """Step -> value, in ascending order of the steps. A value that is given for a step a second time replaces it."""

    __slots__ = ("_size", "_x", "_y")

    def __init__(self, x: Any = (), y: Any = ()) -> None:
        """Takes the arrays as they are; steps may be shared by several series."""
        self._x: Steps = np.asarray(x, np.int64)
        self._y: Values = np.asarray(y, np.float64)
        self._size = len(self._x)
        self._tidy()

    @property
    def x(self) -> Steps:
        """The steps."""
        return self._x[: self._size]

    @property
    def y(self) -> Values:
        """The values; nan stands for one that was not finite."""
        return self._y[: self._size]

    @property
    def finite(self) -> Values:
        """The finite values, in the order of their steps."""
        return self.y[np.isfinite(self.y)]

    def since(self, step: int) -> Values:
        """Returns the values of the steps after `step`."""
        return self.y[np.searchsorted(self.x, step, "right") :]

    def reserve(self) -> None:
        """Makes room for an eighth more values, which are then added without a copy of all."""
        self._grow(self._size)

    def _grow(self, size: int) -> None:
        room = size + size // SPARE
        self._x, self._y = (_grown(column[: self._size], room) for column in (self._x, self._y))

    def extend(self, x: Steps, y: Values) -> None:
        """Adds values in place; where they follow the last step, in time proportional to their number."""
        if not len(x):
            return
        before, size = self._size, self._size + len(x)
        if size > len(self._x):
            self._grow(size)
        self._x[before:size], self._y[before:size] = x, y
        self._size = size
        self._tidy(max(before - 1, 0))

    def __setitem__(self, step: int, value: float) -> None:
        self.extend(np.array([step]), np.array([value], np.float64))

    def __getitem__(self, step: int) -> float:
        place = int(np.searchsorted(self.x, step))
        if place == self._size or self._x[place] != step:
            raise KeyError(step)
        return float(self._y[place])

    def __iter__(self) -> Iterator[int]:
        return iter(self.x.tolist())

    def __len__(self) -> int:
        return self._size

    def items(self) -> Any:
        return dict(zip(self.x.tolist(), self.y.tolist(), strict=True)).items()

    def values(self) -> Any:
        return dict(self.items()).values()

    def __repr__(self) -> str:
        return f"Series({dict(self.items())})"

    def _tidy(self, start: int = 0) -> None:
        """Sorts by step and keeps the last value of each, unless that is so from place `start` on."""
        if (np.diff(self.x[start:]) > 0).all():
            return
        order = np.argsort(self.x, kind="stable")
        x, y = self.x[order], self.y[order]
        last = np.append(x[1:] != x[:-1], True)
        self._x, self._y = x[last], y[last]
        self._size = len(self._x)


def _grown(column: NDArray[Any], room: int) -> NDArray[Any]:
    new = np.empty(room, column.dtype)
    new[: len(column)] = column
    return new


@dataclass(slots=True)
class Block:
    """A stretch of rows as columns, by metric.

    Attributes:
        columns: metric -> steps and values.
        end: the byte of the file where it ends.
        total_steps: the length of the training, if a row tells it.
    """

    columns: dict[str, tuple[Steps, Values]]
    end: int = 0
    total_steps: int | None = None


@dataclass(slots=True)
class Columns:
    """Gathers rows."""

    lists: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)

    def add(self, step: int, key: str, value: float) -> None:
        steps, values = self.lists.setdefault(key, ([], []))
        steps.append(step)
        values.append(value)

    def arrays(self) -> dict[str, tuple[Steps, Values]]:
        return {key: (np.array(x, np.int64), np.array(y, np.float64)) for key, (x, y) in self.lists.items()}


def read_blocks(path: Path, named: Any, start: int = 0) -> Iterator[Block]:
    """Yields the whole lines of a file of rows from byte `start` on, as blocks.

    Args:
        path: of the file.
        named: which metrics are in a row, a function of it that yields name and value.
        start: where a line begins.

    Raises:
        RecordError: a line is no row.
    """
    with path.open("rb") as file:
        file.seek(start)
        end, number = start, 1
        while lines := file.readlines(BLOCK):
            if not lines[-1].endswith(NEWLINE):
                lines.pop()  # torn: a row that is being written, or a run that was killed
            end += sum(map(len, lines))
            columns = _parsed(b"".join(lines), len(lines)) if len(lines) > 1 else None
            if columns is not None:
                yield Block(columns, end)
            else:
                after = f" after byte {start}" if start else ""
                rows = (parse_row(line, f"{path}, line {place}{after}") for place, line in enumerate(lines, number))
                yield gathered(rows, named, end)
            number += len(lines)


def joined(blocks: Iterable[Block]) -> Block:
    """Returns blocks of one file as one; metrics that are in the same rows share the array of their steps."""
    whole = Block({})
    steps: dict[str, list[Steps]] = {}
    values: dict[str, array[float]] = {}
    for block in blocks:
        whole.end, whole.total_steps = block.end, whole.total_steps if block.total_steps is None else block.total_steps
        for key, (x, y) in block.columns.items():
            steps.setdefault(key, []).append(x)
            values.setdefault(key, array("d")).frombytes(y.tobytes())  # in place: no second copy of all columns
    shared: dict[tuple[int, ...], Steps] = {}
    for key, parts in steps.items():
        same = tuple(map(id, parts))  # `steps` keeps these arrays alive
        if same not in shared:
            shared[same] = np.concatenate(parts)
        whole.columns[key] = shared[same], np.frombuffer(values[key])
    return whole


def gathered(rows: Iterable[LogRow], named: Any, end: int = 0) -> Block:
    """Returns rows as a block; see `read_blocks`."""
    columns, total = Columns(), None
    for row in rows:
        total = row.get("total_steps", total)
        for key, value in named(row):
            columns.add(row["step"], key, value)
    return Block(columns.arrays(), end, total)


def _parsed(lines: bytes, count: int) -> dict[str, tuple[Steps, Values]] | None:
    """Returns the columns of rows that hold finite signals and nothing else; None for any other."""
    if (arrow := _arrow()) is None or not lines.startswith(b'{"step": '):
        return None
    pa, reader, options = arrow
    try:
        table = reader.read_json(BytesIO(lines), reader.ReadOptions(block_size=len(lines) + 1), options)
    except pa.ArrowInvalid:
        return None
    if table.num_rows != count or table["step"].null_count or table["nonfinite"].null_count != count:
        return None
    steps = table["step"].to_numpy()
    columns = {}
    for metric in OF_ROWS:
        column = table[metric.key]
        if column.null_count == count:
            continue
        x, y = steps, column.to_numpy()
        if column.null_count:
            there = column.is_valid().to_numpy()
            x, y = x[there], y[there]
        columns[metric.key] = x, y
        if not np.isfinite(columns[metric.key][1]).all():
            return None
    return columns if ((steps >= 0) & (steps <= GREATEST)).all() else None


@cache
def _arrow() -> Any:
    """Returns pyarrow, its reader of JSON, and the options for rows of signals; None without it."""
    try:
        import pyarrow as pa
        from pyarrow import json as reader
    except ImportError:
        return None
    fields = [("step", pa.int64()), ("nonfinite", pa.list_(pa.string())), *((m.key, pa.float64()) for m in OF_ROWS)]
    return pa, reader, reader.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="error")


def to_float(value: Any) -> float | None:
    """Returns a float, nan for what is not finite, None for what is no number. W&B prints "NaN" and "Infinity"."""
    if value in ("NaN", "Infinity", "-Infinity"):
        return nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if isfinite(value) else nan
    except OverflowError:  # an integer that no float can hold
        return nan
