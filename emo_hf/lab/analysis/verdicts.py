"""From the values of the runs to the verdict of a recipe's rule.

Each line of the rule gives one number per seed, from runs with the same seed (`emo_hf.lab.recipe.rules` says which).
Student's t makes an interval of their mean, two-sided, at the level 1 - 0.05 / k for the k lines of a rule
(Bonferroni), so that all k intervals hold together in 95 % of repetitions. Where the interval lies decides the line;
fewer than 3 seeds decide nothing. The claim is reproduced if every line is, not reproduced if one is not. What a
recipe asks beside its rule (`secondary`) is judged in the same way, by a k of its own, and has no part in the verdict.

A value that is missing from a finished run is the worst that its metric can be, so a run that diverged never helps its
own arm. Such a seed has no finite number and stays out of the interval. If it speaks against the line, the line cannot
be reproduced; if for it (the other arm diverged), the line cannot fail; beyond that, the rest decides. If all seeds
speak for one side, that side wins. Two arms that both diverged speak against the line but do not refute it. Where a
number is taken as it is (`at_least`, `at_most`), the worst of a metric can be what the bound asks for: there a run of
the line's arm that diverged speaks against the line, whichever way the metric goes.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from scipy import stats

from emo_hf.lab.recipe.rules import METRICS, Basin, Bounds, Contrast, Order, RuleLine
from emo_hf.lab.recipe.schema import Recipe

ERROR = 0.05  # of all lines of a rule together
FEWEST = 3  # seeds that can decide

Answer = Literal["reproduced", "not reproduced", "inconclusive"]
Values = Callable[[str, str], dict[int, float]]  # arm, metric -> seed -> value; `worst` where a finished run has none


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over the seeds and its interval; None where there are too few seeds for it."""

    n: int
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_values(cls, values: Sequence[float], level: float = 1 - ERROR) -> "Estimate":
        """Returns the t interval of the mean of finite `values`; equal values have one of width 0."""
        n = len(values)
        if n < 2:
            return cls(n, *values)
        if len(set(values)) == 1:  # and no rounding between the value and its mean
            return cls(n, values[0], 0.0, values[0], values[0])
        mean, sd = statistics.fmean(values), statistics.stdev(values)
        reach = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
        return cls(n, mean, sd, mean - reach, mean + reach)


@dataclass(frozen=True, slots=True)
class Judged:
    """A line of the rule and its answer. `seeds`: its number for each seed, not finite where a run diverged."""

    words: str
    answer: Answer
    estimate: Estimate
    level: float
    seeds: dict[int, float]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a claim, None without a rule; the lines it rests on; and those that are asked beside it."""

    answer: Answer | None
    lines: list[Judged]
    also: list[Judged]


def worst(metric: str) -> float:
    """Returns what a missing value of `metric` counts as."""
    return -math.inf if METRICS[metric] else math.inf


def judge(recipe: Recipe, size: str, values: Values) -> Verdict:
    """Returns the verdict of `recipe` at one of its sizes."""
    lines, also = (_judge_all(asked, recipe, size, values) for asked in (recipe.rule, recipe.secondary))
    answers = [line.answer for line in lines]
    if not answers:
        return Verdict(None, lines, also)
    if "not reproduced" in answers:
        return Verdict("not reproduced", lines, also)
    return Verdict("inconclusive" if "inconclusive" in answers else "reproduced", lines, also)


def _judge_all(lines: list[RuleLine], recipe: Recipe, size: str, values: Values) -> list[Judged]:
    return [_judge(line, recipe, size, values, 1 - ERROR / len(lines)) for line in lines]


def _judge(line: RuleLine, recipe: Recipe, size: str, values: Values, level: float) -> Judged:
    metric = line.metric or recipe.judged
    notes: list[str] = []
    if isinstance(line, Basin):
        arms = [*recipe.families[line.sweep], *recipe.families[line.against]]
    else:
        arms = list(line.arms())
    found = {arm: values(arm, metric) for arm in arms}
    paired = sorted(set.intersection(*map(set, found.values())))
    match line:
        case Basin():
            seeds = _basins(line, recipe, size, found, paired, METRICS[metric], notes)
        case Order():
            seeds = {seed: _tau([found[arm][seed] for arm in line.order], METRICS[metric]) for seed in paired}
        case Contrast():
            sign = -1 if oriented(line) and not METRICS[metric] else 1
            seeds = {seed: sign * _contrast(line, {arm: found[arm][seed] for arm in arms}) + 0.0 for seed in paired}
    estimate = Estimate.from_values([value for value in seeds.values() if math.isfinite(value)], level)
    answer, why = _answer(line, estimate, list(seeds.values()))
    notes += why
    if unpaired := sorted({*recipe.seeds, *(seed for of_arm in found.values() for seed in of_arm)} - set(paired)):
        notes.append(f"not all arms have a result with seed {_listed(unpaired)}")
    return Judged(in_words(line, metric), answer, estimate, level, seeds, notes)


def oriented(line: Bounds) -> bool:
    """Whether the difference is counted so that more is better, and not taken as it is."""
    return line.better_by is not None or line.worse_by_at_most is not None


def _contrast(line: Contrast, of: dict[str, float]) -> float:
    """Returns the number of one seed; nan where two diverged runs meet."""
    found = own = of[line.arm]
    if line.against:
        found -= of[line.against]
    if line.minus:
        found -= of[line.minus.arm] - of[line.minus.against]
    if math.isinf(own) and not math.isnan(found) and not oriented(line):
        return _bad(line)
    return found


def _bad(line: Bounds) -> float:
    """Returns the infinite number that speaks against a line."""
    return -math.inf if line.at_most is None else math.inf


def _tau(values: list[float], more_is_better: bool) -> float:
    """Returns Kendall's tau-b between the order of `values` as given, best first, and from best to worst."""
    ranks = stats.rankdata([-value if more_is_better else value for value in values])  # ranks bear infinite values
    return float(stats.kendalltau(range(len(values)), ranks).statistic) if len(set(ranks)) > 1 else math.nan


