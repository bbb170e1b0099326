"""Recipes: what is right is read, what is wrong is named, all of it at once."""

from pathlib import Path

import pytest
import yaml

from emo_hf.errors import RecipeError
from emo_hf.lab import load
from emo_hf.lab.spec import Cell, Recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


def problems(path: str) -> list[str]:
    """Returns the lines below the first of the error that reading `path` raises."""
    with pytest.raises(RecipeError) as error:
        load.recipe(path)
    head, *lines = str(error.value).split("\n  ")
    assert head == f"{path}: {len(lines)} problem{'s' if len(lines) > 1 else ''}"
    return lines


def test_all_recipes_are_found():
    assert len(RECIPES) == 6


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes(path):
    recipe = load.recipe(str(path))
    assert "smoke" in recipe.sizes
    for size in recipe.sizes if isinstance(recipe, Recipe) else ():
        assert len(recipe.cells(size)) == len(recipe.arms) * len(recipe.seeds)
    command = path.read_text().splitlines()[0]
    assert command.startswith(f"# emo-hf run {path.relative_to(ROOT)}")


def test_bare_name(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert load.recipe("quickstart").name == "quickstart"
    with pytest.raises(RecipeError, match=r"No recipe 'quikstart'.*Did you mean 'quickstart'"):
        load.recipe("quikstart")


def test_all_problems_at_once(recipe, write):
    recipe["descripton"] = recipe.pop("description")
    recipe["metric"] = "acuracy"
    recipe["seeds"] = [0, -1, True]
    recipe["sizes"]["smoke"]["model"]["config"]["layers"] = 0
    recipe["sizes"]["smoke"]["batchsize"] = recipe["sizes"]["smoke"].pop("batch_size")
    recipe["arms"]["emosens"] |= {"lr": -1.0, "options": {"stopcof": 0.1}}
    recipe["arms"]["adamw"] |= {"shedule": "linear"}
    del recipe["arms"]["adamw"]["tuning"]
    lines = problems(write(recipe))
    expected = [
        "description: missing",
        "descripton: unknown key. Did you mean 'description'?",
        "metric: expected 'accuracy' Did you mean 'accuracy'? (got 'acuracy')",
        "seeds.1: expected greater than or equal to 0 (got -1)",
        "seeds.2: expected a valid integer (got True)",
        "sizes.smoke.model.config.layers: expected greater than or equal to 1 (got 0)",
        "sizes.smoke.batch_size: missing",
        "sizes.smoke.batchsize: unknown key. Did you mean 'batch_size'?",
        "arms.emosens.lr: expected greater than 0 (got -1.0)",
        "arms.emosens.options: emosens-3.9: unknown option 'stopcof'. Did you mean 'stopcoef'?",
        "arms.adamw.tuning: missing",
        "arms.adamw.shedule: unknown key. Did you mean 'schedule'?",
    ]
    assert len(lines) == len(expected)
    for start in expected:
        assert any(line.startswith(start) for line in lines), (start, lines)


def test_unknown_key_lists_the_known_ones(recipe, write):
    recipe["arms"]["emosens"]["learning_rate"] = 1.0
    assert problems(write(recipe)) == [
        "arms.emosens.learning_rate: unknown key. Known: optim, lr, options, weight_decay, schedule, warmup, "
        "local_sgd_steps, tuning"
    ]


def test_whole_recipe_is_consistent(recipe, write):
    recipe |= {"seeds": [1, 1], "default_size": "paper"}
    recipe["sizes"]["small"]["arms"] = {"emosesn": {"lr": 1.0, "tuning": "untuned"}}
    assert problems(write(recipe)) == [
        "seeds: got [1, 1], expected every seed once",
        "default_size: 'paper' is not among sizes: smoke, small",
        "sizes.small.arms.emosesn: no such arm. Did you mean 'emosens'?",
    ]


@pytest.mark.parametrize(
    "name", ["..", "../up", "a/b", "a\\b", "/abs", "C:x", ".hidden", "-x", "a..b", "a\n", "", "Ä"]
)
def test_names_cannot_leave_the_runs_folder(recipe, write, name):
    recipe["name"] = name
    recipe["arms"] = {name: recipe["arms"]["adamw"]}
    recipe["sizes"]["small"].pop("arms")
    lines = problems(write(recipe))
    assert len(lines) == 2
    assert all(line.endswith(f"joined by single . _ or - (got {name!r})") for line in lines)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"optim": "emosesn"}, "arms.adamw.optim: unknown optimizer 'emosesn'. Did you mean 'emosens'"),
        ({"options": {"betas": [0.9, 0.99]}}, "arms.adamw.options: only emo optimizers take options"),
        ({"optim": "emosens", "options": {"lr": 1.0}}, "arms.adamw.options: lr: write it beside options"),
        ({"optim": "emovoid", "weight_decay": 0.1}, "arms.adamw.weight_decay: emovoid has no weight decay"),
        ({"warmup": 0.1}, "arms.adamw.warmup: schedule constant has none"),
        ({"schedule": "linaer"}, "arms.adamw.schedule: expected"),
        ({"tuning": "none"}, "arms.adamw.tuning.how: expected"),
        ({"tuning": {"how": "grid", "grid": {"lr": [1.0]}}}, "arms.adamw.tuning: how: grid, grid and chosen_by go"),
    ],
)
def test_nothing_in_an_arm_is_without_effect(recipe, write, change, line):
    recipe["arms"]["adamw"] |= change
    (found,) = problems(write(recipe))
    assert found.startswith(line)


