"""What a recipe asks fits together: lines, arms, metrics and sizes; all that does not is named."""

import re

import pytest

from emo_hf.lab.recipe import loading
from tests.lab.recipe.test_schema import problems


def test_whole_recipe_is_consistent(recipe, write):
    recipe |= {"seeds": [1, 1], "default_size": "paper"}
    recipe["sizes"]["small"]["arms"] = {"emosesn": {"lr": 1.0, "tuning": "untuned"}}
    assert problems(write(recipe)) == [
        "default_size: 'paper' is not among sizes: smoke, small",
        "sizes.small.arms.emosesn: no such arm. Did you mean 'emosens'?",
        "seeds: got [1, 1], expected every seed once",
    ]


def test_running_text_has_no_halves(recipe, write):
    recipe |= {"task": {"type": "causal-lm", "data": {"files": "tinyshakespeare"}}, "metric": "perplexity"}
    recipe["arms"]["emosens"]["handover"] = {"optimizer": "fresh", "data": "halves"}
    expected = ["arms.emosens.handover.data: halves need classes, and running text has none"]
    assert problems(write(recipe)) == expected


@pytest.mark.parametrize(
    ("of", "line"),
    [("again", "again is itself a replay"), ("more", "more is itself a replay"), ("adamw", "adamw has no pulse")],
)
def test_replays_of_what_can_be_replayed(recipe, write, of, line):
    again = {"optim": "emosens", "lr": 1, "replay": {"of": of}, "tuning": "untuned"}
    recipe["arms"] |= {"again": again, "more": again | {"replay": {"of": "emosens"}}}
    (found,) = problems(write(recipe))
    assert found.startswith(f"arms.again.replay.of: {line}")


def test_batches_are_corrupted_within_the_steps(recipe, write):
    recipe["sizes"]["small"] |= {"steps": 10, "epochs": None}
    recipe["arms"]["adamw"]["condition"] = {"corrupted_every": 10}
    expected = "arms.adamw.condition.corrupted_every: got 10, expected less than the 10 steps of sizes.small"
    assert problems(write(recipe)) == [expected]
    recipe["arms"]["adamw"]["condition"] = {"corrupted_every": 9}
    assert loading.recipe(write(recipe))


def test_rule_names_what_there_is(recipe, write):
    recipe["rule"] = [
        {"arm": "emosens", "against": "adma", "better_by": 0},
        {"arm": "emosens", "minus": {"arm": "adamw", "against": "emosens"}, "at_most": 1.0},
        {"sweep": "emosens", "against": "adamw", "within": 0.1, "better_by": 0},
        {"order": ["emosens", "adamw", "x"], "at_least": 0.5},
        {"arm": "emosens", "best_of": "adam", "better_by": 0},
    ]
    recipe["baseline"] = "adam"
    recipe["published"] = {"source": "a paper", "values": {"accuracy": {"sgd": 1.0}}}
    lines = problems(write(recipe))
    for expected in (
        "rule: decides a claim: give claim and source",
        "rule.0: no such arm: adma. Did you mean 'adamw'?",
        "rule.1: minus subtracts a second difference: give against",
        "rule.2: no such sweep: emosens.",
        "rule.2: no such sweep: adamw.",
        "rule.3: no such arm: x.",
        "rule.4: no such arm: adam. Did you mean 'adamw'?",
        "baseline: no such arm: adam. Did you mean 'adamw'?",
        "published: no such arm: sgd.",
    ):
        assert expected in lines
        lines.remove(expected)
    assert lines == []


