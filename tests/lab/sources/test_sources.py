"""Where examples come from."""

import gzip
import hashlib
import struct
from importlib import resources

import numpy as np
import pytest

from emo_hf.errors import RecipeError
from emo_hf.lab import sources
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.data import Data, HubData
from emo_hf.lab.recipe.task import Task
from emo_hf.lab.sources import Example, Examples, Images, Text, files, hub
from emo_hf.lab.sources.columns import Table, stripped_lines
from scripts import make_sentences
from tests import ROOT

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
    data = resources.files("emo_hf.lab.sources") / "data"
    assert hashlib.sha256((data / "sentences.tsv").read_bytes()).hexdigest() in (data / "README.md").read_text()


def test_trec_files(trec_folder):
    found = files.read("trec-6", trec_folder)
    assert (len(found.train), len(found.test)) == (756, 378)
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
        files.read("trec-6", trec_folder)


def test_trec_missing(trec_folder, tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere is no folder: expected one with train_5500\.label and TREC_10"):
        files.read("trec-6", tmp_path / "nowhere")
    (trec_folder / "TREC_10.label").write_text("\n")
    with pytest.raises(RecipeError, match=r"TREC_10\.label is empty"):
        files.read("trec-6", trec_folder)
    (trec_folder / "train_5500.label").unlink()
    with pytest.raises(RecipeError, match=r"train_5500\.label is missing: expected train_5500\.label and TREC_10"):
        files.read("trec-6", trec_folder)


def test_hold_out():
    train = tuple(Example(text, "x") for text in "abcdeaab")
    found = Examples(train, (Example("test", "x"),)).hold_out(3)
    assert len(found.test) == 3
    assert sorted(found.train + found.test, key=str) == sorted(train, key=str)
    assert not {e.text for e in found.train} & {e.text for e in found.test}
    assert found == Examples(train, ()).hold_out(3)
    with pytest.raises(RecipeError, match="holdout 8: there are only 8"):
        Examples(train, ()).hold_out(8)


def test_fingerprint():
    a, b = Example("a", "x"), Example("b", "x")
    prints = {Examples((a,), (b,)).sha256, Examples((b,), (a,)).sha256, Examples((a, b), ()).sha256}
    assert len(prints) == 3
    assert Examples((a,), (b,)).sha256 == Examples((a,), (b,)).sha256


def test_limits(trec_folder):
    recipe = loading.recipe(str(ROOT / "recipes/trec/gpt2-emosens.yaml"))
    run_config = recipe.run_configs("small", data_dir=trec_folder)[0]
    few = run_config.model_copy(
        update={"scale": run_config.scale.model_copy(update={"train_examples": 5, "test_examples": 2})}
    )
    assert sources.examples(few).train == sources.examples(run_config).train[:5]
    assert len(sources.examples(few).test) == 2


def test_no_hub():
    data = Data(hub=HubData(name="nobody/nothing", revision="main", text="text", label="label"))
    with pytest.raises(RecipeError, match=r"nobody/nothing at revision main cannot be loaded .* --data-dir"):
        hub.read(data, "sequence-classification")


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
    data = Data(hub=HubData(name="a/b", revision="c0ffee", text="text", label="label"))
    found = hub.read(data, "sequence-classification")
    assert asked == [(("a/b", None), {"revision": "c0ffee"})]
    assert found == Examples((Example("When ?", "NUM"), Example("Where ?", "LOC")), (Example("When ?", "NUM"),))


def test_every_set_from_one_folder(data_folder):
    for name, kind in {
        "trec-6": Examples,
        "trec-50": Examples,
        "fashion-mnist": Images,
        "tinyshakespeare": Text,
        "wikitext-2": Text,
    }.items():
        found = files.read(name, data_folder)
        assert isinstance(found, kind)
        own = files.read(name, data_folder / files.FILES[name][0])  # as well from its own folder
        assert found.sha256 == own.sha256


def test_fine_labels(trec_folder):
    (trec_folder / "TREC_10.label").write_text("NUM:weight How heavy is it ?\n")
    found = files.read("trec-50", trec_folder)
    train = (trec_folder / "train_5500.label").read_text(encoding="latin-1").splitlines()
    assert set(found.labels) == {line.split()[0] for line in train} | {"NUM:weight"}  # which only the test has
    assert found.first(1, 1).labels == found.labels  # not those of the examples that are left


def test_running_text(data_folder):
    path = data_folder / "tinyshakespeare/input.txt"
    path.write_bytes("0123\r\n6789caf\xe9".encode())
    assert files.read("tinyshakespeare", data_folder) == Text("0123\n6789ca", "f\xe9")  # of 13 characters
    path.write_bytes(b"0123456\xff89")
    with pytest.raises(RecipeError, match=r"input\.txt is no UTF-8 text: byte 7"):
        files.read("tinyshakespeare", data_folder)
    (data_folder / "wikitext2/wiki.test.tokens").write_text(" \n = Title = \n \n A text . \n \n")
    assert files.read("wikitext-2", data_folder).test == "= Title =\n\nA text .\n"
    assert stripped_lines(["", " = Title = \n", "", " A text . \n", ""]) == "= Title =\n\nA text .\n"  # as the hub's


def test_pictures(data_folder):
    found = files.read("fashion-mnist", data_folder)
    assert found.train.pixels.shape == (2400, 28, 28)
    assert found.test.classes.tolist() == [place % 10 for place in range(256)]
    assert found.train.pixels[3, 10:13].min() >= 130  # the bar of class 3
    scaled = found.train.pixels / 255
    assert (found.mean, found.std) == pytest.approx((scaled.mean(), scaled.std()))
    packed = data_folder / "fashion_mnist/train-images-idx3-ubyte.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert files.read("fashion-mnist", data_folder).sha256 == found.sha256


def idx_file(*shape: int, data: bytes, kind: int = 8) -> bytes:
    return struct.pack(f">4B{len(shape)}i", 0, 0, kind, len(shape), *shape) + data


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3", b"not gzip", "cannot be read: Not a gzipped file"),
        ("train-images-idx3", gzip.compress(b"12345")[:-10], "cannot be read: Compressed file ended before"),
        ("train-images-idx3", gzip.compress(b"12345", mtime=0)[:10] + b"\xff" * 20, "cannot be read: Error -3"),
        ("train-images-idx3", gzip.compress(b""), "is empty"),
        ("train-images-idx3", gzip.compress(bytes(2 * 10**8), 1), "more than 100,000,000 bytes when it is unpacked"),
        ("train-images-idx3", gzip.compress(idx_file(2, 2, data=b"1234")), "is no IDX file of 3 dimensions"),
        ("train-images-idx3", gzip.compress(idx_file(1, 2, 2, data=b"12345678", kind=9)), "is no IDX file"),
        ("train-images-idx3", gzip.compress(b"\0\0\x08\x03\0\0"), "expected a head of 16 bytes, got 6"),
        ("train-images-idx3", gzip.compress(idx_file(2, 2, 2, data=b"1234567")), "expected 2 x 2 x 2 bytes .* got 7"),
        ("train-labels-idx1", gzip.compress(idx_file(2, data=b"12")), "label for each of the 2400 images, got 2"),
        ("t10k-labels-idx1", gzip.compress(idx_file(256, data=bytes([10] * 256))), "labels from 0 to 9, got 10"),
        ("t10k-images-idx3", gzip.compress(idx_file(256, 1, 1, data=bytes(256))), "images of 28 x 28 .* got 1 x 1"),
    ],
    ids=lambda value: "packed" if isinstance(value, bytes) else value,  # gzip packs the time, too
)
def test_malformed_pictures(data_folder, name, content, message):
    (data_folder / f"fashion_mnist/{name}-ubyte.gz").write_bytes(content)
    with pytest.raises(RecipeError, match=rf"{name}-ubyte\.gz.*{message}"):
        files.read("fashion-mnist", data_folder)


