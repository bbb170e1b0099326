import gzip
import struct
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml

from emo_hf.lab import runner

QUESTIONS = {
    "DESC:manner": "How did the {} leave ?",
    "ENTY:animal": "What animal eats {} ?",
    "ABBR:exp": "What does {} stand for ?",
    "HUM:ind": "Who invented the {} ?",
    "LOC:city": "What city has a {} ?",
    "NUM:date": "When was the {} built ?",
}


@pytest.fixture
def recipe() -> dict:
    """A recipe that is right, as its YAML reads: two arms, two seeds, two sizes."""
    return yaml.safe_load(
        """
        name: tiny
        description: a test
        task: {type: sequence-classification, data: {embedded: sentences}}
        metric: accuracy
        seeds: [0, 1]
        sizes:
          smoke:
            model: {config: {layers: 1, heads: 2, width: 16, vocabulary: 300}}
            epochs: 1
            batch_size: 8
            train_examples: 32
            test_examples: 16
          small:
            model: {config: {layers: 1, heads: 2, width: 16, vocabulary: 300}}
            epochs: 2
            batch_size: 8
            arms: {emosens: {lr: 0.1, tuning: {how: grid, grid: {lr: [0.1, 1]}, chosen_by: loss on held-out texts}}}
        arms:
          emosens: {optim: emosens, lr: 1, tuning: untuned}
          adamw: {optim: adamw_torch, lr: 0.001, tuning: untuned}
        """
    )


@pytest.fixture
def write(tmp_path: Path):
    """Writes a recipe as a file and returns its path."""

    def write(content: dict | str) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return str(path)

    return write


def write_trec(folder: Path) -> None:
    """Writes made-up questions, latin-1."""
    folder.mkdir(parents=True)
    words = ["boat", "caf\xe9", "comet", "bridge", "engine", "IBM"]
    words += [f"{a}{b}{c}" for a in "bdfgkl" for b in "aeio" for c in "mnrst"]
    lines = [f"{label} {text.format(word)}\n" for word in words for label, text in QUESTIONS.items()]
    (folder / "train_5500.label").write_bytes("".join(lines).encode("latin-1"))
    (folder / "TREC_10.label").write_bytes("".join(lines[::2]).encode("latin-1"))


def write_fashion_mnist(folder: Path, train: int = 2400, test: int = 256) -> None:
    """Writes noise with a bright bar, whose place tells the class."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        classes = np.arange(count, dtype=np.uint8) % 10
        pixels = random.integers(0, 120, (count, 28, 28), dtype=np.uint8)
        for image, place in zip(pixels, classes, strict=True):
            image[2 * place + 4 : 2 * place + 7] += 130
        for kind, data in (("images-idx3", pixels), ("labels-idx1", classes)):
            head = struct.pack(f">4B{data.ndim}i", 0, 0, 8, data.ndim, *data.shape)
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + data.tobytes(), mtime=0))


def tale(lines: int, seed: int) -> str:
    """Returns simple sentences, one a line."""
    parts = (["Tim", "Lily", "Her mom", "The dog"], ["saw", "liked", "took", "lost"], ["a", "the", "one", "no"])
    nouns = ["red ball", "big park", "small cake", "old boat"]
    random = np.random.default_rng(seed)
    return "".join(" ".join(random.choice(words) for words in (*parts, nouns)) + ".\n" for _ in range(lines))


def write_stories260k(folder: Path, shared: bool = True) -> None:
    """Writes a random Llama and a tokenizer as llama2.c exports them; two query heads share a key and value head."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [" ", *"abcdefghijklmnopqrstuvwxyzTLH.,"]
    joined = ["he", " t", " the", "re", "in", "oo", " l", "ook", " took"]
    first = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256))]
    scores = [0.0] * len(first) + [-99.0] * len(letters) + [-1.0 - place for place in range(len(joined))]
    tokens = [token.encode() for token in (*first, *letters, *joined)]
    rows = [struct.pack("<fi", score, len(token)) + token for score, token in zip(scores, tokens, strict=True)]
    (folder / "tok512.bin").write_bytes(struct.pack("<i", max(map(len, tokens))) + b"".join(rows))

    dim, hidden, layers, heads, kv_heads, vocabulary, length = 16, 24, 2, 4, 2, len(tokens), 512
    head, kv = dim // heads, kv_heads * dim // heads
    per_layer = [
        (dim,),
        (dim, dim),
        (kv, dim),
        (kv, dim),
        (dim, dim),
        (dim,),
        (hidden, dim),
        (dim, hidden),
        (hidden, dim),
    ]
    shapes = [
        (vocabulary, dim),
        *((layers, *shape) for shape in per_layer),
        (dim,),
        (length, head // 2),
        (length, head // 2),
    ]
    if not shared:
        shapes.append((vocabulary, dim))
    random = np.random.default_rng(0)
    weights = b"".join(random.normal(0, 0.3, shape).astype("<f4").tobytes() for shape in shapes)
    head_of_file = struct.pack(
        "<7i", dim, hidden, layers, heads, kv_heads, vocabulary if shared else -vocabulary, length
    )
    (folder / "stories260K.bin").write_bytes(head_of_file + weights)


@pytest.fixture
def trec_folder(tmp_path: Path) -> Path:
    """A folder like the original TREC files."""
    write_trec(tmp_path / "trec")
    return tmp_path / "trec"


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A folder with every set that a recipe can read, in its original format: small, made up and learnable."""
    folder = tmp_path / "data"
    write_trec(folder / "trec")
    write_fashion_mnist(folder / "fashion_mnist")
    write_stories260k(folder / "stories260k")
    for path, lines in (
        ("tinyshakespeare/input.txt", 4000),
        ("wikitext2/wiki.train.tokens", 3000),
        ("wikitext2/wiki.test.tokens", 500),
    ):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(tale(lines, seed=lines), encoding="utf-8")
    return folder


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Replaces the training by the body of a function of `folder`, so that what happens around it is fast to test."""

    def replace(body: str) -> None:
        text = "import json, os, signal, sys, threading, time\nfrom pathlib import Path\n\ndef main(arguments):\n"
        text += "    folder = Path(arguments[0])\n" + textwrap.indent(textwrap.dedent(body), "    ")
        text += '\n\nif __name__ == "__main__":\n    main(sys.argv[1:])\n'
        (tmp_path / "stand_in.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
        monkeypatch.setattr(runner, "CHILD", "stand_in")
        monkeypatch.setattr(runner, "POLL", 0.05)

    return replace
