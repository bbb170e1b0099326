import textwrap
from pathlib import Path

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


@pytest.fixture
def trec_folder(tmp_path: Path) -> Path:
    """A folder like the original TREC files: made-up questions, latin-1."""
    folder = tmp_path / "trec"
    folder.mkdir()
    words = ["boat", "caf\xe9", "comet", "bridge", "engine", "IBM"]
    lines = [f"{label} {text.format(word)}\n" for word in words for label, text in QUESTIONS.items()]
    (folder / "train_5500.label").write_bytes("".join(lines).encode("latin-1"))
    (folder / "TREC_10.label").write_bytes("".join(lines[::3]).encode("latin-1"))
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
