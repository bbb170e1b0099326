"""Data of one's own: tables as CSV, JSON, Parquet or saved by `datasets`, and text files.

Everything lies below one folder, also after links were followed. Nothing is unpacked, and nothing stays in a cache:
the files are read anew each time.
"""

import codecs
import csv
import glob
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.data import Data
from emo_hf.lab.sources.columns import Table, content
from emo_hf.lab.sources.kinds import Completions, Examples, Text

CHUNK = 1 << 20  # bytes


def read(data: Data, folder: Path) -> Examples | Completions | Text:
    """Reads one's own data; what is held out of a running text's rows is held out already.

    Args:
        data: with `own`.
        folder: that all paths are seen from.

    Raises:
        RecipeError: a file is missing, outside of `folder`, or holds something else.
    """
    assert data.own is not None
    form, place = data.own
    if form == "text":
        train = texts(folder, place, "text")
        return Text(train, texts(folder, data.test, "test") if data.test else "")
    train_table, test_table = tables(form, place, data, folder)
    return content(data.columns, train_table, test_table, data.holdout)


def tables(form: str, place: str, data: Data, folder: Path) -> tuple[Table, Table | None]:
    """Returns the table to train on, and the one to evaluate on unless `data` holds examples out."""
    if form != "saved":
        return table(form, folder, place, form), table(form, folder, data.test, "test") if data.test else None
    splits = saved(folder, place, "saved")
    if not isinstance(splits, dict):  # a DatasetDict is one
        if data.test is None and data.holdout is None:
            raise RecipeError(f"{place} holds one split: give test, a second folder, or holdout, as in holdout: 0.1.")
        test = data.test and saved(folder, data.test, "test")
        if isinstance(test, dict):
            raise RecipeError(f"task.data.test: {data.test} holds several splits: expected one, as {place}.")
        return Table(splits, place), Table(test, str(data.test)) if data.test else None
    return of_splits(splits, data, place)


def of_splits(splits: Any, data: Data, name: str) -> tuple[Table, Table | None]:
    """Returns the splits to train and to evaluate on."""
    wanted = ["train"] if data.holdout else ["train", data.test or "test"]
    if missing := [split for split in wanted if split not in splits]:
        raise RecipeError(
            f"{name} has no split {missing[0]!r}, only {', '.join(splits)}. Name one by task.data.test, or hold"
            " examples out by task.data.holdout, as in holdout: 0.1."
        )
    found = [Table(splits[split], f"{name}, split {split}") for split in wanted]
    return found[0], found[1] if len(found) > 1 else None


# ---- files


def inside(folder: Path, place: str, key: str) -> Path:
    """Returns the path of `place` below `folder`, with all links followed; `key` of task.data names it."""
    root = folder.resolve()
    try:
        path = (root / place).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # RuntimeError: links in a circle
        raise RecipeError(
            f"task.data.{key}: {place} is missing in {folder}. Paths start at the recipe's folder, or at --data-dir."
        ) from None
    if not path.is_relative_to(root) or path == root:
        raise RecipeError(f"task.data.{key}: {place} leads out of {folder} by a link: put a copy there.")
    if "::" in str(path):
        raise RecipeError(f"task.data.{key}: {path}: datasets cannot read a path with '::': rename it.")
    return path


def _file(folder: Path, place: str, key: str) -> Path:
    path = inside(folder, place, key)
    if not path.is_file():
        raise RecipeError(f"task.data.{key}: {place} is a folder: expected a file.")
    if not path.stat().st_size:
        raise RecipeError(f"{place} is empty.")
    return path


def _check_text(path: Path, name: str) -> None:
    """Raises `RecipeError` if a file is not UTF-8, or may be packed: `datasets` would unpack it."""
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            try:
                if "\0" in decoder.decode(chunk, final=len(chunk) < CHUNK):
                    raise RecipeError(f"{name} is no text: it holds a byte 0. Unpack it, or save it as UTF-8.")
            except UnicodeDecodeError:
                raise RecipeError(
                    f"{name} is no UTF-8 text: see its bytes from {done} on. Unpack it, or save it as UTF-8."
                ) from None
            done += len(chunk)


# ---- tables