def _basins(
    line: Basin,
    recipe: Recipe,
    size: str,
    found: dict[str, dict[int, float]],
    paired: list[int],
    more_is_better: bool,
    notes: list[str],
) -> dict[int, float]:
    """Returns how many decades wider the basin of the sweep is than that of the other."""
    changes = recipe.sizes[size].arms
    rates = {arm: (changes.get(arm) or recipe.arms[arm]).lr for arm in found}
    sign = -1 if more_is_better else 1  # less is better from here on
    of = {arm: {seed: sign * value for seed, value in seeds.items()} for arm, seeds in found.items()}
    widths: dict[str, list[float]] = {}
    for sweep in (line.sweep, line.against):
        arms = sorted(recipe.families[sweep], key=rates.__getitem__)
        at_edge = 0
        widths[sweep] = []
        for seed in paired:
            limit = min(values[seed] for values in of.values()) + line.within
            first, last = _stretch([of[arm][seed] for arm in arms], limit)
            widths[sweep].append(math.log10(rates[arms[last]] / rates[arms[first]]) if first <= last else 0.0)
            at_edge += first <= last and (first == 0 or last == len(arms) - 1)
        if paired:
            notes.append(f"{sweep}: {statistics.fmean(widths[sweep]):.2f} decades on average")
        if at_edge:
            notes.append(f"{sweep}: at least so wide, as its grid ends first with {at_edge} of {len(paired)} seeds")
    return {seed: a - b for seed, a, b in zip(paired, widths[line.sweep], widths[line.against], strict=True)}


def _stretch(losses: list[float], limit: float) -> tuple[int, int]:
    """Returns first and last place of the stretch around the least of `losses` that is at most `limit`; (0, -1): none.

    Args:
        losses: in the order of the learning rates.
        limit: infinite or nan if all diverged.
    """
    first = last = losses.index(min(losses))
    if not (math.isfinite(losses[first]) and losses[first] <= limit):
        return 0, -1
    while first > 0 and losses[first - 1] <= limit:
        first -= 1
    while last + 1 < len(losses) and losses[last + 1] <= limit:
        last += 1
    return first, last


def _answer(line: Bounds, estimate: Estimate, values: list[float]) -> tuple[Answer, list[str]]:
    bad = _bad(line)
    helped, hurt, tied = values.count(-bad), values.count(bad), sum(map(math.isnan, values))
    notes = []
    if diverged := helped + hurt + tied:
        sides = [(hurt, "against the line"), (helped, "for it"), (tied, "with both sides diverged")]
        told = ", ".join(f"{count} {side}" for count, side in sides if count)
        notes.append(f"{diverged} of {len(values)} seeds not finite and outside the interval: {told}")
        if len(values) >= FEWEST and diverged in (helped, hurt) and diverged == len(values):
            return ("reproduced" if helped else "not reproduced"), notes
    if estimate.n < FEWEST:
        return "inconclusive", [*notes, f"too few runs: {estimate.n} seeds of at least {FEWEST}"]
    answer = _compare(line, estimate.low, estimate.high)
    if (answer == "reproduced" and hurt + tied) or (answer == "not reproduced" and helped):
        return "inconclusive", notes
    return answer, notes


def _compare(line: Bounds, low: float, high: float) -> Answer:
    if line.better_by is not None:
        holds, fails = low > line.better_by, high < line.better_by
    elif line.worse_by_at_most is not None:
        holds, fails = low > -line.worse_by_at_most, high < -line.worse_by_at_most
    elif line.at_least is not None:
        holds, fails = low >= line.at_least, high < line.at_least
    else:
        holds, fails = high <= line.at_most, low > line.at_most
    return "reproduced" if holds else "not reproduced" if fails else "inconclusive"


def in_words(line: RuleLine, metric: str) -> str:
    """Returns a line of a rule as a sentence without a full stop."""
    match line:
        case Basin():
            what = f"decades of learning rates with {metric} within {line.within:g} of the best: "
            return what + _bound(line, line.sweep, line.against)
        case Order():
            return f"Kendall's tau of {' > '.join(line.order)} with our order by {metric}: {_bound(line, '', None)}"
        case Contrast(minus=None):
            return f"{metric}: {_bound(line, line.arm, line.against)}"
    one, other = f"({line.arm} - {line.against})", f"({line.minus.arm} - {line.minus.against})"
    return f"differences in {metric}: {_bound(line, one, other)}"


def _bound(line: Bounds, one: str, other: str | None) -> str:
    if line.better_by is not None and other:
        text = f"{one} better than {other}" + (f" by more than {line.better_by:g}" if line.better_by else "")
    elif line.better_by is not None:
        text = f"{one} above {line.better_by:g}, counted so that more is better"
    elif line.worse_by_at_most is not None:
        text = f"{one} worse than {other or 0} by at most {line.worse_by_at_most:g}"
    else:
        bound = f"at least {line.at_least:g}" if line.at_least is not None else f"at most {line.at_most:g}"
        text = f"{one} - {other} {bound}" if other else f"{one} {bound}"
    return text.strip()


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))
