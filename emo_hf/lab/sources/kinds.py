"""What a task learns from. Each kind has ``train`` and ``test``, and a ``sha256`` of both.

Labelled kinds can be shortened, held out and made noisy. A digest makes every choice, so it is the same in every run.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import TypeVar

import numpy as np

from emo_hf.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Example:
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Examples:
    """Training and evaluation texts of one task.

    Attributes:
        labels: all labels of the whole set, sorted. The place of a label is its class number.
    """

    train: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.labels:
            labels = {example.label for example in (*self.train, *self.test)}
            object.__setattr__(self, "labels", tuple(sorted(labels)))

    @property
    def sha256(self) -> str:
        """Fingerprint of texts, labels and split."""
        return _fingerprint(*((f"{each.label}\t{each.text}" for each in part) for part in (self.train, self.test)))

    def hold_out(self, holdout: int | float) -> "Examples":
        """Moves a number or share of the training examples to the test part, and forgets the test set."""
        return Examples(*held_out(self.train, [example.text for example in self.train], holdout), self.labels)

    def first(self, train: int | None, test: int | None) -> "Examples":
        """Keeps the first `train` and `test` examples of the parts; None keeps all."""
        check_limits(train, test, len(self.train), len(self.test))
        return Examples(self.train[:train], self.test[:test], self.labels)

    def with_noise(self, share: float, seed: int) -> "Examples":
        """Replaces `share` of the training labels by another class."""
        clean = [self.labels.index(example.label) for example in self.train]
        noisy = noisy_labels(clean, share, seed, len(self.labels))
        train = (replace(e, label=self.labels[label]) for e, label in zip(self.train, noisy, strict=True))
        return Examples(tuple(train), self.test, self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Images of one channel.

    Attributes:
        pixels: uint8, (count, height, width).
        classes: int64, (count,).
    """

    pixels: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, which: slice | np.ndarray) -> "Pictures":
        return Pictures(self.pixels[which], self.classes[which])


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Training and evaluation images of one task.

    Attributes:
        labels: names of the classes. The place of a label is its class number.
        mean, std: of the pixels of the whole training set, in [0, 1]: what a model's input is normalized by.
    """

    train: Pictures
    test: Pictures
    labels: tuple[str, ...]
    mean: float
    std: float

    @property
    def sha256(self) -> str:
        """Fingerprint of pixels, classes and split."""
        digest = hashlib.sha256()
        for split, part in (("train", self.train), ("test", self.test)):
            digest.update(f"{split} {part.pixels.shape}\n".encode())
            digest.update(np.ascontiguousarray(part.pixels).data)
            digest.update(part.classes.astype("<i8").data)
        return digest.hexdigest()

    def hold_out(self, holdout: int | float) -> "Images":
        """As with texts."""
        held = np.array(chosen_by_digest([image.tobytes() for image in self.train.pixels], holdout))
        return replace(self, train=self.train[~held], test=self.train[held])

    def first(self, train: int | None, test: int | None) -> "Images":
        """As with texts."""
        check_limits(train, test, len(self.train), len(self.test))
        return replace(self, train=self.train[:train], test=self.test[:test])

    def with_noise(self, share: float, seed: int) -> "Images":
        """As with texts."""
        noisy = noisy_labels(self.train.classes.tolist(), share, seed, len(self.labels))
        return replace(self, train=Pictures(self.train.pixels, np.array(noisy)))


@dataclass(frozen=True, slots=True)
class Text:
    """Running text for a language model."""

    train: str
    test: str

    @property
    def sha256(self) -> str:
        """Fingerprint of both parts."""
        return _fingerprint([self.train], [self.test])

    def hold_out(self, share: float) -> "Text":
        """Moves the beginning, up to the end of a line, to the test part, and forgets the test set."""
        end = self.train.find("\n", int(share * len(self.train))) + 1
        if not 0 < end < len(self.train):
            raise RecipeError(f"holdout {share}: no line of the text ends there, so that both parts have some.")
        return Text(self.train[end:], self.train[:end])


@dataclass(frozen=True, slots=True)
class Prompted:
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Completions:
    """Prompts, and what a language model is to answer."""

    train: tuple[Prompted, ...]
    test: tuple[Prompted, ...]

    @property
    def sha256(self) -> str:
        """Fingerprint of prompts, completions and split."""
        parts = (self.train, self.test)
        return _fingerprint(*((f"{each.prompt}\t{each.completion}" for each in part) for part in parts))

    def hold_out(self, holdout: int | float) -> "Completions":
        """As with labelled texts, by the prompts."""
        return Completions(*held_out(self.train, [example.prompt for example in self.train], holdout))

    def first(self, train: int | None, test: int | None) -> "Completions":
        """As with labelled texts."""
        check_limits(train, test, len(self.train), len(self.test))
        return Completions(self.train[:train], self.test[:test])


TaskData = Examples | Images | Text | Completions
PartT = TypeVar("PartT")


def _fingerprint(train: Iterable[str], test: Iterable[str]) -> str:
    """Returns the SHA-256 of all rows, each behind the name of its split."""
    digest = hashlib.sha256()
    for split, rows in (("train", train), ("test", test)):
        for row in rows:
            digest.update(f"{split}\t{row}\n".encode())
    return digest.hexdigest()


def check_limits(train: int | None, test: int | None, train_size: int, test_size: int) -> None:
    """Raises `RecipeError` if there are fewer examples than asked for."""
    for name, asked, there in (("train_examples", train, train_size), ("test_examples", test, test_size)):
        if asked is not None and asked > there:
            raise RecipeError(f"{name} {asked}: there are only {there}. Ask for fewer, or leave it out for all.")


def held_out(
    parts: Sequence[PartT], texts: Sequence[str], holdout: int | float
) -> tuple[tuple[PartT, ...], tuple[PartT, ...]]:
    """Returns what is kept of `parts`, and what is held out as `chosen_by_digest` of their `texts`."""
    held = chosen_by_digest([text.encode() for text in texts], holdout)
    return tuple(compress(parts, (not out for out in held))), tuple(compress(parts, held))


def chosen_by_digest(contents: Sequence[bytes], holdout: int | float) -> list[bool]:
    """Chooses a number or share of `contents` by their SHA-256, or a few less: equal contents stay on one side."""
    count = holdout if isinstance(holdout, int) else max(1, round(holdout * len(contents)))
    if count >= len(contents):
        raise RecipeError(f"holdout {holdout}: there are only {len(contents)} training examples.")
    copies = Counter(contents)
    held: set[bytes] = set()
    room = count
    # the word in front makes it another order than that of the plain digest, by which a set may be sorted
    for content in sorted(copies, key=lambda content: hashlib.sha256(b"holdout " + content).digest()):
        if copies[content] <= room:
            held.add(content)
            room -= copies[content]
    if not held:
        raise RecipeError(f"holdout {holdout}: every example has more copies than that: hold out more of them.")
    return [content in held for content in contents]


def noisy_labels(classes: Sequence[int], share: float, seed: int, count: int) -> list[int]:
    """Returns `classes` with `share` of them replaced by another of the `count` classes.

    The mistakes depend on `seed` and place only. So all arms of one seed learn the same ones, and the mistakes of a
    smaller share are among those of a larger one.
    """
    if count < 2:
        raise RecipeError(f"label_noise needs at least two classes, and the data has {count}.")
    digests = [hashlib.sha256(f"label noise {seed} {place}".encode()).digest() for place in range(len(classes))]
    wrong = sorted(range(len(classes)), key=digests.__getitem__)[: round(share * len(classes))]
    noisy = list(classes)
    for place in wrong:
        # the second half of the digest, as the first one chose the place
        noisy[place] = (noisy[place] + 1 + int.from_bytes(digests[place][16:], "big") % (count - 1)) % count
    return noisy
