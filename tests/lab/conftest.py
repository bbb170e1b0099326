import errno
import os
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from emo_hf.lab.run import runner
from tests.lab.made_up_data import tale, write_fashion_mnist, write_stories260k, write_trec


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
def full_disk(monkeypatch):
    """A context in which nothing gets onto the disk."""

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def full():
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            yield

    return full


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
        monkeypatch.setattr(runner, "WORKER", "stand_in")
        monkeypatch.setattr(runner, "POLL", 0.05)

    return replace
