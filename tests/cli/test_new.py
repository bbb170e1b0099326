"""Data of one's own, as a new user has it: `emo-hf new` writes a recipe, and the recipe runs."""

import csv
import json

import pytest
import yaml
from transformers import LlamaConfig

from emo_hf.cli import main
from emo_hf.lab import sources
from emo_hf.lab.recipe import loading
from emo_hf.lab.tasks import first_recipe
from tests.lab.made_up_data import QUESTIONS, tale
from tests.lab.tasks.test_pretrained import models

__all__ = ["models"]  # a fixture
ROWS = [(text.format(f"x{k}"), label) for k in range(20) for label, text in QUESTIONS.items()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a labelled csv, prompts and completions, and a folder of texts."""
    monkeypatch.chdir(tmp_path)
    for name, rows in (("train.csv", ROWS), ("test.csv", ROWS[:30])):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([("question", "kind"), *rows])
    pairs = [{"id": k, "instruction": text, "response": label} for k, (text, label) in enumerate(ROWS)]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (tmp_path / "plays").mkdir()
    for act in range(3):
        (tmp_path / f"plays/{act}.txt").write_text(tale(200, seed=act))
    return tmp_path


def first_run(name: str, data_dir):
    recipe = loading.recipe(name)
    return recipe.run_configs("smoke", data_dir=data_dir)[0]


CSV = {"csv": "train.csv", "holdout": 0.1, "text": "question", "label": "kind"}
ASKED = {"holdout": 0.1, "prompt": "question", "completion": "kind"}
TEXTS = {"text": "plays", "holdout": 0.1}


@pytest.mark.parametrize(
    ("arguments", "file", "data"),
    [
        ("train.csv", "train.yaml", CSV),
        ("train.csv --test test.csv", "train.yaml", {**CSV, "holdout": None, "test": "test.csv"}),
        ("train.csv --prompt question --completion kind", "train.yaml", {"csv": "train.csv", **ASKED}),
        ("qa.jsonl", "qa.yaml", {**ASKED, "json": "qa.jsonl", "prompt": "instruction", "completion": "response"}),
        ("plays -o a.yaml", "a.yaml", TEXTS),
        ("plays/1.txt", "plays/1.yaml", {**TEXTS, "text": "1.txt"}),
        ("plays --model-dir MODELS --model nobody/nothing", "plays.yaml", TEXTS),
        ("train.csv --model MODELS/nothing", "train.yaml", CSV),
    ],
)
def test_a_first_recipe(folder, models, capsys, arguments, file, data):
    arguments = arguments.replace("MODELS", str(models)).split()
    assert main(["new", *arguments]) == 0
    said = capsys.readouterr().out
    assert f"Written: {file}. Read it, and then:\n  emo-hf run {file} --size smoke --seeds 0" in said
    recipe = loading.recipe(file)
    assert recipe.task.data.model_dump(exclude_none=True) == {key: value for key, value in data.items() if value}
    run_config = first_run(file, (folder / file).parent)
    found = sources.examples(run_config)
    if not isinstance(found.train, str):
        assert len(found.train) == run_config.scale.train_examples
    assert f"--model-dir {models}" in said or "--model" not in " ".join(arguments)
    assert main(["new", *arguments]) == 1
    assert f"{file} exists already: nothing was written" in capsys.readouterr().err


def test_weights_in_gguf_get_adapters(folder, monkeypatch, capsys):
    (folder / "tiny").mkdir()
    (folder / "tiny/w.gguf").touch()
    monkeypatch.setattr(first_recipe.AutoConfig, "from_pretrained", lambda *_, **__: LlamaConfig(hidden_size=64))
    assert main(["new", "plays", "--model", "tiny"]) == 0
    assert "Guessed: weights in GGUF cannot be trained" in capsys.readouterr().out
    model = loading.recipe("plays.yaml").sizes["small"].model
    assert (model.hub.name, model.hub.gguf, model.hub.config["hidden_size"]) == ("local/tiny", "w.gguf", 64)
    assert model.lora.targets == ["q_proj", "v_proj"]


def test_guesses_without_names(folder, capsys):
    rows = [
        ("", "Satz", "x: #1"),
        *((str(k), f"words {k % 37} of many", "ja" if k % 3 else "nein") for k in range(90)),
    ]
    (folder / "a b.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    assert main(["new", "a b.tsv", "-o", "elsewhere.yaml"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "text is the column 'Satz', whose texts are the longest" in said
    assert "label is the column 'x: #1', which has only 2 different values" in said
    assert sources.examples(first_run("elsewhere.yaml", folder)).labels == ("ja", "nein")
    (folder / "below").mkdir()
    assert main(["new", "a b.tsv", "-o", "below/b.yaml"]) == 0  # the data is not below the recipe's folder
    assert f"--size smoke --seeds 0 --data-dir {folder}" in capsys.readouterr().out
    assert yaml.safe_load((folder / "below/b.yaml").read_text())["task"]["data"]["csv"] == "a b.tsv"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.csv"], "no.csv does not exist: expected a file .csv"),
        (["a.xls"], "a.xls is of no known kind: expected a file .csv"),
        (["plays", "--label", "kind"], "plays is running text and has no columns: leave out --label"),
        (["train.csv", "--label", "knd"], "train.csv has no column 'knd'"),
        (["train.csv", "--model", "no/where"], "No model 'no/where'"),
        (["secret.csv"], "a recipe must not hold a key or a password"),
    ],
)
def test_what_no_recipe_can_be_made_of(folder, capsys, arguments, message):
    (folder / "a.xls").write_text("x")
    secret = "hf_" + "aB3dE5gH" * 4
    (folder / "secret.csv").write_text((folder / "train.csv").read_text().replace("question", secret, 1))
    assert main(["new", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(folder.glob("*.yaml"))


@pytest.mark.slow
def test_it_runs_as_it_is_told(folder, capsys):
    """The commands that are printed, for one arm; then the report, the card, and other data in the same place."""
    assert main(["new", "train.csv", "--test", "test.csv"]) == 0
    assert main(["validate", "train.yaml"]) == 0
    run = ["run", "train.yaml", "--size", "smoke", "--seeds", "0", "--arms", "adamw"]
    assert main(run) == 0
    assert main(["report", "runs/train/smoke"]) == 0
    classes = "Classes: " + ", ".join(sorted(QUESTIONS))
    assert classes in (folder / "runs/train/smoke/report/report.md").read_text()
    assert main(["card", "runs/train/smoke/adamw", "-o", "card.md"]) == 0
    card = " ".join((folder / "card.md").read_text().split())
    assert "Data: train.csv in a local folder DIR (text in the column question, label in the column kind); 64" in card
    assert classes in card
    assert "language:" not in card  # nobody knows which
    assert "emo-hf run train.yaml --size smoke --arms adamw --data-dir DIR" in card
    (folder / "train.csv").write_text((folder / "train.csv").read_text().replace("x3", "y3"))
    capsys.readouterr()
    assert main(run) == 2
    assert "The data is not what the finished runs in runs/train/smoke learned from" in capsys.readouterr().err
    (folder / "test.csv").unlink()
    assert main(["validate", "train.yaml"]) == 2
    assert "task.data.test: test.csv is missing" in " ".join(capsys.readouterr().err.split())
