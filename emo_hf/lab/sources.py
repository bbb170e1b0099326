"""Labelled texts, from the package, a local folder or the hub, all in one shape.

Reading checks everything: a bad file is one `RecipeError` with its name and line, before any training starts.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from emo_hf.errors import RecipeError
from emo_hf.lab.spec import Cell
from emo_hf.lab.task import HubData

TREC_FILES = {"train": "train_5500.label", "test": "TREC_10.label"}
TREC_CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")


@dataclass(frozen=True, slots=True)
class Example:
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Examples:
    """Training and evaluation examples of one task."""

    train: tuple[Example, ...]
    test: tuple[Example, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, sorted: a label's place is its class number."""
        return tuple(sorted({example.label for example in (*self.train, *self.test)}))

    @property
    def sha256(self) -> str:
        """Fingerprint of texts, labels and split."""
        digest = hashlib.sha256()
        for split, part in (("train", self.train), ("test", self.test)):
            for example in part:
                digest.update(f"{split}\t{example.label}\t{example.text}\n".encode())
        return digest.hexdigest()


def examples(cell: Cell) -> Examples:
    """Reads what `cell` trains and evaluates on.

    Raises:
        RecipeError: the data is missing, malformed or out of reach.
    """
    data, scale = cell.task.data, cell.scale
    if cell.data_dir is not None:
        found = trec(Path(cell.data_dir))
    elif data.embedded:
        found = sentences()
    else:
        found = hub(data.hub)
    if data.holdout is not None:
        found = hold_out(found, data.holdout)
    return Examples(found.train[: scale.train_examples], found.test[: scale.test_examples])


def sentences() -> Examples:
    """The shipped set: sentences of a play without the mark that ended them (see ``data/README.md``)."""
    text = resources.files("emo_hf.lab").joinpath("data/sentences.tsv").read_text(encoding="utf-8")
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for line in text.splitlines()[1:]:
        split, label, sentence = line.split("\t")
        splits[split].append(Example(sentence, label))
    return Examples(tuple(splits["train"]), tuple(splits["test"]))


def trec(folder: Path) -> Examples:
    """The question classification set of Li and Roth (2002) in its original files, with its six coarse labels."""
    if not folder.is_dir():
        raise RecipeError(f"--data-dir {folder} is no folder: expected one with {' and '.join(TREC_FILES.values())}.")
    return Examples(**{split: tuple(_trec_file(folder / name)) for split, name in TREC_FILES.items()})


def _trec_file(path: Path) -> Iterator[Example]:
    try:
        text = path.read_text(encoding="latin-1")  # not UTF-8: one byte of the training file says so
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}.") from None
    if not text.strip():
        raise RecipeError(f"{path} is empty.")
    # not splitlines(): in latin-1 the byte 0x85 is a line break to it
    for number, line in enumerate(text.rstrip("\n").split("\n"), start=1):
        label, _, question = line.rstrip("\r").partition(" ")
        coarse, colon, fine = label.partition(":")
        if not (colon and fine and question.strip() and coarse in TREC_CLASSES):
            raise RecipeError(
                f"{path}, line {number}: expected 'COARSE:fine question' with COARSE one of "
                f"{', '.join(TREC_CLASSES)}, got {line[:60]!r}."
            )
        yield Example(question.strip(), coarse)


def hub(data: HubData) -> Examples:
    """A data set of the hub, or of its local cache."""
    import datasets

    try:
        splits = datasets.load_dataset(data.name, revision=data.revision)
        return Examples(*(_rows(splits[split], data) for split in ("train", "test")))
    except Exception as error:  # the hub, its cache and the readers raise whatever they like
        raise RecipeError(
            f"The data set {data.name} at revision {data.revision} cannot be loaded from the Hugging Face hub or its"
            f" cache ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'})."
            " Check the network, or give a local folder with --data-dir."
        ) from error


def _rows(split, data: HubData) -> tuple[Example, ...]:
    label = split.features[data.label]
    named = label.int2str if hasattr(label, "int2str") else str
    return tuple(Example(row[data.text], named(row[data.label])) for row in split)


def hold_out(found: Examples, count: int) -> Examples:
    """Evaluates on `count` training examples, taken out of the training, and forgets the test set.

    They are chosen by a SHA-256 of their text; equal texts stay together, so none is on both sides.
    """
    if count >= len(found.train):
        raise RecipeError(f"holdout {count}: there are only {len(found.train)} training examples.")
    copies = Counter(example.text for example in found.train)
    held: set[str] = set()
    room = count
    # with a word in front: a data set may itself be chosen or sorted by the plain digest
    for text in sorted(copies, key=lambda text: hashlib.sha256(f"holdout {text}".encode()).digest()):
        if copies[text] <= room:
            held.add(text)
            room -= copies[text]
    train = tuple(example for example in found.train if example.text not in held)
    return Examples(train, tuple(example for example in found.train if example.text in held))
