"""What the command does with recipes besides training: it lists, copies and checks them."""

import pytest

from emo_hf import cli
from emo_hf.lab.recipe import loading
from tests import ROOT


def test_a_shipped_recipe_has_a_name_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert loading.find("quickstart") == loading.find("quickstart").resolve() == ROOT / "recipes/quickstart.yaml"
    assert loading.find("trec/gpt2-emosens") == loading.find("gpt2-emosens")


def test_ls_recipes(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["ls", "--recipes"]) == 0
    listed = capsys.readouterr().out
    assert max(map(len, listed.splitlines())) <= 80
    assert all(name in listed for name in loading.shipped_names())


@pytest.mark.parametrize("name", loading.shipped_names())
def test_a_copy_is_the_same_recipe(name, tmp_path, capsys):
    assert cli.main(["cp", name, str(tmp_path / "mine")]) == 0
    (copy,) = (tmp_path / "mine").iterdir()
    assert capsys.readouterr().out == f"Written: {copy}\n"
    assert loading.recipe(str(copy)) == loading.recipe(name)
    shipped = [line for line in loading.find(name).read_text().splitlines() if line.startswith("# emo-hf run ")]
    commands = [line.replace(f"recipes/{name}.yaml", copy.name) for line in shipped]
    assert copy.read_text().splitlines()[: len(commands)] == commands


def test_a_copy_overwrites_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.yaml").write_text("mine")
    assert cli.main(["cp", str(ROOT / "recipes/quickstart.yaml")]) == 1
    assert "exists already: nothing was written" in capsys.readouterr().err
    assert (tmp_path / "quickstart.yaml").read_text() == "mine"


def test_validate_shows_what_would_run(recipe, write, tmp_path, capsys):
    path = write(recipe)
    assert cli.main(["validate", path]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Runs: 4 (arms: 2, seeds: 2), of 2 epochs each." in shown
    assert "Sizes: smoke, small." in shown
    assert "grid: lr 0.1, 1" in shown
    assert cli.main(["validate", path, "--size", "smoke", "--arms", "adamw", "--seeds", "5"]) == 0
    assert "Runs: 1 (arms: 1, seeds: 1), of 1 epochs each." in " ".join(capsys.readouterr().out.split())
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.yaml"]


def test_validate_names_the_problems(recipe, write, capsys):
    recipe["arms"]["adamw"]["lr"] = -1
    assert cli.main(["validate", write(recipe)]) == 2
    assert "arms.adamw.lr: expected greater than 0" in capsys.readouterr().err


def test_a_folder_of_models_in_the_environment_asks_for_no_data(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EMO_HF_MODELS", str(tmp_path))
    assert cli.main(["validate", "trec/gpt2-emosens", "--size", "small"]) == 0  # it would need --data-dir to run
    assert cli.main(["validate", "trec/gpt2-emosens", "--size", "paper"]) == 2
    assert f"The copy of openai-community/gpt2 in {tmp_path}" in " ".join(capsys.readouterr().err.split())


def test_validate_reads_the_data_if_it_is_given(data_folder, capsys):
    assert cli.main(["validate", "trec/gpt2-emosens", "--size", "small"]) == 0
    assert cli.main(["validate", "trec/gpt2-emosens", "--size", "small", "--data-dir", str(data_folder)]) == 0
    (data_folder / "trec/TREC_10.label").unlink()
    assert cli.main(["validate", "trec/gpt2-emosens", "--size", "small", "--data-dir", str(data_folder)]) == 2
    assert "TREC_10.label is missing" in capsys.readouterr().err


def test_validate_a_function(capsys):
    assert cli.main(["validate", "functions/rosenbrock"]) == 0
    assert "Paths: 12, of 500 steps each." in " ".join(capsys.readouterr().out.split())
    assert cli.main(["validate", "functions/rosenbrock", "--seeds", "1"]) == 2
