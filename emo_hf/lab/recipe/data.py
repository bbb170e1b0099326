"""Where the examples come from: the package, a set in its original files, one's own files, or the hub.

A recipe names its own files by a path below its folder, or below the folder that ``--data-dir`` names. So it cannot
reach anything else: `emo_hf.lab.sources.own` follows links before it looks where a file lies.
"""

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.fields import LARGEST_COUNT, StrictModel, Text

TaskType = Literal["sequence-classification", "causal-lm", "image-classification"]
FileSet = Literal["trec-6", "trec-50", "fashion-mnist", "tinyshakespeare", "wikitext-2"]
# the sets that a task can read, from files in their original format or from the package
READS: dict[TaskType, tuple[str, ...]] = {
    "sequence-classification": ("trec-6", "trec-50", "sentences"),
    "causal-lm": ("tinyshakespeare", "wikitext-2", "sentences"),
    "image-classification": ("fashion-mnist",),
}
# the columns that a task learns from
LEARNS: dict[TaskType, tuple[tuple[str, ...], ...]] = {
    "sequence-classification": (("text", "label"),),
    "causal-lm": (("text",), ("prompt", "completion")),
    "image-classification": (("text", "label"),),
}
COLUMNS = ("text", "label", "prompt", "completion")


def _of_the_hub(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", name):
        raise ValueError(f"expected owner/name, as on the hub, got {name!r}")
    return name


def _share_or_count(value: Any) -> int | float:
    if type(value) is int and 1 <= value <= LARGEST_COUNT:
        return value
    if isinstance(value, float) and 0 < value < 1:
        return value
    raise ValueError(f"expected a share between 0 and 1, or a number of examples from 1 to {LARGEST_COUNT}")


Repository = Annotated[str, AfterValidator(_of_the_hub)]
Holdout = Annotated[int | float, PlainValidator(_share_or_count)]


class Hub(StrictModel):
    """A repository of the Hugging Face hub at one commit.

    Attributes:
        name: owner/name.
        revision: the commit, or a tag. A branch can change between two runs.
    """

    name: Repository
    revision: Text

    def refuse_folder(self) -> None:
        """Raises `RecipeError` if something here has this name: the libraries would read it in place of the hub."""
        if os.path.lexists(self.name):
            raise RecipeError(
                f"{self.name} is to come from the hub, but {Path.cwd()} has a file or folder of that name, which would"
                " be read in its place: start in another folder."
            )


class HubData(Hub):
    """A data set of the hub, and the columns to read, as in one's own tables.

    Attributes:
        config: the name of its configuration, where it has several.
        text: column of the texts; the images of an image set.
        label: column of the classes.
        prompt: column of the prompts.
        completion: column of what a language model is to answer.
    """

    config: Text | None = None
    text: Text | None = None
    label: Text | None = None
    prompt: Text | None = None
    completion: Text | None = None


class Data(StrictModel):
    """Where the examples come from: one of `embedded`, `files`, `hub`, `csv`, `json`, `parquet`, `saved` and `text`.

    Attributes:
        embedded: a set that comes with the package.
        hub: a data set of the hub. With `files` as well, the folder of ``--data-dir`` is read if there is one.
        files: a set in its original files, in the folder that ``--data-dir`` names.
        csv: one's own table of comma-separated values; in a file ``.tsv`` tabs separate them. The first line names
            the columns.
        json: one's own table as JSON lines, or as one JSON list of objects.
        parquet: one's own table in Parquet.
        saved: one's own folder that ``save_to_disk`` of `datasets` wrote.
        text: beside a table, its column of texts. By itself a text file, or a folder whose files ``.txt`` are read in
            the order of their names; only a language model learns from these.
        label: column of the classes: text, whole numbers, or true and false.
        prompt: column of the prompts. A language model reads them, and the loss is on the completions only.
        completion: column of what it is to answer.
        test: what to evaluate on: a second file or folder of the same kind, or the name of a split, for `hub` and for
            a saved folder of several splits (there "test" unless given).
        holdout: instead of a test set: a share of the training examples, or their number. They are not trained on.
            A digest of the texts chooses them, so the same ones in every run, and equal texts stay together. Of
            running text it is the beginning, and the number counts pieces of ``max_tokens``.
    """

    embedded: Literal["sentences"] | None = None
    hub: HubData | None = None
    files: FileSet | None = None
    csv: Text | None = None
    json_file: Annotated[Text | None, Field(alias="json")] = None  # a model of pydantic has a method json
    parquet: Text | None = None
    saved: Text | None = None
    text: Text | None = None
    label: Text | None = None
    prompt: Text | None = None
    completion: Text | None = None
    test: Text | None = None
    holdout: Holdout | None = None

    @property
    def table(self) -> tuple[str, str] | None:
        """The format and the path of one's own table."""
        tables = {"csv": self.csv, "json": self.json_file, "parquet": self.parquet, "saved": self.saved}
        return next(((kind, path) for kind, path in tables.items() if path), None)

    @property
    def own(self) -> tuple[str, str] | None:
        """The format and the path of one's own table or texts."""
        others = self.table or self.embedded or self.hub or self.files
        return self.table if others else ("text", self.text) if self.text else None

    @property
    def columns(self) -> dict[str, str]:
        """The columns to read by what they are for; none of a set without columns."""
        place = self.hub or (self if self.table else None)
        named = ((key, getattr(place, key, None)) for key in COLUMNS)
        return {key: name for key, name in named if name}

    @property
    def held_pieces(self) -> int | None:
        """How many pieces of a running text are held out; those of a table are rows."""
        return self.holdout if isinstance(self.holdout, int) and not self.table else None

    @property
    def needs_folder(self) -> bool:
        """Whether it can only be read from a local folder."""
        return bool(self.own or (self.files and not self.hub))

    @model_validator(mode="after")
    def _one_source(self) -> "Data":
        tables = [path for path in (self.csv, self.json_file, self.parquet, self.saved) if path]
        if len(tables) + bool(self.embedded) + bool(self.hub or self.files) + (self.own == ("text", self.text)) != 1:
            raise ValueError("give embedded, hub, files, hub and files, csv, json, parquet, saved or text")
        if not self.table and any((self.label, self.prompt, self.completion, self.text and not self.own)):
            raise ValueError("text, label, prompt and completion are columns of csv, json, parquet and saved")
        if self.own and self.own[0] != "saved" and (self.test is None) == (self.holdout is None):
            raise ValueError(f"{self.own[0]}: give test, a second file of its kind, or holdout, as in holdout: 0.1")
        if self.test and (self.holdout or self.embedded or self.files):
            raise ValueError("test: it goes neither with holdout, nor with embedded or files, which have their own")
        for key, path in (self.own or ("", ""), ("test", self.test if self.own else None)):
            if path and not _stays_below(path):
                raise ValueError(
                    f"{key}: expected a path below the recipe's folder or --data-dir, like train.csv, got {path!r:.80}"
                )
        return self


def _stays_below(path: str) -> bool:
    """Whether `path` reads as one below a folder, on every system; `emo_hf.lab.sources.own` follows its links."""
    pure = PurePosixPath(path)
    rooted = pure.is_absolute() or PureWindowsPath(path).drive or "\\" in path
    return not (rooted or ".." in pure.parts or "::" in path or "\0" in path)


def misfit(kind: TaskType, data: Data) -> str | None:
    """Returns why a task of `kind` cannot learn from `data`, if so."""
    for name in (data.embedded, data.files):
        if name and name not in READS[kind]:
            return f"{kind} does not read {name}, only {', '.join(READS[kind])}"
    if data.own and kind == "image-classification":
        return f"{kind} does not read {data.own[0]}, only {', '.join(READS[kind])} and sets of the hub"
    if data.own and not data.table:
        return None if kind == "causal-lm" else f"{kind} does not read text files, which have no labels: give a table"
    if (data.table or data.hub) and tuple(data.columns) not in LEARNS[kind]:
        wanted = " or ".join(" and ".join(columns) for columns in LEARNS[kind])
        return (
            f"data{'.hub' if data.hub else ''}: {kind} learns from the columns {wanted}, got"
            f" {' and '.join(data.columns) or 'none'}"
        )
    return None
