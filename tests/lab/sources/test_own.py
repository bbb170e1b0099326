"""Data of one's own: what is read from tables and texts, what is refused, and what errors say."""

import json
from pathlib import Path

import datasets
import pytest

from emo_hf.errors import RecipeError
from emo_hf.lab import sources
from emo_hf.lab.recipe.data import Data
from emo_hf.lab.sources import Completions, Example, Examples, Text, own
from emo_hf.lab.sources.kinds import Prompted

QUESTIONS = {"question": ["When ?", "Where ?", "Who, then ?", "NA"], "kind": ["2", "10", "2", "10"]}
COLUMNS = {"text": "question", "label": "kind"}
TWO, JSON = "question,kind\na,1\nb,2\n", {"csv": None, "json": "a.csv"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Every format with the same four questions, and what is not to be read beside it."""
    data = tmp_path / "data"
    data.mkdir()
    lines = [f'"{question}",{kind}\r\n' for question, kind in zip(*QUESTIONS.values(), strict=True)]
    (data / "[a] b.csv").write_text("\ufeffquestion,kind\r\n" + "".join(lines), newline="")
    rows = [{"question": q, "kind": int(k)} for q, k in zip(*QUESTIONS.values(), strict=True)]
    (data / "a.tsv").write_text("kind\tquestion\n" + "".join(f"{row['kind']}\t{row['question']}\n" for row in rows))
    (data / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "a.json").write_text(json.dumps(rows))
    table = datasets.Dataset.from_list(rows)
    table.to_parquet(str(data / "a.parquet"))
    table.save_to_disk(str(data / "one"))
    datasets.DatasetDict(train=table, test=table.select([1]), dev=table.select([0])).save_to_disk(str(data / "splits"))
    (tmp_path / "secret.csv").write_text("question,kind\nx,1\ny,2\n")
    return data


def read(folder: Path, **data) -> Examples | Completions | Text:
    return own.read(Data.model_validate(data), folder)


@pytest.mark.parametrize(
    "source",
    [
        {"csv": "[a] b.csv", "test": "a.tsv"},
        {"csv": "a.tsv", "test": "[a] b.csv"},
        {"json": "a.jsonl", "test": "a.json"},
        {"parquet": "a.parquet", "test": "a.parquet"},
        {"saved": "one", "test": "one"},
    ],
    ids=lambda source: next(iter(source)),
)
def test_every_format_gives_the_same_examples(folder, source):
    rows = tuple(map(Example, QUESTIONS["question"], QUESTIONS["kind"]))
    assert read(folder, **source, **COLUMNS) == Examples(rows, rows, ("2", "10"))  # numbers by their size


def test_splits(folder):
    assert read(folder, saved="splits", **COLUMNS).test == (Example("Where ?", "10"),)
    assert read(folder, saved="splits", test="dev", **COLUMNS).test == (Example("When ?", "2"),)
    with pytest.raises(RecipeError, match="splits has no split 'development', only train, test, dev"):
        read(folder, saved="splits", test="development", **COLUMNS)
    with pytest.raises(RecipeError, match="one holds one split: give test, a second folder, or holdout"):
        read(folder, saved="one", **COLUMNS)


def test_classes_that_have_names(tmp_path):
    named = datasets.Features({"t": datasets.Value("string"), "c": datasets.ClassLabel(names=["no", "maybe", "yes"])})
    rows = {"t": ["a", "b", "c"], "c": [2, 0, 2]}
    datasets.DatasetDict(train=datasets.Dataset.from_dict(rows, named)).save_to_disk(str(tmp_path / "named"))
    found = read(tmp_path, saved="named", text="t", label="c", holdout=1)
    assert (found.labels, [example.label for example in found.train]) == (("no", "yes"), ["yes", "no", "yes"])
    (tmp_path / "a.jsonl").write_text('{"t": "a", "c": true}\n{"t": "b", "c": false}\n')
    assert read(tmp_path, json="a.jsonl", text="t", label="c", holdout=1).labels == ("False", "True")


def test_prompts_and_completions(tmp_path):
    (tmp_path / "qa.jsonl").write_text('{"p": "1 + 1 =", "c": " 2"}\n{"p": "1 + 2 =", "c": " 3"}\n')
    found = read(tmp_path, json="qa.jsonl", prompt="p", completion="c", test="qa.jsonl")
    assert found.train == found.test == (Prompted("1 + 1 =", " 2"), Prompted("1 + 2 =", " 3"))
    assert found.sha256 != Completions(found.train, found.test[:1]).sha256
    held = found.hold_out(0.5)
    assert {*held.train, *held.test} == {*found.train}
    assert held == found.hold_out(1)


def test_running_text(tmp_path):
    (tmp_path / "plays" / "more").mkdir(parents=True)
    for name, text in (
        ("b.txt", "\ufeffthird\r\n"),
        ("a.txt", "first\nsecond"),
        ("more/c.txt", "last\n"),
        ("d.md", "no"),
    ):
        (tmp_path / "plays" / name).write_text(text, newline="")
    whole = "first\nsecond\nthird\nlast\n"
    assert read(tmp_path, text="plays", test="plays/a.txt") == Text(whole, "first\nsecond\n")
    assert Text(whole, "").hold_out(0.3) == Text("third\nlast\n", "first\nsecond\n")  # to the end of a line
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"t": f"row {k}\n"}) + "\n" for k in range(10)))
    rows = read(tmp_path, json="rows.jsonl", text="t", holdout=0.2)  # of a table, rows are held out, not the beginning
    assert sorted((rows.train + rows.test).splitlines()) == [f"row {k}" for k in range(10)]
    assert len(rows.test.splitlines()) == 2
    assert rows.test != "row 0\nrow 1\n"


@pytest.mark.parametrize(
    ("content", "data", "message"),
    [
        ("", {}, r"a\.csv is empty"),
        ("question,kind\n", {}, r"a\.csv is empty: expected a row for each example"),
        (
            TWO,
            {"label": "knd"},
            r"a\.csv has no column 'knd': .* as label among 'question', 'kind'\. Did you mean 'kind'",
        ),
        ("question,kind\na,1\nb,1\n", {}, r"a\.csv, column 'kind': expected two classes or more, got '1'"),
        ("question,kind\na,1\n ,2\n", {}, r"a\.csv, column 'question', row 2: expected a text, got an empty one"),
        ("question,kind\na,1\nb,\n", {}, r"a\.csv, column 'kind', row 2: expected a class .*, got an empty one"),
        ("question,kind\nx,a,1\ny,b,2\n", {}, r"a\.csv: its first line names 2 columns, and its second has 3 cells"),
        ("question,kind,kind\n", {}, r"a\.csv: its first line names 'kind' twice"),
        ("question,kind\na,1\nb,2,3,4\n", {}, r"a\.csv cannot be read \(.*Expected 2 fields in line 3"),
        (b"\xff\xfeq\0", {}, r"a\.csv is no UTF-8 text: .*save it as UTF-8"),
        (b"q,k\n\0\n", {}, r"a\.csv is no text: it holds a byte 0"),
        (TWO, {"test": "t.csv"}, r"t\.csv, column 'kind': .* the classes of a\.csv, '1', '2', got '3' as well"),
        (TWO, {"test": "no.csv"}, r"task\.data\.test: no\.csv is missing in .*--data-dir"),
        (TWO, {"test": "."}, r"task\.data\.test: \. leads out of"),
        (TWO, {"test": "sub"}, r"task\.data\.test: sub is a folder: expected a file"),
        (TWO, {"csv": "link.csv"}, r"task\.data\.csv: link\.csv leads out of .* by a link"),
        (TWO, {"csv": "sub/secret.csv"}, r"sub/secret\.csv leads out of .* by a link"),
        (TWO, {"csv": None, "parquet": "a.csv"}, r"a\.csv is no Parquet file"),
        (TWO, {"csv": None, "saved": "sub"}, r"task\.data\.saved: sub/secret\.csv leads out of"),
        ('{"question": "a", "kind": 0.5}', JSON, r"'kind', row 1: expected a class.*got 0\.5 \(float\)"),
        ('{"question": "a", "kind": 1}\n{"ques', JSON, r"a\.csv cannot be read \("),
        ('[{"question": 7, "kind": 1}, {"question": 8, "kind": 2}]', JSON, r"row 1: expected a text, got 7 \(int\)"),
    ],
)
def test_what_is_refused(folder, content, data, message):
    (folder / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "t.csv").write_text("question,kind\na,3\n")
    (folder / "link.csv").symlink_to(folder / "../secret.csv")
    (folder / "sub").mkdir()
    (folder / "sub/secret.csv").symlink_to(folder / "../secret.csv")
    with pytest.raises(RecipeError, match=message) as error:
        read(folder, **{"csv": "a.csv", "test": "a.csv", **COLUMNS, **data})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("one/state.json", {"_data_files": [{"filename": "../../secret.arrow"}]}),
        ("one/state.json", {"_data_files": [{}]}),
        ("splits/dataset_dict.json", {"splits": ["../one"]}),
    ],
)
def test_a_saved_folder_names_its_own_files_only(folder, file, content):
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(RecipeError, match="is damaged, or names files of other folders"):
        read(folder, saved=file.partition("/")[0], holdout=0.5, **COLUMNS)


def test_a_folder_of_texts_has_some(folder):
    (folder / "texts").mkdir()
    with pytest.raises(RecipeError, match=r"task\.data\.text: texts holds no file \.txt"):
        read(folder, text="texts", holdout=0.5)
    (folder / "texts/a.txt").symlink_to(folder / "../secret.csv")
    with pytest.raises(RecipeError, match=r"texts/a\.txt leads out of"):
        read(folder, text="texts", holdout=0.5)


def test_nothing_stays_in_a_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    cached = set(Path(datasets.config.HF_DATASETS_CACHE).rglob("*"))
    first = read(folder, csv="a.tsv", holdout=1, **COLUMNS)
    (folder / "a.tsv").write_text((folder / "a.tsv").read_text().replace("When", "Whom"))
    assert read(folder, csv="a.tsv", holdout=1, **COLUMNS) != first
    assert set(Path(datasets.config.HF_DATASETS_CACHE).rglob("*")) == cached
    assert not list(tmp_path.glob("emo-hf-*"))


def test_hub_splits(monkeypatch):
    table = datasets.Dataset.from_dict(QUESTIONS)
    splits = {"train": table, "validation": table.select([1])}
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: splits)
    data = {"hub": {"name": "a/b", "revision": "c", **COLUMNS}}
    assert sources.hub.read(Data.model_validate({**data, "test": "validation"}), "sequence-classification").test == (
        Example("Where ?", "10"),
    )
    assert sources.hub.read(Data.model_validate({**data, "holdout": 0.25}), "sequence-classification").test == ()
    with pytest.raises(RecipeError, match="a/b has no split 'test', only train, validation"):
        sources.hub.read(Data.model_validate(data), "sequence-classification")
