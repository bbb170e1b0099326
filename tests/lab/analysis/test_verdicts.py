"""Verdicts of made-up values: which number a line takes from each seed, its interval, and what follows."""

import math

import pytest
import yaml

from emo_hf.lab.analysis import verdicts
from emo_hf.lab.analysis.verdicts import Estimate
from emo_hf.lab.recipe.schema import Recipe

INF = math.inf
GOOD = [0.5, 0.6, 0.7]  # mean 0.6, sd 0.1; t of 2 degrees of freedom at 95 %: 4.30265


def judged(recipe: dict, rule: list[dict], values: dict, metric: str = "accuracy") -> verdicts.Verdict:
    """Judges `rule` over `values`: arm -> values of the seeds 0, 1, ..., where ... stands for no run."""
    recipe |= {"rule": rule, "claim": "a is better", "source": "somebody", "metric": metric, "seeds": [0, 1, 2]}
    one = {"optim": "emosens", "lr": 1e-3, "tuning": "untuned"}
    arms = {arm: one | ({"lr": float(arm[1:]), "family": arm[0]} if arm[1:] else {}) for arm in values}
    recipe |= {"arms": arms, "sizes": {"smoke": recipe["sizes"]["smoke"]}, "default_size": "smoke"}
    by_arm = {arm: {seed: v for seed, v in enumerate(of) if v is not ...} for arm, of in values.items()}
    return verdicts.judge(Recipe.model_validate(recipe), "smoke", lambda arm, _: by_arm[arm])


def only(*args, **kwargs) -> verdicts.JudgedLine:
    verdict = judged(*args, **kwargs)
    (line,) = verdict.lines
    assert verdict.answer == line.answer
    return line


def test_interval_of_a_known_sample():
    estimate = Estimate.from_values(GOOD)
    reach = 4.302653 * 0.1 / math.sqrt(3)
    assert (estimate.n, estimate.mean, estimate.sd) == (3, pytest.approx(0.6), pytest.approx(0.1))
    assert (estimate.low, estimate.high) == (pytest.approx(0.6 - reach), pytest.approx(0.6 + reach))
    assert Estimate.from_values([0.1] * 3) == Estimate(3, 0.1, 0.0, 0.1, 0.1)  # no rounding
    assert Estimate.from_values([0.1]) == Estimate(1, 0.1)
    assert Estimate.from_values([]) == Estimate(0)


@pytest.mark.parametrize(
    ("bound", "values", "answer"),
    [  # the interval of GOOD is [0.3516, 0.8484]
        ({"better_by": 0.3}, GOOD, "reproduced"),
        ({"better_by": 0.4}, GOOD, "inconclusive"),
        ({"better_by": 0.9}, GOOD, "not reproduced"),
        ({"better_by": 0}, [0.0] * 3, "inconclusive"),
        ({"worse_by_at_most": 0.1}, GOOD, "reproduced"),
        ({"worse_by_at_most": 0.1}, [-value for value in GOOD], "not reproduced"),
        ({"worse_by_at_most": 0.5}, [-value for value in GOOD], "inconclusive"),
        ({"worse_by_at_most": 0.9}, [-value for value in GOOD], "reproduced"),  # though it is worse
        ({"worse_by_at_most": 0.1}, [-0.2, 0.0, 0.2], "inconclusive"),
        ({"at_least": 0.3}, GOOD, "reproduced"),
        ({"at_least": 0.4}, GOOD, "inconclusive"),
        ({"at_least": 0.9}, GOOD, "not reproduced"),
        ({"at_most": 0.9}, GOOD, "reproduced"),
        ({"at_most": 0.8}, GOOD, "inconclusive"),
        ({"at_most": 0.3}, GOOD, "not reproduced"),
        ({"at_most": 0.1}, [0.1] * 3, "reproduced"),  # width 0, at the bound
        ({"better_by": 0}, [*GOOD[:2], ...], "inconclusive"),
    ],
)
def test_where_the_interval_lies_decides(recipe, bound, values, answer):
    line = only(recipe, [{"arm": "a", **bound}], {"a": values})
    assert line.answer == answer
    assert ("too few seeds: 2 of at least 3" in line.notes) == (values[2] is ...)


