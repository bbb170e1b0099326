"""Data sets in the files that their authors published.

The files lie in the folder that ``--data-dir`` names, or in the set's own folder below it. So one folder can hold all
sets.
"""

import gzip
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from emo_hf.errors import RecipeError
from emo_hf.lab.sources.columns import stripped_lines
from emo_hf.lab.sources.kinds import Example, Examples, Images, Pictures, TaskData, Text

MOST_BYTES = 100_000_000  # the largest file, the training images of Fashion-MNIST, has 47 million
TREC = ("train_5500.label", "TREC_10.label")
FASHION = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
# set -> its own folder, and its files, with or without .gz
FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "trec-6": ("trec", TREC),
    "trec-50": ("trec", TREC),
    "fashion-mnist": ("fashion_mnist", FASHION),
    "tinyshakespeare": ("tinyshakespeare", ("input.txt",)),
    "wikitext-2": ("wikitext2", ("wiki.train.tokens", "wiki.test.tokens")),
    "stories260k": ("stories260k", ("stories260K.bin", "tok512.bin")),
}
TREC_CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
FASHION_CLASSES = (
    "T - shirt / top",  # as on the hub
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read(name: str, data_dir: Path) -> TaskData:
    """Reads the set `name` of `FILES`; `RecipeError` if a file is missing or malformed."""
    return READERS[name](*find(name, data_dir))


def find(name: str, data_dir: Path) -> list[Path]:
    """Returns the files of the set `name`, all from one folder."""
    own, names = FILES[name]
    if not data_dir.is_dir():
        raise RecipeError(f"--data-dir {data_dir} is no folder: expected one with {' and '.join(names)}.")
    missing = names[0]
    for folder in (data_dir, data_dir / own):
        paths = {name: _with_or_without_gz(folder / name) for name in names}
        there = [path for path in paths.values() if path]
        if len(there) == len(names):
            return there
        if there:
            missing = next(name for name, path in paths.items() if path is None)
    raise RecipeError(f"{missing} is missing: expected {' and '.join(names)} in {data_dir} or its folder {own}.")


def _with_or_without_gz(path: Path) -> Path | None:
    return next((file for file in (path, path.with_name(f"{path.name}.gz")) if file.is_file()), None)


def unpacked(path: Path) -> bytes:
    """Returns the unpacked bytes of a file; `RecipeError` if there are none, or more than any set has."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            plain = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:  # damage can be any of the three, without a strerror
        raise RecipeError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if len(plain) > MOST_BYTES:
        raise RecipeError(f"{path} has more than {MOST_BYTES:,} bytes when it is unpacked: it is none of the sets.")
    if not plain.strip():
        raise RecipeError(f"{path} is empty.")
    return plain


# ---- questions


def trec_6(train: Path, test: Path) -> Examples:
    """Reads the question classification set of Li and Roth (2002), with its six coarse labels."""
    return Examples(tuple(questions(train)), tuple(questions(test)))


def trec_50(train: Path, test: Path) -> Examples:
    """Reads the same set with its fifty fine labels, as ``COARSE:fine``."""
    return Examples(tuple(questions(train, fine=True)), tuple(questions(test, fine=True)))


def questions(path: Path, fine: bool = False) -> Iterator[Example]:
    text = unpacked(path).decode("latin-1")  # not UTF-8: one byte of the training file says so
    # not splitlines(): in latin-1 the byte 0x85 is a line break to it
    for number, line in enumerate(text.rstrip("\n").split("\n"), start=1):
        label, _, question = line.rstrip("\r").partition(" ")
        coarse, colon, rest = label.partition(":")
        if not (colon and rest and question.strip() and coarse in TREC_CLASSES):
            raise RecipeError(
                f"{path}, line {number}: expected 'COARSE:fine question' with COARSE one of "
                f"{', '.join(TREC_CLASSES)}, got {line[:60]!r}."
            )
        yield Example(question.strip(), label if fine else coarse)


# ---- images


def fashion_mnist(train_images: Path, train_labels: Path, test_images: Path, test_labels: Path) -> Images:
    """Reads Fashion-MNIST of Xiao, Rasul and Vollgraf (2017): articles of clothing in 28 x 28 shades of grey."""
    train, test = pictures(train_images, train_labels), pictures(test_images, test_labels)
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        sizes = [" x ".join(map(str, part.pixels.shape[1:])) for part in (train, test)]
        raise RecipeError(f"{test_images}: expected images of {sizes[0]} as in {train_images.name}, got {sizes[1]}.")
    return with_statistics(train, test, FASHION_CLASSES)


def with_statistics(train: Pictures, test: Pictures, labels: tuple[str, ...]) -> Images:
    """Adds the mean and deviation of the training pixels."""
    histogram = np.bincount(train.pixels.ravel(), minlength=256)  # exact and without a large float copy
    shades, share = np.arange(256) / 255, histogram / histogram.sum()
    mean = float(share @ shades)
    return Images(train, test, labels, mean, max(float(share @ (shades - mean) ** 2) ** 0.5, 1e-3))


def pictures(images: Path, labels: Path) -> Pictures:
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise RecipeError(f"{labels}: expected a label for each of the {len(pixels)} images, got {len(classes)}.")
    if classes.max() >= len(FASHION_CLASSES):
        raise RecipeError(f"{labels}: expected labels from 0 to {len(FASHION_CLASSES) - 1}, got {classes.max()}.")
    return Pictures(pixels, classes.astype(np.int64))


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads an IDX file: 0, 0, 8 (uint8), the number of dimensions; each dimension as big-endian int32; the data."""
    raw = unpacked(path)
    magic = bytes((0, 0, 8, dimensions))
    if raw[:4] != magic:
        raise RecipeError(f"{path} is no IDX file of {dimensions} dimensions: expected {magic!r}, got {raw[:4]!r}.")
    start = 4 + 4 * dimensions
    if len(raw) < start:
        raise RecipeError(f"{path}: expected a head of {start} bytes, got {len(raw)}.")
    shape = [int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4)]
    if len(raw) - start != math.prod(shape) or not math.prod(shape):
        raise RecipeError(f"{path}: expected {' x '.join(map(str, shape))} bytes of data, got {len(raw) - start}.")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


# ---- running text


def tinyshakespeare(path: Path) -> Text:
    """Reads Karpathy's excerpt of Shakespeare's plays. The first 90 % of its characters are for training."""
    text = read_text(path)
    cut = int(0.9 * len(text))
    return Text(text[:cut], text[cut:])


def wikitext_2(train: Path, test: Path) -> Text:
    """Reads WikiText-2 of Merity et al. (2016), by words, without the spaces around its lines."""
    return Text(stripped_lines(read_text(train).split("\n")), stripped_lines(read_text(test).split("\n")))


def read_text(path: Path) -> str:
    try:
        return unpacked(path).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is no UTF-8 text: byte {error.start}.") from None


READERS: dict[str, Callable[..., TaskData]] = {
    "trec-6": trec_6,
    "trec-50": trec_50,
    "fashion-mnist": fashion_mnist,
    "tinyshakespeare": tinyshakespeare,
    "wikitext-2": wikitext_2,
}