def test_exactly_one_source(recipe, write):
    recipe["task"]["data"] = {}
    hub = {"name": "a", "revision": "b"}
    recipe["sizes"]["smoke"]["model"]["hub"] = hub
    assert problems(write(recipe)) == [
        "task.data: give exactly one of embedded, hub",
        "sizes.smoke.model: give exactly one of config, hub",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "'name' is given twice"),
        ("- a\n", "expected keys and values, got list"),
        ("a: [\n", "cannot be read"),
        ("a: !!python/object/apply:os.getcwd []\n", "cannot be read"),
        ("", "expected keys and values, got NoneType"),
    ],
)
def test_no_recipe(write, text, message):
    with pytest.raises(RecipeError, match=message):
        load.recipe(write(text))


def test_numbers_with_exponent(recipe, write):
    text = yaml.safe_dump(recipe).replace("lr: 0.001", "lr: 1e-3")
    assert "1e-3" in text
    assert load.recipe(write(text)).arms["adamw"].lr == 0.001


def test_cells(recipe, write, tmp_path):
    found = load.recipe(write(recipe))
    cells = found.cells("small")
    assert [(cell.name, cell.seed) for cell in cells] == [("emosens", 0), ("emosens", 1), ("adamw", 0), ("adamw", 1)]
    assert [cell.arm.lr for cell in cells] == [0.1, 0.1, 0.001, 0.001]  # the size changes one arm
    assert str(cells[0].arm.tuning) == "grid: lr 0.1, 1"
    assert found.cells("smoke")[0].arm.lr == 1
    picked = found.cells("smoke", ["adamw"], [7])
    assert [(cell.name, cell.seed) for cell in picked] == [("adamw", 7)]
    with pytest.raises(RecipeError, match=r"no size 'paper', only smoke, small"):
        found.cells("paper")
    with pytest.raises(RecipeError, match=r"no arm 'adam'.*Did you mean 'adamw'"):
        found.cells("smoke", ["adam"])
    with pytest.raises(RecipeError, match="leave out --data-dir"):
        found.cells("smoke", data_dir=tmp_path)


def test_cell_survives_its_file(recipe, write, tmp_path):
    recipe["arms"]["emosens"]["options"] = {"betas": [0.8, 0.9], "use_shadow": True, "branch": "long"}
    cell = load.recipe(write(recipe)).cells("small")[0]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(cell.model_dump(mode="json", exclude_none=True)))
    assert load.cell(path) == cell
    assert isinstance(load.cell(path), Cell)


def test_needs_hub(trec_folder):
    recipe = load.recipe(str(ROOT / "recipes/trec/gpt2-emosens.yaml"))
    assert recipe.cells()[0].size == "paper"
    assert recipe.cells("paper", data_dir=trec_folder)[0].needs_hub  # the model
    assert recipe.cells("small")[0].needs_hub  # the data
    assert not recipe.cells("small", data_dir=trec_folder)[0].needs_hub
