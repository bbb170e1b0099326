"""``emo_signals.jsonl``: one JSON object per line, ``{"step": 12, "emo/lr": 0.0003, ...}``.

Rows are only ever appended, each in one write, so that a reader or ``kill -9`` finds whole rows and at most a torn
last line. Nothing recorded is lost: what a resumed training cuts off and what another run left is kept beside it.

    emo_signals.jsonl                 this run
    emo_signals.after-100.1.jsonl     what followed step 100 before the run was resumed there
    emo_signals.1.jsonl               an earlier run in the same folder
    emo_run.json                      what this run is: its settings and its length
"""

import contextlib
import errno
import json
import logging
import os
import re
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from emo_hf import run_folder
from emo_hf.errors import RecordError
from emo_hf.reading import is_count, is_number, shown
from emo_hf.signals import PREFIX

logger = logging.getLogger(__name__)

FILE_NAME, RUN_NAME = run_folder.SIGNALS, run_folder.SETTINGS
NUMBERS = re.compile(r"loss|grad_norm|learning_rate|train_loss|train_runtime|eval_(.*_)?loss")  # of Trainer
NEWLINE = b"\n"
PIECE = 2**20  # bytes copied at once

LogRow = dict[str, Any]


def read_signals(path: str | os.PathLike[str]) -> list[LogRow]:
    """Returns the rows of a signals file, also of one that is being written.

    Raises:
        RecordError: A line other than the last is no row.
    """
    return list(iterate(Path(path)))


def iterate(path: Path) -> Iterator[LogRow]:
    """Yields the rows of a signals file one by one; see `read_signals`."""
    return (row for row, _ in _rows(path))


def read_new(path: Path, start: int) -> tuple[list[LogRow], int]:
    """Returns the rows of a growing file from byte ``start`` on, and the byte where the last whole one ends."""
    found = list(_rows(path, start))
    return [row for row, _ in found], found[-1][1] if found else start


def parse_row(line: bytes, place: str) -> LogRow:
    """Returns the row in a line of a signals file or a history.

    Raises:
        RecordError: It is none, or a value in it is of the wrong type.
    """
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or "step" not in row:
        raise RecordError(f'{place}: expected a row {{"step": ..., ...}}, got {shown(line.rstrip(NEWLINE))}.')
    check_row(row, place)
    return row


def check_row(row: LogRow, place: str) -> None:
    """Looks at the types in a row of signals, or of what Trainer logs; values with other names may be anything.

    Raises:
        RecordError: One is wrong.
    """
    if not is_count(row["step"]):
        raise RecordError(f"{place}: expected a row with the number of its step, got step {shown(row['step'])}.")
    for name, value in row.items():
        if (name.startswith(PREFIX) or NUMBERS.fullmatch(name)) and not (value is None or is_number(value)):
            raise RecordError(f"{place}: {shown(name)[1:-1]}: expected a number, got {shown(value)}.")
    names = row.get("nonfinite", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RecordError(f"{place}: nonfinite: expected a list of names, got {shown(names)}.")
    if not is_count(row.get("total_steps", 0)):
        raise RecordError(f"{place}: total_steps: expected a whole number, got {shown(row['total_steps'])}.")


class JsonlSink:
    """Appends rows to a file. A row that cannot be written whole (a full disk) leaves nothing behind."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)  # a buffer would keep a failed row and write it later
        self._close = weakref.finalize(self, self._file.close)  # also when the training was interrupted
        self._end = path.stat().st_size
        self._torn = False

    def write(self, row: LogRow) -> None:
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        if self._torn:
            self._file.truncate(self._end)
        self._torn = True
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "only a part of the row was written")
        self._torn = False
        self._end += len(line)

    def close(self) -> None:
        if self._torn:
            self._file.truncate(self._end)
        self._close()


def start_afresh(path: Path) -> None:
    """Makes way for a new file: moves what another run left to ``<stem>.1.jsonl``, or the next free number."""
    if path.exists() and path.stat().st_size:
        aside = _free_name(path, "")
        path.replace(aside)
        logger.info("%s was of another run and is now %s.", path, aside)


def rewind(path: Path, step: int) -> LogRow:
    """Cuts off what follows ``step`` and returns the last row that stays, an empty one if none does.

    What is cut off (a torn last line as well) goes to ``<stem>.after-<step>.1.jsonl``, or the next free number. A
    crash in between leaves it in both places. A file that cannot be read is moved aside whole.
    """
    if not path.exists():
        return {}
    last: LogRow = {}
    kept: list[tuple[int, int]] = []  # bytes from and to
    cut: list[tuple[int, int]] = []
    begin = 0
    try:
        for row, end in _rows(path):
            _join(kept if row["step"] <= step else cut, begin, end)
            last, begin = row if row["step"] <= step else last, end
    except RecordError as error:
        logger.warning("%s Starting a new file.", error)
        start_afresh(path)
        return {}
    if begin < path.stat().st_size:
        _join(cut, begin, path.stat().st_size)
    if cut:
        backup = _free_name(path, f"after-{step}.")
        write_whole(backup, _parts(path, cut))
        write_whole(path, _parts(path, kept))
        logger.info("%s is back at step %d; what followed is in %s.", path, step, backup)
    return last


def _join(ranges: list[tuple[int, int]], begin: int, end: int) -> None:
    """Adds a range of bytes in place, to the last one if it follows it."""
    if ranges and ranges[-1][1] == begin:
        begin = ranges.pop()[0]
    ranges.append((begin, end))


def _parts(path: Path, ranges: list[tuple[int, int]]) -> Iterator[bytes]:
    """Yields these ranges of bytes of a file, in pieces."""
    with path.open("rb") as file:
        for begin, end in ranges:
            file.seek(begin)
            while begin < end and (piece := file.read(min(PIECE, end - begin))):
                begin += len(piece)
                yield piece


def describe(path: Path, settings: LogRow) -> None:
    """Writes down what the run is whose signals go to ``path``."""
    write_whole(path.with_name(RUN_NAME), json.dumps(settings, indent=2).encode())


def _rows(path: Path, start: int = 0) -> Iterator[tuple[LogRow, int]]:
    """Yields each row from byte ``start`` on and the byte where it ends, but for a torn last line."""
    with path.open("rb") as file:
        file.seek(start)
        end, after = start, f" after byte {start}" if start else ""
        for number, line in enumerate(file, start=1):
            if line.endswith(NEWLINE):
                end += len(line)
                yield parse_row(line, f"{path}, line {number}{after}"), end


def write_whole(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Writes the whole file or nothing, also through a loss of power; `content` may come in pieces.

    Raises:
        OSError: with the file's name, also where the system tells none (a full disk).
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the folder may be what is missing
            part.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _free_name(path: Path, tag: str) -> Path:
    number = 1
    while (free := path.with_name(f"{path.stem}.{tag}{number}{path.suffix}")).exists():
        number += 1
    return free
