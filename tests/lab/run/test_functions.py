"""Test functions: what they are, how they are descended, and what the recipes say about it."""

import json
import math

import pytest
import torch
import yaml

from emo_hf import registry
from emo_hf.cli import main
from emo_hf.errors import RecipeError
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.arms import Arm
from emo_hf.lab.run import functions
from emo_hf.lab.run.functions import FUNCTIONS
from tests import ROOT

RECIPES = sorted((ROOT / "recipes/functions").glob("*.yaml"))
every_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def arm(optim: str, lr: float, **more) -> Arm:
    return Arm(optim=optim, lr=lr, tuning="untuned", **more)


@pytest.fixture
def write(tmp_path):
    """Writes a small recipe, changed by `changes`, and returns its path."""

    def write(**changes) -> str:
        content = {
            "name": "bowl",
            "description": "a test",
            "task": {"type": "function", "function": "rosenbrock"},
            "metric": "distance",
            "sizes": {"smoke": {"steps": 3}, "small": {"steps": 60}},
            "arms": {"emosens": {"optim": "emosens", "lr": 1.0, "tuning": "untuned"}},
            **changes,
        }
        path = tmp_path / "bowl.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return str(path)

    return write


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_the_minimum_is_one(function):
    x, y = (torch.linspace(*limits, 301, dtype=torch.float64) for limits in (function.x, function.y))
    heights = function.value(x[None, :], y[:, None])
    assert function.value(*torch.tensor(function.minimum, dtype=torch.float64)).item() == 0.0
    assert heights.min() >= 0
    assert heights.max() > max(function.levels)
    assert function.x[0] < function.start[0] < function.x[1]
    assert function.y[0] < function.start[1] < function.y[1]


def test_known_values():
    one, two, half = (torch.tensor(value, dtype=torch.float64) for value in (1.0, 2.0, 0.5))
    assert functions.rosenbrock(-two, two).item() == 409.0
    assert functions.rastrigin(one, -two).item() == pytest.approx(5.0)
    assert functions.rastrigin(half, half).item() == pytest.approx(40.5)


def test_first_steps_by_hand():
    """A gradient clipped to norm 1, then AdamW's first step: a step of lr in both directions; and SGD's."""
    points = functions.descend(FUNCTIONS["rosenbrock"], arm("adamw_torch", 0.1), 1)
    assert points[0] == (-2.0, 2.0)
    assert points[1] == pytest.approx((-1.9, 2.1), abs=1e-6)
    # gradient at the start: -2 (1 - x) - 400 x (y - x^2) = -1606, 200 (y - x^2) = -400
    norm = math.hypot(1606, 400)
    points = functions.descend(FUNCTIONS["rosenbrock"], arm("sgd", 0.1), 1)
    assert points[1] == pytest.approx((-2 + 160.6 / norm, 2 + 40 / norm), abs=1e-6)


def test_the_loss_is_fed():
    """The same steps with the loss given by hand."""
    function = FUNCTIONS["rosenbrock"]
    position = torch.nn.Parameter(torch.tensor(function.start, dtype=torch.float64))
    optimizer = registry.build("emosens-3.9", [position], lr=5.0, weight_decay=0.0, implementation="forloop")
    for _ in range(60):
        optimizer.zero_grad()
        loss = function.value(position[0], position[1])
        loss.backward()
        torch.nn.utils.clip_grad_norm_([position], 1.0)
        optimizer.step(loss=loss)
    assert optimizer.effective_lr != 5e-4  # what a loss that never moves would have given
    points = functions.descend(function, arm("emosens-3.9", 5.0), 60)
    assert points[-1] == tuple(position.tolist())


def test_decay_and_schedule_of_the_arm_act():
    plain, decayed, scheduled = (
        functions.descend(FUNCTIONS["rastrigin"], arm("emosens", 10.0, **more), 20)
        for more in ({}, {"weight_decay": 0.1}, {"schedule": "linear"})
    )
    assert plain[-1] != decayed[-1]
    assert plain[-1] != scheduled[-1]


def test_distance_is_that_of_the_last_50_points():
    points = [(9.0, 9.0)] * 10 + [(1.0, 1.0)] * 25 + [(1.0, 3.0)] * 25
    assert functions.distance(FUNCTIONS["rosenbrock"], points) == 1.0


