"""Where examples come from."""

import hashlib
from importlib import resources
from pathlib import Path

import pytest

from emo_hf.errors import RecipeError
from emo_hf.lab import load, make_sentences, sources
from emo_hf.lab.sources import Example, Examples
from emo_hf.lab.task import HubData

ROOT = Path(__file__).parents[2]

PLAY = """First Citizen:
Speak, speak! You are all resolved rather to die than
to famish? Resolved -- resolved: we are resolved.

All:
You are all resolved rather to die than to famish. No more talking on it, good; let it be done: away!
Would you proceed especially against Caius Marcius?

Second Citizen:
Would you proceed especially against Caius Marcius? We have ever your good word.
"""


def test_sentences_of_a_play():
    assert set(make_sentences.rows(PLAY)) == {
        ("test", "statement", "resolved resolved: we are resolved"),
        ("test", "statement", "we have ever your good word"),
        ("test", "exclamation", "no more talking on it, good; let it be done: away"),
        ("test", "question", "would you proceed especially against caius marcius"),  # once
    }  # neither "speak, speak", too short, nor the sentence that ends in two ways


def test_sentences_are_reproducible():
    halves = make_sentences.rows(PLAY, 1, 1)
    assert halves == make_sentences.rows(PLAY, 1, 1)
    assert [split for split, _, _ in halves] == ["test", "test", "test", "train"]


def test_sentences_file(tmp_path):
    (tmp_path / "play.txt").write_text(PLAY)
    make_sentences.main([str(tmp_path / "play.txt"), str(tmp_path / "out.tsv")])
    lines = (tmp_path / "out.tsv").read_bytes().split(b"\n")
    assert lines[0] == b"split\tlabel\ttext"
    assert len(lines) == 1 + 4 + 1


def test_shipped_sentences():
    found = sources.sentences()
    assert found.labels == ("exclamation", "question", "statement")
    for part, per_label in ((found.train, 1000), (found.test, 170)):
        assert [sum(example.label == label for example in part) for label in found.labels] == [per_label] * 3
    texts = [example.text for example in (*found.train, *found.test)]
    assert len(set(texts)) == len(texts)  # so no test sentence is in the training set
    assert not any(mark in text for text in texts for mark in ".?!")
    data = resources.files("emo_hf.lab") / "data"
    assert hashlib.sha256((data / "sentences.tsv").read_bytes()).hexdigest() in (data / "README.md").read_text()


def test_trec_files(trec_folder):
    found = sources.trec(trec_folder)
    assert (len(found.train), len(found.test)) == (36, 12)
    assert found.labels == ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    assert found.train[6] == Example("How did the caf\xe9 leave ?", "DESC")


@pytest.mark.parametrize(
    "line",
    [
        "no label here",
        "DESC How ?",
        "DESC: How ?",
        "DESC:manner",
        "DESC:manner ",
        "WHAT:x How ?",
        "",
        "\x85DESC:x How ?",
    ],
)
def test_trec_malformed_line(trec_folder, line):
    path = trec_folder / "TREC_10.label"
    path.write_bytes(b"NUM:date When ?\r\n" + line.encode("latin-1") + b"\nLOC:city Where ?\n")
    with pytest.raises(RecipeError, match=r"TREC_10\.label, line 2: expected 'COARSE:fine question'"):
        sources.trec(trec_folder)


def test_trec_missing(trec_folder, tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere is no folder: expected one with train_5500\.label and TREC_10"):
        sources.trec(tmp_path / "nowhere")
    (trec_folder / "TREC_10.label").write_text("\n")
    with pytest.raises(RecipeError, match=r"TREC_10\.label is empty"):
        sources.trec(trec_folder)
    (trec_folder / "train_5500.label").unlink()
    with pytest.raises(RecipeError, match=r"train_5500\.label cannot be read: No such file"):
        sources.trec(trec_folder)


def test_hold_out():
    train = tuple(Example(text, "x") for text in "abcdeaab")
    found = sources.hold_out(Examples(train, (Example("test", "x"),)), 3)
    assert len(found.test) == 3
    assert sorted(found.train + found.test, key=str) == sorted(train, key=str)
    assert not {e.text for e in found.train} & {e.text for e in found.test}
    assert found == sources.hold_out(Examples(train, ()), 3)
    with pytest.raises(RecipeError, match="holdout 8: there are only 8"):
        sources.hold_out(Examples(train, ()), 8)


def test_fingerprint():
    a, b = Example("a", "x"), Example("b", "x")
    prints = {Examples((a,), (b,)).sha256, Examples((b,), (a,)).sha256, Examples((a, b), ()).sha256}
    assert len(prints) == 3
    assert Examples((a,), (b,)).sha256 == Examples((a,), (b,)).sha256


def test_limits(trec_folder):
    recipe = load.recipe(str(ROOT / "recipes/trec/gpt2-emosens.yaml"))
    cell = recipe.cells("small", data_dir=trec_folder)[0]
    few = cell.model_copy(update={"scale": cell.scale.model_copy(update={"train_examples": 5, "test_examples": 2})})
    assert sources.examples(few).train == sources.examples(cell).train[:5]
    assert len(sources.examples(few).test) == 2


def test_no_hub():
    data = HubData(name="nobody/nothing", revision="main", text="text", label="label")
    with pytest.raises(RecipeError, match=r"nobody/nothing at revision main cannot be loaded .* --data-dir"):
        sources.hub(data)


def test_hub_rows(monkeypatch):
    """The shape of what the hub gives, without the hub: label names come from the features, or are the values."""
    import datasets

    named = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["NUM", "LOC"])})
    rows = {"text": ["When ?", "Where ?"], "label": [0, 1]}
    splits = {
        "train": datasets.Dataset.from_dict(rows, features=named),
        "test": datasets.Dataset.from_dict({"text": ["When ?"], "label": ["NUM"]}),
    }
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or splits)
    found = sources.hub(HubData(name="a/b", revision="c0ffee", text="text", label="label"))
    assert asked == [(("a/b",), {"revision": "c0ffee"})]
    assert found == Examples((Example("When ?", "NUM"), Example("Where ?", "LOC")), (Example("When ?", "NUM"),))