def table(form: str, folder: Path, place: str, key: str) -> Table:
    """Reads one file of the format csv, json or parquet."""
    path = _file(folder, place, key)
    options: dict[str, Any] = {}
    if form == "parquet":
        with path.open("rb") as file:
            if file.read(4) != b"PAR1":
                raise RecipeError(f"{place} is no Parquet file: expected one that begins with PAR1.")
    else:
        _check_text(path, place)
    if form == "csv":
        options = _csv_options(path, place)
    return Table(_load(form, [path], place, **options), place)


def _csv_options(path: Path, name: str) -> dict[str, Any]:
    """Every cell is a text, as it stands there: "NA" is no missing value, and 01 is not 1."""
    import datasets

    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, delimiter=separator)
        try:
            names, first = next(rows, []), next(rows, [])
        except csv.Error as error:
            raise RecipeError(f"{name}: its first lines are no rows of a table: {error}.") from None
    if len(first) > len(names):  # pandas would take the first cell for a number of the row
        raise RecipeError(f"{name}: its first line names {len(names)} columns, and its second has {len(first)} cells.")
    header = [column or f"Unnamed: {place}" for place, column in enumerate(names)]  # as pandas calls them
    if double := {column for column in header if header.count(column) > 1}:
        raise RecipeError(f"{name}: its first line names {sorted(double)[0]!r} twice: rename a column.")
    return {
        "sep": separator,
        "encoding": "utf-8-sig",
        "na_filter": False,
        "features": datasets.Features({column: datasets.Value("string") for column in header}),
    }


def _load(form: str, paths: list[Path], name: str, **options: Any) -> Any:
    """Returns the rows of files, in memory."""
    import datasets

    files = [glob.escape(str(path)) for path in paths]
    with tempfile.TemporaryDirectory(prefix="emo-hf-") as cache, _readable(name), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # datasets 4.0 leaves closing a table to the collector
        return datasets.load_dataset(
            form, data_files={"train": files}, split="train", cache_dir=cache, keep_in_memory=True, **options
        )


def saved(folder: Path, place: str, key: str) -> Any:
    """Reads a folder of ``save_to_disk``: a `Dataset`, or a `DatasetDict`."""
    import datasets

    path = inside(folder, place, key)
    if not path.is_dir():
        raise RecipeError(
            f"task.data.{key}: {place} is a file: expected a folder that save_to_disk of datasets wrote."
        )
    for file in path.rglob("*"):
        inside(folder, str(file.relative_to(folder.resolve())), key)
        if file.name in ("state.json", "dataset_dict.json") and not _names_its_own(file):
            raise RecipeError(
                f"task.data.{key}: {place}: its {file.name} is damaged, or names files of other folders."
            )
    with _readable(place):
        return datasets.load_from_disk(str(path), keep_in_memory=True)


def _names_its_own(file: Path) -> bool:
    """Whether the list of a saved data set's files names those beside it only."""
    try:
        state = json.loads(file.read_bytes())
        names = [*state.get("splits", []), *(each["filename"] for each in state.get("_data_files", []))]
        return all(Path(name).name == name and "\\" not in name for name in names)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Shows no progress, and tells in one line why the files cannot be read."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    except Exception as error:  # pandas, pyarrow and datasets raise all kinds of errors
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        told = str(cause).strip().splitlines()
        if "corresponds to no data" in str(cause):  # datasets' words for no row
            raise RecipeError(f"{name} is empty: expected a row for each example, got none.") from error
        raise RecipeError(f"{name} cannot be read ({told[0] if told else type(cause).__name__}).") from error
    finally:
        if shown:
            datasets.enable_progress_bars()


# ---- running text


def texts(folder: Path, place: str, key: str) -> str:
    """Reads a text file, or the files ``.txt`` below a folder in the order of their names, each from a new line on."""
    path = inside(folder, place, key)
    paths = [path]
    if path.is_dir():
        named = sorted(file.relative_to(folder.resolve()).as_posix() for file in path.rglob("*.txt"))
        paths = [file for file in (inside(folder, name, key) for name in named) if file.is_file()]
        if not paths:
            raise RecipeError(f"task.data.{key}: {place} holds no file .txt: expected a folder of text files.")
    for file in paths:
        _check_text(file, file.name)
    rows = _load("text", paths, place, sample_by="document", encoding="utf-8-sig")["text"]
    text = "".join(row if row.endswith("\n") else f"{row}\n" for row in rows)
    if not text.strip():
        raise RecipeError(f"{place} is empty.")
    return text
