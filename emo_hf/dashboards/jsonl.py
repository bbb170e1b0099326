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
import weakref
from pathlib import Path
from typing import Any

from emo_hf import run_folder
from emo_hf.errors import RecordError

logger = logging.getLogger(__name__)

FILE_NAME, RUN_NAME = run_folder.SIGNALS, run_folder.SETTINGS

LogRow = dict[str, Any]


def read_signals(path: str | os.PathLike[str]) -> list[LogRow]:
    """Returns the rows of a signals file, also of one that is being written.

    Raises:
        RecordError: A line other than the last is no row.
    """
    return [row for row, _ in _rows_and_rest(Path(path))[0]]


def read_new(path: Path, start: int) -> tuple[list[LogRow], int]:
    """Returns the rows of a growing file from byte ``start`` on, and the byte where the last whole one ends."""
    found, _ = _rows_and_rest(path, start)
    return [row for row, _ in found], start + sum(len(line) for _, line in found)


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


def rewind(path: Path, step: int) -> list[LogRow]:
    """Cuts off what follows ``step`` and returns the rows that stay.

    What is cut off (a torn last line as well) goes to ``<stem>.after-<step>.1.jsonl``, or the next free number. A
    crash in between leaves it in both places. A file that cannot be read is moved aside whole.
    """
    if not path.exists():
        return []
    try:
        rows, rest = _rows_and_rest(path)
    except RecordError as error:
        logger.warning("%s Starting a new file.", error)
        start_afresh(path)
        return []
    kept = [(row, line) for row, line in rows if row["step"] <= step]
    rest = b"".join(line for row, line in rows if row["step"] > step) + rest
    if rest:
        backup = _free_name(path, f"after-{step}.")
        write_whole(backup, rest)
        write_whole(path, b"".join(line for _, line in kept))
        logger.info("%s is back at step %d; what followed is in %s.", path, step, backup)
    return [row for row, _ in kept]


def describe(path: Path, settings: LogRow) -> None:
    """Writes down what the run is whose signals go to ``path``."""
    write_whole(path.with_name(RUN_NAME), json.dumps(settings, indent=2).encode())


def _rows_and_rest(path: Path, start: int = 0) -> tuple[list[tuple[LogRow, bytes]], bytes]:
    """Returns each row from byte ``start`` on with its line, and the torn last line, if there is one."""
    with path.open("rb") as file:
        file.seek(start)
        *lines, last = file.read().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line.decode())
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            after = f" after byte {start}" if start else ""
            raise RecordError(f'{path}, line {number}{after}: expected a row {{"step": ..., ...}}, got {line[:60]!r}.')
        rows.append((row, line + b"\n"))
    return rows, last


def write_whole(path: Path, content: bytes) -> None:
    """Writes the whole file or nothing, also through a loss of power.

    Raises:
        OSError: with the file's name, also where the system tells none (a full disk).
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
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