def test_hold_out_pictures(data_folder):
    found = files.read("fashion-mnist", data_folder)
    held = found.hold_out(100)
    assert (len(held.train), len(held.test)) == (2300, 100)
    assert held.sha256 == found.hold_out(100).sha256 != found.sha256
    tested = {image.tobytes() for image in held.test.pixels}
    assert not tested & {image.tobytes() for image in held.train.pixels}
    assert tested < {image.tobytes() for image in found.train.pixels}
    assert (held.mean, held.std) == (found.mean, found.std)


def test_label_noise(data_folder):
    texts, images = files.read("trec-6", data_folder), files.read("fashion-mnist", data_folder)

    def wrong(share, seed):
        noisy = images.with_noise(share, seed)
        assert noisy.test is images.test
        changed = np.flatnonzero(noisy.train.classes != images.train.classes)
        assert len(changed) == round(share * 2400)  # really another class each time
        assert set(noisy.train.classes) == set(range(10))
        return set(changed), noisy.sha256

    assert wrong(0.3, 1) == wrong(0.3, 1)
    assert wrong(0.3, 1)[0] > wrong(0.1, 1)[0] != wrong(0.1, 2)[0]
    noisy = texts.with_noise(0.25, 0)
    assert sum(a.label != b.label for a, b in zip(texts.train, noisy.train, strict=True)) == 189
    assert [e.text for e in noisy.train] == [e.text for e in texts.train]
    assert noisy.test == texts.test
    with pytest.raises(RecipeError, match="at least two classes, and the data has 1"):
        Examples((Example("a", "x"),), ()).with_noise(0.5, 0)


