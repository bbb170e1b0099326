"""Recipes: what is right is read, what is wrong is named, all of it at once."""

import re

import pytest
import yaml

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.schema import Recipe, RunConfig
from tests import ROOT

RECIPES = loading.shipped(ROOT / "recipes")


def problems(path: str) -> list[str]:
    """Returns the lines below the first of the error that reading `path` raises."""
    with pytest.raises(RecipeError) as error:
        loading.recipe(path)
    head, *lines = str(error.value).split("\n  ")
    assert head == f"{path}: {len(lines)} problem{'s' if len(lines) > 1 else ''}"
    return lines


def test_all_recipes_are_found():
    assert len(RECIPES) == 58


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_recipes(path, tmp_path):
    recipe = loading.recipe(str(path))
    assert "smoke" in recipe.sizes
    for size in recipe.sizes if isinstance(recipe, Recipe) else ():
        folder = tmp_path if recipe.task.data.files else None
        assert len(recipe.run_configs(size, data_dir=folder)) == len(recipe.arms) * len(recipe.seeds)
    command = path.read_text().splitlines()[0]
    assert command.startswith(f"# emo-hf run {path.relative_to(ROOT)}")


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
        "metric: expected 'accuracy', 'perplexity'",
        "seeds.1: expected greater than or equal to 0 (got -1)",
        "seeds.2: expected a valid integer (got True)",
        "sizes.smoke.model.config.layers: expected greater than or equal to 1 (got 0)",
        "sizes.smoke.batch_size: missing",
        "sizes.smoke.batchsize: unknown key. Did you mean 'batch_size'?",
        "arms.emosens.lr: expected greater than 0 (got -1.0)",
        "arms.emosens.options: emosens-3.9: unknown option 'stopcof'. Did you mean 'stopcoef'?",
        "arms.adamw.tuning: missing",
        "arms.adamw.shedule: unknown key. Did you mean 'schedule'",
    ]
    assert len(lines) == len(expected)
    for start in expected:
        assert any(line.startswith(start) for line in lines), (start, lines)


def test_no_number_is_out_of_all_bounds(recipe, write):
    huge = 10**9 + 1
    smoke = recipe["sizes"]["smoke"]
    smoke |= {"epochs": huge, "batch_size": huge, "evaluations": huge, "max_tokens": huge}
    smoke["model"]["config"]["vocabulary"] = 10**6 + 1
    recipe["sizes"]["small"] |= {"steps": huge, "epochs": None}
    recipe |= {"processes": huge, "seeds": [2**32]}
    recipe["arms"]["adamw"] |= {"condition": {"corrupted_every": huge, "train_examples": huge}}
    expected = {
        "processes": 10**9,
        "seeds.0": 2**32,
        "sizes.smoke.model.config.vocabulary": 10**6,
        **{f"sizes.smoke.{key}": 10**9 for key in ("epochs", "batch_size", "max_tokens", "evaluations")},
        "sizes.small.steps": 10**9,
        **{f"arms.adamw.condition.{key}": 10**9 for key in ("corrupted_every", "train_examples")},
    }
    lines = problems(write(recipe))
    assert [line.partition(": expected less than ")[0] for line in lines] == list(expected)
    for line, most in zip(lines, expected.values(), strict=True):
        assert re.search(rf"less than (or equal to )?{most} \(got", line), line