def test_less_is_better_for_losses(recipe):
    values = {"a": [1.0, 1.1, 1.3], "b": [2.0, 2.0, 2.2]}
    line = only(recipe, [{"arm": "a", "against": "b", "better_by": 0}], values, "eval_loss")
    assert list(line.seeds.values()) == pytest.approx([1.0, 0.9, 0.9])
    assert (line.answer, line.words) == ("reproduced", "eval_loss: a better than b")
    line = only(recipe, [{"arm": "a", "against": "b", "at_most": 0}], values, "eval_loss")  # as it is
    assert list(line.seeds.values()) == pytest.approx([-1.0, -0.9, -0.9])
    assert (line.answer, line.words) == ("reproduced", "eval_loss: a - b at most 0")


def test_pairs_are_of_one_seed(recipe):
    values = {"a": [0.9, ..., 0.5, 0.4], "b": [0.8, 0.1, 0.4, ...]}
    line = only(recipe, [{"arm": "a", "against": "b", "better_by": 0}], values)
    assert line.seeds == {0: pytest.approx(0.1), 2: pytest.approx(0.1)}
    assert line.notes == ["too few seeds: 2 of at least 3", "not every arm has a result with seed 1, 3"]


def test_difference_of_differences(recipe):
    rule = [{"arm": "a", "against": "b", "minus": {"arm": "c", "against": "d"}, "better_by": 0}]
    values = {"a": [0.9] * 3, "b": [1.0] * 3, "c": [0.5] * 3, "d": [1.0] * 3}
    line = only(recipe, rule, values)
    assert list(line.seeds.values()) == pytest.approx([0.4] * 3)
    assert (line.answer, line.words) == ("reproduced", "differences in accuracy: (a - b) better than (c - d)")


@pytest.mark.parametrize(
    ("a", "b", "bound", "answer"),
    [
        ([*GOOD, -INF], [0.1] * 4, {"better_by": 0}, "inconclusive"),  # three seeds alone would be enough
        ([0.1] * 4, [*GOOD, 0.5], {"better_by": 0}, "not reproduced"),
        ([0.1, 0.1, 0.1, -INF], [*GOOD, 0.5], {"better_by": 0}, "not reproduced"),
        ([-INF] * 3, GOOD, {"better_by": 0}, "not reproduced"),
        ([-INF] * 3, GOOD, {"worse_by_at_most": 0.1}, "not reproduced"),
        ([-INF] * 2, GOOD[:2], {"better_by": 0}, "inconclusive"),
        (GOOD, [-INF] * 3, {"better_by": 0}, "reproduced"),
        ([*GOOD, 0.1], [0.1, 0.1, 0.1, -INF], {"better_by": 0}, "reproduced"),
        ([0.1] * 4, [*GOOD, -INF], {"better_by": 0}, "inconclusive"),
        ([-INF] * 3, [-INF] * 3, {"better_by": 0}, "inconclusive"),
        ([*GOOD, -INF], [0.1, 0.1, 0.1, -INF], {"better_by": 0}, "inconclusive"),
        ([*GOOD, -INF], [0.1] * 4, {"at_least": 0.1}, "inconclusive"),
        ([0.1, 0.1, 0.1, -INF], [*GOOD, 0.5], {"at_most": 0}, "inconclusive"),
        ([*GOOD, 0.1], [0.1, 0.1, 0.1, -INF], {"at_least": 0.1}, "reproduced"),
    ],
)
def test_a_diverged_run_never_helps_its_own_arm(recipe, a, b, bound, answer):
    line = only(recipe, [{"arm": "a", "against": "b", **bound}], {"a": a, "b": b})
    assert line.answer == answer
    assert any("not finite" in note for note in line.notes) == (-INF in [*a, *b])