def test_condition_of_an_arm(recipe, write, data_folder):
    recipe["arms"]["noisy"] = {**recipe["arms"]["adamw"], "condition": {"label_noise": 0.5, "train_examples": 20}}
    run_configs = {
        run_config.name: run_config for run_config in loading.recipe(write(recipe)).run_configs("smoke", seeds=[4])
    }
    plain, noisy = (sources.examples(run_configs[name]) for name in ("adamw", "noisy"))
    assert (len(plain.train), len(noisy.train)) == (32, 20)
    assert sum(a != b for a, b in zip(plain.train, noisy.train, strict=False)) == 10
    recipe["task"] = {"type": "causal-lm", "data": {"embedded": "sentences"}}
    recipe["metric"] = "perplexity"
    run_configs = {
        run_config.name: run_config for run_config in loading.recipe(write(recipe)).run_configs("smoke", seeds=[4])
    }
    with pytest.raises(RecipeError, match=r"arms\.noisy\.condition\.label_noise: running text has no labels"):
        sources.examples(run_configs["noisy"])


def test_more_than_there_is(trec_folder):
    run_config = loading.recipe(str(ROOT / "recipes/trec/gpt2-emosens.yaml")).run_configs(
        "small", data_dir=trec_folder
    )[0]
    for name, count in (("train_examples", 757), ("test_examples", 379)):
        more = run_config.model_copy(update={"scale": run_config.scale.model_copy(update={name: count})})
        with pytest.raises(RecipeError, match=f"{name} {count}: there are only {count - 1}"):
            sources.examples(more)


def test_hub_pictures():
    import datasets

    pixels = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["Coat", "Bag"])})
    split = datasets.Dataset.from_dict({"image": list(pixels), "label": [1, 0]}, features=features)
    data = HubData(name="a/b", revision="c", text="image", label="label")
    found = hub.images(Table(split, "a/b"), Table(split, "a/b"), data)
    assert np.array_equal(found.train.pixels, pixels)
    assert found.train.classes.tolist() == [1, 0]
    assert found.labels == ("Coat", "Bag")
    with pytest.raises(ValueError, match="image-classification learns from the columns text and label, got text"):
        Task(type="image-classification", data=Data(hub=data.model_copy(update={"label": None})))