def test_lines_of_a_rule(recipe, write):
    recipe["rule"] = [
        {"arm": "emosens", "agianst": "adamw", "better_by": 0},
        {"arm": "emosens", "against": "adamw"},
        {"sweep": "emosens", "against": "adamw", "better_by": 0},
    ]
    lines = problems(write(recipe))
    assert lines[0].startswith("rule.0.agianst: unknown key. Did you mean 'against'")
    assert lines[1:] == [
        "rule.1: give exactly one of better_by, worse_by_at_most, at_least, at_most",
        "rule.2.within: missing",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"arm": "adamw", "against": "adamw", "better_by": 0}, "arm and against are both adamw"),
        ({"sweep": "adamw", "against": "adamw", "within": 0.1, "better_by": 0}, "sweep and against are both adamw"),
        (
            {"arm": "adamw", "against": "emosens", "minus": {"arm": "x", "against": "x"}, "better_by": 0},
            "arm and against are both x",
        ),
        (
            {"arm": "adamw", "metric": "perplexity", "at_most": 9},
            "no perplexity of adamw: it takes the task causal-lm",
        ),
        ({"arm": "adamw", "metric": "gap", "at_most": 1}, "no gap of adamw: it takes equal_train_loss"),
        (
            {"arm": "emosens", "against": "adamw", "metric": "stop_share", "better_by": 0},
            "no stop_share of adamw: it takes an emo optimizer, or driven_by",
        ),
        (
            {"order": ["emosens", "adamw", "driven"], "metric": "stop_regret", "at_least": 0},
            "no stop_regret of adamw:",
        ),
        (
            {"sweep": "sgd", "against": "sens", "within": 1, "metric": "stop_share", "at_least": 0},
            "no stop_share of sgd-",
        ),
        ({"arm": "emosens", "metric": "kurtosis_correlation", "at_most": 1}, "no kurtosis_correlation of emosens: it"),
        ({"arm": "emosens", "metric": "earlier_accuracy", "at_most": 1}, "no earlier_accuracy of emosens: it takes a"),
    ],
)
def test_a_line_has_a_number(recipe, write, line, problem):
    recipe["secondary"] = [line]
    untuned = {"tuning": "untuned", "optim": "adamw_torch"}
    recipe["arms"]["driven"] = {**untuned, "lr": 0.001, "driven_by": "emopulse"}
    recipe["arms"]["sgd"] = {**untuned, "sweep": [0.1]}
    recipe["arms"]["sens"] = {**untuned, "optim": "emosens", "sweep": [1]}
    (found,) = problems(write(recipe))
    assert re.match(rf"secondary\.0(\.minus)?: {problem}", found)


def test_metric_that_no_arm_has(recipe, write):
    recipe["metric"] = "skewness_correlation"
    recipe["secondary"] = [{"arm": "emosens", "at_least": 0}]
    expected = "metric: no arm has skewness_correlation: it takes an emo optimizer with options: {moments: log}"
    assert problems(write(recipe)) == [expected]
    recipe["arms"]["emosens"]["options"] = {"moments": "log"}
    assert loading.recipe(write(recipe))


def test_text_has_no_accuracy(recipe, write):
    recipe["task"] = {"type": "causal-lm", "data": {"embedded": "sentences"}}
    assert problems(write(recipe)) == ["metric: no arm has accuracy: it takes a task of classes"]


@pytest.mark.parametrize("line", ["emosens", None, ["emosens"], 3])
def test_a_line_has_keys(recipe, write, line):
    recipe["rule"] = [line]
    (found,) = problems(write(recipe))
    assert found.startswith("rule.0: expected keys and values")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_to_compare_with_are_finite(recipe, write, value):
    recipe["rule"] = [{"arm": "adamw", "at_least": value}, {"arm": "adamw", "at_most": value}]
    recipe["published"] = {"source": "a paper", "values": {"accuracy": {"adamw": value}}}
    recipe["arms"]["emosens"]["loss_transform"] = {"offset": value}
    lines = problems(write(recipe))
    places = (
        "rule.0.at_least",
        "rule.1.at_most",
        "published.values.accuracy.adamw",
        "arms.emosens.loss_transform.offset",
    )
    assert sorted(lines) == sorted(f"{place}: expected a finite number (got {value})" for place in places)