def test_the_recipes_hold_every_family_and_a_baseline():
    assert {path.stem for path in RECIPES} == set(FUNCTIONS)
    for path in RECIPES:
        recipe = loading.recipe(str(path))
        assert list(recipe.arms) == [*dict.fromkeys(row.name for row in registry.SPECS), "adamw"]
        for name, found in recipe.arms.items():
            assert found.optim == {"adamw": "adamw_torch"}.get(name, name)
            assert found.lr in found.tuning.grid["lr"]


@every_recipe
@pytest.mark.parametrize("name", ["adamw", "emoneco"])
def test_no_neighbour_on_the_grid_is_better(path, name):
    """Two arms whose paths do not hang on the last bit of a float, as those of 3.6 and later may."""
    recipe = loading.recipe(str(path))
    found, function = recipe.arms[name], FUNCTIONS[recipe.task.function]
    steps = recipe.sizes["small"].steps

    def reached(lr: float) -> float:
        return functions.distance(function, functions.descend(function, arm(found.optim, lr), steps))

    grid = found.tuning.grid["lr"]
    place = grid.index(found.lr)
    assert min(grid[place - 1 : place + 2], key=reached) == found.lr


@every_recipe
def test_run_and_draw(path, tmp_path, capsys):
    assert main(["run", str(path), "--size", "smoke", "--runs-dir", str(tmp_path)]) == 0
    paths = tmp_path / path.stem / "smoke/paths.json"
    result = functions.read(paths)
    assert [len(found.points) for found in result.paths] == [21] * 12
    assert {found.optimizer for found in result.paths} == {
        "adamw_torch",
        *{registry.find(spec.name).key for spec in registry.SPECS},
    }
    out = capsys.readouterr().out
    assert "grid: lr 0.001" in out
    for found in result.paths:
        assert f"{found.distance:.2g}" in out
    picture = tmp_path / "new/picture.png"
    assert main(["plot", "functions", str(paths), "-o", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_run_replaces_the_one_before_and_repeats_it(write, tmp_path):
    recipe = loading.recipe(write())
    first = functions.run(recipe, tmp_path)
    content = first.read_bytes()
    assert functions.run(recipe, tmp_path) == first
    assert first.read_bytes() == content
    assert json.loads(content)["steps"] == 60
    assert [file.name for file in first.parent.iterdir()] == ["paths.json"]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {"task": {"type": "function", "function": "sphere"}},
            [],
            "task.function: expected 'rosenbrock' or 'rastrigin'",
        ),
        ({"seeds": [0]}, [], "seeds: unknown key"),
        ({"sizes": {"small": {"steps": 0}}}, [], "sizes.small.steps: expected greater than or equal to 1 (got 0)"),
        ({"default_size": "paper"}, [], "default_size: 'paper' is not among sizes: smoke, small"),
        ({}, ["--size", "paper"], "bowl has no size 'paper', only smoke, small"),
        ({}, ["--arms", "emosenz"], "Did you mean 'emosens'?"),
        ({}, ["--seeds", "1"], "leave out --data-dir, --seeds and --report-to"),
        ({}, ["--report-to", "wandb"], "leave out --data-dir, --seeds and --report-to"),
        (
            {"arms": {"sgd": {"optim": "sgd", "lr": 1e200, "tuning": "untuned"}}},
            [],
            "arms.sgd: ran away to infinity within 60 steps at lr 1e+200",
        ),
        (
            {"arms": {"lion": {"optim": "lion", "lr": 1, "tuning": "untuned"}}},
            [],
            "arms.lion.optim: lion is of another",
        ),
        (
            {"arms": {"sens": {"optim": "emosens", "lr": 1, "withhold_loss": True, "tuning": "untuned"}}},
            [],
            "arms.sens.withhold_loss: has no effect on a function",
        ),
    ],
)
def test_what_cannot_be_run_says_so_and_writes_nothing(write, changes, options, message, tmp_path, capsys):
    runs = tmp_path / "runs"
    assert main(["run", write(**changes), "--runs-dir", str(runs), *options]) == 2
    assert message in capsys.readouterr().err
    assert not runs.exists()


@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_what_holds_no_paths_is_refused(content, tmp_path):
    path = tmp_path / "paths.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecipeError, match=r"paths\.json holds no paths"):
        functions.read(path)
