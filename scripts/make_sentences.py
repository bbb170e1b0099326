"""Makes ``data/sentences.tsv`` out of a play: which mark ends this sentence, a period, ``?`` or ``!``?

    python -m scripts.make_sentences INPUT.txt OUTPUT.tsv

INPUT.txt holds speeches separated by blank lines, the speaker's name on the first line of each. Sentences are cut at
``. ? !``, which are removed, lowercased, and kept when 4 to 25 words long. A sentence that occurs with two different
marks is dropped, one that occurs twice is kept once, so no test sentence is in the training set. Order and split
follow the SHA-256 of the sentence: the same input gives the same bytes everywhere.
"""

import argparse
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

LABELS = {".": "statement", "?": "question", "!": "exclamation"}
SENTENCE = re.compile(r"([^.?!]+)([.?!])")
WORDS = range(4, 26)
TRAIN_PER_LABEL, TEST_PER_LABEL = 1000, 170

Row = tuple[str, str, str]  # split, label, sentence


def sentences(play: str) -> Iterator[tuple[str, str]]:
    """Yields (sentence without its mark, mark) in the order of the play, repetitions included."""
    for speech in play.split("\n\n"):
        _, _, lines = speech.strip().partition("\n")
        for text, mark in SENTENCE.findall(lines):
            text = re.sub(r"[^a-z',;: -]", " ", text.lower()).replace("--", " ")
            text = " ".join(text.split()).strip(" ,;:-")
            if len(text.split()) in WORDS:
                yield text, mark


def rows(play: str, train_per_label: int = TRAIN_PER_LABEL, test_per_label: int = TEST_PER_LABEL) -> list[Row]:
    """Returns sorted rows, with at most so many sentences of each label in each split."""
    marks: dict[str, set[str]] = {}
    for text, mark in sentences(play):
        marks.setdefault(text, set()).add(mark)
    chosen = []
    for mark, label in LABELS.items():
        texts = sorted((text for text, seen in marks.items() if seen == {mark}), key=digest)
        test = texts[:test_per_label]
        train = texts[test_per_label : test_per_label + train_per_label]
        chosen += [("test", label, text) for text in test] + [("train", label, text) for text in train]
    # not by the digest that chose them: in the rarer labels, all its values are small
    return sorted(chosen, key=lambda row: (row[0], digest("".join(row))))


def digest(text: str) -> str:
    """Returns the hexadecimal SHA-256: it orders texts independently of their meaning."""
    return hashlib.sha256(text.encode()).hexdigest()


def main(argv: list[str] | None = None) -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(prog="python -m scripts.make_sentences", description=str(__doc__).splitlines()[0])
    parser.add_argument("input", type=Path, help="the play, e.g. tiny shakespeare's input.txt")
    parser.add_argument("output", type=Path, help="the TSV file to write: split, label, text")
    args = parser.parse_args(argv)
    table = [("split", "label", "text"), *rows(args.input.read_text(encoding="utf-8"))]
    text = "".join("\t".join(row) + "\n" for row in table)
    args.output.write_text(text, encoding="utf-8", newline="\n")  # the same bytes on every platform


if __name__ == "__main__":
    main()