def test_unknown_key_lists_the_known_ones(recipe, write):
    recipe["arms"]["emosens"]["learning_rate"] = 1.0
    assert problems(write(recipe)) == [
        "arms.emosens.learning_rate: unknown key. Did you mean 'lr'? Known: optim, lr, options, weight_decay, "
        "schedule, warmup, max_grad_norm, withhold_loss, loss_transform, driven_by, replay, weights, condition, "
        "handover, local_sgd_steps, tuning, family"
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
        (
            {"options": {"betas": [0.9, 0.99]}},
            "arms.adamw.options: 'adamw_torch' is of transformers, whose optimizers take no options here",
        ),
        ({"optim": "emosens", "options": {"lr": 1.0}}, "arms.adamw.options: lr: write it beside options"),
        ({"optim": "emovoid", "weight_decay": 0.1}, "arms.adamw.weight_decay: emovoid has no weight decay"),
        ({"warmup": 0.1}, "arms.adamw.warmup: schedule constant has none"),
        ({"schedule": "linaer"}, "arms.adamw.schedule: expected"),
        (
            {"withhold_loss": True},
            "arms.adamw: withhold_loss and loss_transform are for emo optimizers and driven_by, and 'adamw_torch' is"
            " neither",
        ),
        ({"loss_transform": {"scale": 2.0}}, "arms.adamw: withhold_loss and loss_transform are for emo optimizers"),
        (
            {"optim": "emosens", "withhold_loss": True, "loss_transform": {"offset": 1.0}},
            "arms.adamw: withhold_loss and loss_transform exclude each other",
        ),
        ({"optim": "emosens", "driven_by": "emopulse"}, "arms.adamw: driven_by is for other optimizers"),
        ({"replay": {"of": "emosens"}}, "arms.adamw: replay is for emo optimizers from 3.7 on"),
        ({"schedule": "linear", "handover": {"optimizer": "fresh"}}, "arms.adamw: a handover to a fresh optimizer"),
        ({"optim": "emonavi-3.6", "replay": {"of": "emosens"}}, "arms.adamw: replay is for emo optimizers from 3.7"),
        ({"sweep": [0.1]}, "arms.adamw.sweep: unknown key."),
        (
            {"optim": "emosens", "loss_transform": {}},
            "arms.adamw.loss_transform: changes nothing: give scale or offset",
        ),
        ({"optim": "emosens", "loss_transform": {"scale": 1.0}}, "arms.adamw.loss_transform: changes nothing"),
        (
            {"condition": {}},
            "arms.adamw.condition: changes nothing: give label_noise, corrupted_every or train_examples",
        ),
        ({"tuning": "none"}, "arms.adamw.tuning.how: expected"),
        ({"tuning": {"how": "grid", "grid": {"lr": [1.0]}}}, "arms.adamw.tuning: how: grid, grid and chosen_by go"),
    ],
)
def test_nothing_in_an_arm_is_without_effect(recipe, write, change, line):
    recipe["arms"]["adamw"] |= change
    (found,) = problems(write(recipe))
    assert found.startswith(line)


def test_former_keys_mean_the_same(recipe, write):
    line = {"arm": "emosens", "against": "adamw", "better_by": 0}
    emosens = recipe["arms"]["emosens"]
    difference = {"arm": "emosens", "against": "adamw"}
    recipe["secondary"] = [{**line, "minus": difference}]
    recipe["arms"] |= {
        "fed": {**emosens, "withhold_loss": False},
        "withheld": {**emosens, "withhold_loss": True},
        "louder": {**emosens, "loss_transform": {"scale": 2.0}},
    }
    today = loading.recipe(write(recipe))
    recipe["also"] = [{**line, "beyond": difference}]
    del recipe["secondary"]
    recipe["arms"] |= {
        "fed": {**emosens, "feed": True},
        "withheld": {**emosens, "feed": False},
        "louder": {**emosens, "heard": {"scale": 2.0}},
    }
    assert loading.recipe(write(recipe)) == today
    assert today.arms["withheld"].withhold_loss


def test_a_key_is_given_once(recipe, write):
    recipe["arms"]["emosens"] |= {"feed": False, "withhold_loss": True}
    assert problems(write(recipe)) == ["arms.emosens: feed is the former name of withhold_loss: give one of them"]


@pytest.mark.parametrize("option", ["bets", "params", "kwargs"])
def test_options_of_another_package(recipe, write, option):
    pytest.importorskip("pytorch_optimizer")  # without it, nothing can be said
    recipe["arms"]["adamw"] |= {"optim": "lion", "options": {option: [0.9, 0.99]}}
    (found,) = problems(write(recipe))
    assert found.startswith(f"arms.adamw.options: lion has no option {option}, only lr, betas")
    assert "kwargs" not in found.partition("only")[2]


def test_sweep_stands_for_arms(recipe, write):
    recipe["arms"]["adamw"] = {"optim": "adamw_torch", "sweep": [0.001, 1e-5], "tuning": "untuned"}
    found = loading.recipe(write(recipe))
    assert {name: arm.lr for name, arm in found.arms.items()} == {
        "emosens": 1,
        "adamw-lr-0.001": 0.001,
        "adamw-lr-1e-05": 1e-5,
    }
    assert found.families == {"adamw": ["adamw-lr-0.001", "adamw-lr-1e-05"]}


@pytest.mark.parametrize(
    ("rates", "line"),
    [
        ([], "got no rate, expected one or more"),
        ([0.1, 0.1], "adamw-lr-0.1 exists already"),
        ([0.1, 0.10000001], "adamw-lr-0.1 exists already"),
        ([0.5], "adamw-lr-0.5 exists already"),
    ],
)
def test_sweep_stands_for_arms_of_its_own(recipe, write, rates, line):
    other = recipe["arms"]["adamw"]
    sweep = {"optim": "adamw_torch", "sweep": rates, "tuning": "untuned"}
    recipe["arms"] |= {"adamw": sweep, "adamw-lr-0.5": other}
    (found,) = problems(write(recipe))
    assert found.startswith(f"arms.adamw.sweep: {line}")


