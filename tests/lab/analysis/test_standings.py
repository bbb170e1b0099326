"""The standings of methods over several made-up comparisons."""

import math

import pytest
import yaml

from emo_hf.errors import RecipeError
from emo_hf.lab import figures
from emo_hf.lab.analysis import comparison
from emo_hf.lab.analysis.standings import standings
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.schema import Recipe
from tests.lab import made_up_runs
from tests.lab.figures.test_figures import size_of_png

ARMS = {
    "free": {"optim": "emofree", "lr": 1.0, "tuning": "authors' default"},
    "adamw": {"optim": "adamw_torch", "sweep": [1e-3, 1e-2, 1e-1], "tuning": "untuned"},
    "sens": {"optim": "emosens", "lr": 1.0, "tuning": "authors' default"},
}
LINES = [
    {"arm": "free", "best_of": "adamw", "worse_by_at_most": 0.01},
    {"arm": "free", "best_of": "sens", "better_by": 0},
]


def write(folder, name, values, **changes):
    """Writes a comparison with `values`, arm -> one of each seed."""
    asked = {"metric": "eval_loss", "baseline": "free", "rule": LINES, "arms": ARMS, "measure": [], **changes}
    place = folder / name / "small"
    place.mkdir(parents=True)
    (place / "recipe.yaml").write_text(yaml.safe_dump(made_up_runs.recipe({"name": name, **asked})))
    recipe = loading.recipe(str(place / "recipe.yaml"))
    assert isinstance(recipe, Recipe)
    for run in recipe.run_configs("small"):
        number = values[run.name][recipe.seeds.index(run.seed)]
        made_up_runs.finish(place / run.name / f"seed{run.seed}", run, **{recipe.judged: number})
    return place


@pytest.fixture
def places(tmp_path):
    sweep = {"adamw-lr-0.001": [3, 5], "adamw-lr-0.01": [2, 3], "adamw-lr-0.1": [1, 3]}
    one = write(tmp_path, "one", {"free": [1, 2], "sens": [3, 3], **sweep})
    sweep = {"adamw-lr-0.001": [1, 1], "adamw-lr-0.01": [2, 1], "adamw-lr-0.1": [9, None]}
    return one, write(tmp_path, "other", {"free": [1, 3], "sens": [4, 4], **sweep})


def test_ratios_to_the_best_of_each_comparison(places):
    free, adamw, sens, fixed = standings(list(map(comparison.read, places)))
    assert (free.name, free.optimizer, free.sweep, free.ratios) == (
        "free",
        "emofree-1.0",
        None,
        {"one": 1.0, "other": 2.0},
    )
    assert (adamw.name, adamw.optimizer) == ("adamw", "adamw_torch")
    assert adamw.ratios == {"one": pytest.approx(2 / 1.5), "other": 1.0}  # the best rates differ: 0.1 and 0.001
    assert (sens.name, sens.ratios) == ("sens", {"one": 2.0, "other": 4.0})
    # one rate for all: sqrt(2.5 * 1.5) is less than sqrt(4 * 1), and 0.1 diverged
    assert (fixed.name, fixed.sweep) == ("adamw-lr-0.01", "adamw")
    assert fixed.ratios == {"one": pytest.approx(2.5 / 1.5), "other": 1.5}
    assert [free.share_within(factor) for factor in (0.99, 1.0, 1.99, 2.0)] == [0, 0.5, 0.5, 1]


def test_more_may_be_better_and_a_diverged_run_is_the_worst(tmp_path):
    sweep = {"adamw-lr-0.001": [0.4, 0.4], "adamw-lr-0.01": [0.8, 0.8], "adamw-lr-0.1": [0.1, None]}
    values = {"free": [0.4, 0.4], "sens": [None, 0.9], **sweep}
    free, adamw, sens = standings([comparison.read(write(tmp_path, "one", values, metric="accuracy"))])
    assert (free.ratios, adamw.ratios, sens.ratios) == ({"one": 2.0}, {"one": 1.0}, {"one": math.inf})


def test_profile_is_drawn(places, tmp_path):
    figures.profile(places, tmp_path / "profile.png")
    assert size_of_png(tmp_path / "profile.png") == (750, 500)


def test_comparisons_ask_the_same(places, tmp_path):
    values = {name: [1, 2] for name in ("free", "sens", *(f"adamw-lr-{rate}" for rate in (0.001, 0.01, 0.1)))}
    other = write(tmp_path, "third", values, rule=LINES[:1])
    with pytest.raises(RecipeError, match="Expected comparisons with the same baseline and rule, got 2 different"):
        standings([comparison.read(place) for place in (*places, other)])
    lone = write(tmp_path, "fourth", values, rule=[{"arm": "free", "against": "sens", "better_by": 0}])
    with pytest.raises(RecipeError, match="nothing to compare: expected a baseline, and lines with best_of"):
        standings([comparison.read(lone)])
