"""Data sets in their original formats: small, made up and learnable."""

import gzip
import struct
from pathlib import Path

import numpy as np

QUESTIONS = {
    "DESC:manner": "How did the {} leave ?",
    "ENTY:animal": "What animal eats {} ?",
    "ABBR:exp": "What does {} stand for ?",
    "HUM:ind": "Who invented the {} ?",
    "LOC:city": "What city has a {} ?",
    "NUM:date": "When was the {} built ?",
}


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