def test_replays_know_their_seed(recipe, write):
    replay = {"of": "emosens", "other_seed": True}
    recipe["arms"]["again"] = {"optim": "emosens", "lr": 1, "replay": replay, "tuning": "untuned"}
    found = loading.recipe(write(recipe))
    run_configs = found.run_configs("smoke", ["again"])
    assert [(run_config.seed, run_config.replayed_seed) for run_config in run_configs] == [(0, 1), (1, 0)]
    assert found.run_configs("smoke", ["again"], [1]) == run_configs[1:]  # whatever part is run
    others = found.run_configs("smoke", ["again"], [7, 8])
    assert [run_config.replayed_seed for run_config in others] == [8, 7]
    assert all(found.matches(run_config) for run_config in run_configs + others)
    assert not found.matches(run_configs[1].model_copy(update={"replayed_seed": 1}))
    with pytest.raises(RecipeError, match="again replays another seed than 7: give a second one"):
        found.run_configs("smoke", ["again"], [0, 7])


def test_exactly_one_source(recipe, write):
    recipe["task"]["data"] = {}
    hub = {"name": "a/a", "revision": "b"}
    recipe["sizes"]["smoke"]["model"]["hub"] = hub
    assert problems(write(recipe)) == [
        "task.data: give embedded, hub, files, hub and files, csv, json, parquet, saved or text",
        "sizes.smoke.model: give exactly one of config, vision, vit, hub, llama2c",
    ]


def test_cells(recipe, write, tmp_path):
    found = loading.recipe(write(recipe))
    run_configs = found.run_configs("small")
    assert [(run_config.name, run_config.seed) for run_config in run_configs] == [
        ("emosens", 0),
        ("emosens", 1),
        ("adamw", 0),
        ("adamw", 1),
    ]
    assert [run_config.arm.lr for run_config in run_configs] == [0.1, 0.1, 0.001, 0.001]  # the size changes one arm
    assert str(run_configs[0].arm.tuning) == "grid: lr 0.1, 1"
    assert found.run_configs("smoke")[0].arm.lr == 1
    picked = found.run_configs("smoke", ["adamw"], [7])
    assert [(run_config.name, run_config.seed) for run_config in picked] == [("adamw", 7)]
    with pytest.raises(RecipeError, match=r"no size 'paper', only smoke, small"):
        found.run_configs("paper")
    with pytest.raises(RecipeError, match=r"no arm 'adam'.*Did you mean 'adamw'"):
        found.run_configs("smoke", ["adam"])
    with pytest.raises(RecipeError, match="leave out --data-dir"):
        found.run_configs("smoke", data_dir=tmp_path)


def test_a_grid_counts_for_a_model_of_the_hub_only_where_the_size_says_so(recipe, write):
    hub = {"model": {"hub": {"name": "a/b", "revision": "main"}}, "epochs": 1, "batch_size": 8}
    grid = {"how": "grid", "grid": {"lr": [0.1, 1]}, "chosen_by": "loss on held-out texts"}
    recipe["sizes"]["paper"] = hub
    recipe["arms"]["emosens"]["tuning"] = grid
    recipe["arms"]["adamw"]["tuning"] = "authors' default"
    found = loading.recipe(write(recipe))
    for size, expected in (("smoke", "grid: lr 0.1, 1"), ("paper", "untuned")):
        tunings = [str(run_config.arm.tuning) for run_config in found.run_configs(size, seeds=[0])]
        assert tunings == [expected, "authors' default"]
    recipe["sizes"]["paper"] = {**hub, "arms": {"emosens": {"lr": 0.1, "tuning": grid}}}
    found = loading.recipe(write(recipe))
    (run_config,) = found.run_configs("paper", ["emosens"], [0])
    assert str(run_config.arm.tuning) == "grid: lr 0.1, 1"
    assert found.matches(run_config)


def test_cell_survives_its_file(recipe, write, tmp_path):
    recipe["arms"]["emosens"]["options"] = {"betas": [0.8, 0.9], "use_shadow": True, "branch": "long"}
    run_config = loading.recipe(write(recipe)).run_configs("small")[0]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(run_config.model_dump(mode="json", exclude_none=True)))
    assert loading.run_config(path) == run_config
    assert isinstance(loading.run_config(path), RunConfig)


def test_needs_hub(trec_folder):
    recipe = loading.recipe(str(ROOT / "recipes/trec/gpt2-emosens.yaml"))
    assert recipe.run_configs()[0].size == "paper"
    assert recipe.run_configs("paper", data_dir=trec_folder)[0].needs_hub  # the model
    assert recipe.run_configs("small")[0].needs_hub  # the data
    assert not recipe.run_configs("small", data_dir=trec_folder)[0].needs_hub