@pytest.mark.parametrize("against", [{}, {"against": "b"}])
@pytest.mark.parametrize("bound", ["at_least", "at_most"])
@pytest.mark.parametrize("metric", ["stop_share", "state_ratio"])  # more, and less, is better
def test_nor_where_its_worst_is_what_the_bound_asks_for(recipe, metric, bound, against):
    line, worst = {"arm": "a", "metric": metric, bound: 0.5, **against}, verdicts.worst(metric)
    assert only(recipe, [line], {"a": [worst] * 3, "b": GOOD}).answer == "not reproduced"
    held = [*([1.9] * 3 if bound == "at_least" else [-1.9] * 3), worst]
    assert only(recipe, [line], {"a": held, "b": [*GOOD, 0.5]}).answer == "inconclusive"


def test_level_is_corrected_for_the_lines_of_the_rule(recipe):
    rule = [{"arm": "a", "better_by": 0.2}, {"arm": "a", "better_by": 0.1}]
    verdict = judged(recipe, rule, {"a": GOOD})
    first, second = verdict.lines
    assert first.level == second.level == 0.975
    assert first.estimate.low == pytest.approx(0.6 - 6.205347 * 0.1 / math.sqrt(3))
    assert verdict.answer == "reproduced"


@pytest.mark.parametrize(
    ("bounds", "answer"),
    [([0.1, 0.1], "reproduced"), ([0.1, 0.5], "inconclusive"), ([0.1, 0.99], "not reproduced"), ([], None)],
)
def test_every_line_counts(recipe, bounds, answer):
    verdict = judged(recipe, [{"arm": "a", "better_by": bound} for bound in bounds], {"a": GOOD})
    assert verdict.answer == answer


def test_secondary_lines_do_not_affect_the_verdict(recipe):
    recipe["secondary"] = [{"arm": "a", "better_by": bound} for bound in (0.1, 0.9, 0.2)]
    verdict = judged(recipe, [{"arm": "a", "better_by": 0.1}], {"a": GOOD})
    assert (verdict.answer, verdict.lines[0].level) == ("reproduced", 0.95)
    assert [line.answer for line in verdict.secondary] == ["reproduced", "inconclusive", "inconclusive"]
    assert verdict.secondary[0].level == 1 - 0.05 / 3


@pytest.mark.parametrize(
    ("of_a", "of_b", "wider"),
    [
        ([9, 1.0, 1.05, 9], [9, 1.0, 9, 9], 1.0),
        ([1.0, 9, 1.0, 1.0], [9, 1.0, 9, 9], 0.0),  # what is beyond a gap does not count: its first best is alone
        ([2, 2, 2, 2], [9, 1.0, 1.1, 9], -1.0),  # never near the best
        ([INF, INF, 1.0, INF], [9, 1.0, 9, 9], 0.0),
        ([INF] * 4, [INF] * 4, 0.0),
        ([1.0] * 4, [INF] * 4, 3.0),
    ],
)
def test_basin(recipe, of_a, of_b, wider):
    rates = ("0.001", "0.01", "0.1", "1.0")
    values = {f"a{rate}": [float(value)] * 3 for rate, value in zip(rates, of_a, strict=True)}
    values |= {f"b{rate}": [float(value)] * 3 for rate, value in zip(rates, of_b, strict=True)}
    line = only(recipe, [{"sweep": "a", "against": "b", "within": 0.1, "better_by": 0.5}], values, "eval_loss")
    assert list(line.seeds.values()) == pytest.approx([wider] * 3)
    assert line.answer == ("reproduced" if wider > 0.5 else "not reproduced")
    at_edge = any("a: a lower bound" in note for note in line.notes)
    assert at_edge == (of_a[0] == 1.0)


@pytest.mark.parametrize(
    ("metric", "bound", "shares"),
    [
        ("eval_loss", {"worse_by_at_most": 0.1}, [-0.02, 0.0, 0.05]),
        ("eval_loss", {"at_most": 0.1}, [0.02, 0.0, -0.05]),
        ("accuracy", {"better_by": 0}, [-0.15, -1 / 6, -0.05]),
    ],
)
def test_an_arm_is_compared_to_the_best_rate_of_a_sweep(recipe, metric, bound, shares):
    """By loss the second rate is the best on average, though not with each seed; by accuracy the third."""
    values = {"a": [1.02, 1.0, 0.95], "s1": [3.0, 0.5, 3.0], "s2": [1.0, 1.0, 1.0], "s3": [1.2, 1.2, 1.0]}
    if metric == "accuracy":
        values["s1"] = [0.1, 0.1, 0.1]
    line = only(recipe, [{"arm": "a", "best_of": "s", **bound}], values, metric)
    assert list(line.seeds.values()) == pytest.approx(shares)
    edge = ", the end of its grid" if metric == "accuracy" else ""
    assert line.notes == [f"the best of s is s{3 if edge else 2}{edge}"]


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [(GOOD, [0.5, 0.6, INF], "inconclusive"), ([INF] * 3, GOOD, "not reproduced"), (GOOD, [INF] * 3, "reproduced")],
)
def test_or_to_one_arm_whose_diverged_runs_help_nobody(recipe, a, b, answer):
    line = only(recipe, [{"arm": "a", "best_of": "b", "worse_by_at_most": 0.1}], {"a": a, "b": b}, "eval_loss")
    assert line.answer == answer


def test_basin_takes_the_rates_of_the_size_and_any_direction(recipe):
    recipe["sizes"]["smoke"]["arms"] = {"a0.1": {"lr": 10.0, "tuning": "untuned"}}
    values = {"a0.1": [0.9] * 3, "a1.0": [0.95] * 3, "b0.1": [0.9] * 3, "b1.0": [0.1] * 3}
    line = only(recipe, [{"sweep": "a", "against": "b", "within": 0.1, "better_by": 0}], values)
    assert list(line.seeds.values()) == pytest.approx([1.0] * 3)


@pytest.mark.parametrize(
    ("a", "b", "c", "tau"),
    [(3, 2, 1, 1.0), (1, 2, 3, -1.0), (3, 1, 2, 1 / 3), (3, 2, -INF, 1.0), (3, -INF, -INF, math.sqrt(2 / 3))],
)
def test_order(recipe, a, b, c, tau):
    values = {"a": [float(a)] * 3, "b": [float(b)] * 3, "c": [float(c)] * 3}
    line = only(recipe, [{"order": ["a", "b", "c"], "at_least": 0.5}], values)
    assert list(line.seeds.values()) == pytest.approx([tau] * 3)
    assert line.answer == ("reproduced" if tau > 0.5 else "not reproduced")
    assert line.words == "Kendall's tau between a > b > c and the order by accuracy: at least 0.5"


def test_order_of_equals_says_nothing(recipe):
    values = dict.fromkeys("abc", [1.0] * 3)
    line = only(recipe, [{"order": ["a", "b", "c"], "at_least": 0.5}], values)
    assert line.answer == "inconclusive"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{arm: a, against: b, better_by: 0.1}", "accuracy: a better than b by more than 0.1"),
        ("{arm: a, better_by: 0.1}", "accuracy: a above 0.1, counted so that more is better"),
        ("{arm: a, against: b, worse_by_at_most: 0.02}", "accuracy: a worse than b by at most 0.02"),
        ("{arm: a, metric: stop_regret, at_most: 0.05}", "stop_regret: a at most 0.05"),
    ],
)
def test_words(recipe, line, words):
    verdict = judged(recipe, [yaml.safe_load(line)], {"a": GOOD, "b": GOOD})
    assert verdict.lines[0].words == words
