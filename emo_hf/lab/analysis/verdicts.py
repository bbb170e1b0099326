"""Judges the rule of a recipe by the values of its runs.

Each line of the rule gives one number per seed, from runs with the same seed (`emo_hf.lab.recipe.rules` says which).
Student's t gives a two-sided interval of their mean. Its level is 1 - 0.05 / k for the k lines of a rule (Bonferroni),
so that all k intervals hold together in 95 % of repetitions. The interval decides the line; fewer than 3 seeds decide
nothing. The claim is reproduced if every line is, and not reproduced if one line is not. The `secondary` lines of a
recipe are judged in the same way, with a k of their own, and do not affect the verdict.

A finished run that lacks a value counts as the worst that the metric can be, so a diverged run never helps its own
arm. Its seed has no finite number and stays outside the interval. If it speaks against the line, the line cannot be
reproduced. If it speaks for the line (the other arm diverged), the line cannot fail. The other seeds decide the rest;
if all seeds speak for one side, that side wins. If both arms diverged, the line cannot be reproduced, but that alone
does not refute it. A bound on the number itself (`at_least`, `at_most`) may ask for what is the worst of a metric;
there a diverged run of the line's own arm speaks against the line, whichever way the metric goes.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from scipy import stats

from emo_hf.lab.recipe.rules import METRICS, Basin, Best, Bounds, Contrast, Order, RuleLine, arms_of
from emo_hf.lab.recipe.schema import Recipe, SizeName

ERROR = 0.05  # of all lines of a rule together
FEWEST = 3  # seeds that can decide a line

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
class JudgedLine:
    """A line of the rule and its answer. `seeds`: its number for each seed, not finite where a run diverged."""

    words: str
    answer: Answer
    estimate: Estimate
    level: float
    seeds: dict[int, float]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a claim, None without a rule; the lines of the rule; and the secondary lines."""

    answer: Answer | None
    lines: list[JudgedLine]
    secondary: list[JudgedLine]


class _Found(NamedTuple):
    """What the runs of a line's arms came to.

    Attributes:
        by_arm: arm -> seed -> value.
        paired: the seeds that all of these arms have.
        more_is_better: of the metric.
        rates: the learning rate of each arm of the recipe, at the size that is judged.
        families: the arms of each sweep.
    """

    by_arm: dict[str, dict[int, float]]
    paired: list[int]
    more_is_better: bool
    rates: dict[str, float]
    families: dict[str, list[str]]


def worst(metric: str) -> float:
    """Returns what a missing value of `metric` counts as."""
    return -math.inf if METRICS[metric] else math.inf


def judge(recipe: Recipe, size: SizeName, values: Values) -> Verdict:
    """Returns the verdict of `recipe` at one of its sizes."""
    lines, secondary = (_judge_all(rule, recipe, size, values) for rule in (recipe.rule, recipe.secondary))
    answers = [line.answer for line in lines]
    if not answers:
        return Verdict(None, lines, secondary)
    if "not reproduced" in answers:
        return Verdict("not reproduced", lines, secondary)
    return Verdict("inconclusive" if "inconclusive" in answers else "reproduced", lines, secondary)


def _judge_all(lines: list[RuleLine], recipe: Recipe, size: SizeName, values: Values) -> list[JudgedLine]:
    return [_judge(line, recipe, size, values, 1 - ERROR / len(lines)) for line in lines]


def _judge(line: RuleLine, recipe: Recipe, size: SizeName, values: Values, level: float) -> JudgedLine:
    metric = line.metric or recipe.judged
    notes: list[str] = []
    arms = arms_of(line, recipe.families)
    by_arm = {arm: values(arm, metric) for arm in arms}
    paired = sorted(set.intersection(*map(set, by_arm.values())))
    rates = {name: (recipe.sizes[size].arms.get(name) or arm).lr for name, arm in recipe.arms.items()}
    found = _Found(by_arm, paired, METRICS[metric], rates, recipe.families)
    match line:
        case Basin():
            seeds = _basins(line, found, notes)
        case Order():
            seeds = {seed: _tau([by_arm[arm][seed] for arm in line.order], METRICS[metric]) for seed in paired}
        case Best():
            seeds = _to_the_best(line, found, notes)
        case Contrast():
            sign = -1 if oriented(line) and not METRICS[metric] else 1
            seeds = {seed: sign * _contrast(line, {arm: by_arm[arm][seed] for arm in arms}) + 0.0 for seed in paired}
    estimate = Estimate.from_values([value for value in seeds.values() if math.isfinite(value)], level)
    answer, reasons = _answer(line, estimate, list(seeds.values()))
    notes += reasons
    if unpaired := sorted({*recipe.seeds, *(seed for of_arm in by_arm.values() for seed in of_arm)} - set(paired)):
        notes.append(f"not every arm has a result with seed {', '.join(map(str, unpaired))}")
    return JudgedLine(in_words(line, metric), answer, estimate, level, seeds, notes)


def oriented(line: Bounds) -> bool:
    """Whether the sign of the difference is chosen so that more is better."""
    return line.better_by is not None or line.worse_by_at_most is not None


def _contrast(line: Contrast, values: dict[str, float]) -> float:
    """Returns the number of one seed, from the values of the arms; nan where two diverged runs meet."""
    number = own = values[line.arm]
    if line.against:
        number -= values[line.against]
    if line.minus:
        number -= values[line.minus.arm] - values[line.minus.against]
    if math.isinf(own) and not math.isnan(number) and not oriented(line):
        return _bad(line)
    return number


def _bad(line: Bounds) -> float:
    """Returns the infinite number that speaks against a line."""
    return -math.inf if line.at_most is None else math.inf


def _to_the_best(line: Best, found: _Found, notes: list[str]) -> dict[int, float]:
    """Returns for each seed the difference to the best arm of the sweep, as a share of that arm's value."""
    sweep = sorted(found.families.get(line.best_of, [line.best_of]), key=found.rates.__getitem__)
    sign, values = 1 if found.more_is_better else -1, found.by_arm
    best = max(sweep, key=lambda arm: math.fsum(sign * values[arm][seed] for seed in found.paired))
    if len(sweep) > 1:
        edge = ", the end of its grid" if best in (sweep[0], sweep[-1]) else ""
        notes.append(f"the best of {line.best_of} is {best}{edge}")
    sign = sign if oriented(line) else 1
    return {seed: sign * _share(values[line.arm][seed], values[best][seed]) for seed in found.paired}


def _share(value: float, of: float) -> float:
    """Returns ``(value - of) / abs(of)``; infinite where only one of them is finite, nan where both diverged."""
    return (value - of) / abs(of) if of and math.isfinite(of) else value - of


def _tau(values: list[float], more_is_better: bool) -> float:
    """Returns Kendall's tau-b between the order of `values` as given, best first, and from best to worst."""
    ranks = stats.rankdata([-value if more_is_better else value for value in values])  # ranks bear infinite values
    return float(stats.kendalltau(range(len(values)), ranks).statistic) if len(set(ranks)) > 1 else math.nan


def _basins(line: Basin, found: _Found, notes: list[str]) -> dict[int, float]:
    """Returns for each seed how many decades wider the basin of the sweep is than that of the other."""
    rates, paired = found.rates, found.paired
    sign = -1 if found.more_is_better else 1  # less is better from here on
    losses = {arm: {seed: sign * value for seed, value in seeds.items()} for arm, seeds in found.by_arm.items()}
    widths: dict[str, list[float]] = {}
    for sweep in (line.sweep, line.against):
        arms = sorted(found.families[sweep], key=rates.__getitem__)
        at_edge = 0
        widths[sweep] = []
        for seed in paired:
            limit = min(values[seed] for values in losses.values()) + line.within
            first, last = _stretch([losses[arm][seed] for arm in arms], limit)
            widths[sweep].append(math.log10(rates[arms[last]] / rates[arms[first]]) if first <= last else 0.0)
            at_edge += first <= last and (first == 0 or last == len(arms) - 1)
        if paired:
            notes.append(f"{sweep}: {statistics.fmean(widths[sweep]):.2f} decades on average")
        if at_edge:
            notes.append(f"{sweep}: a lower bound with {at_edge} of {len(paired)} seeds, where the grid ends first")
    return {seed: a - b for seed, a, b in zip(paired, widths[line.sweep], widths[line.against], strict=True)}


def _stretch(losses: list[float], limit: float) -> tuple[int, int]:
    """Returns the first and last index of the stretch around the least of `losses` that stays at most `limit`.

    Without such a stretch, (0, -1).

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
    """Returns the answer to a line and the reasons that its interval does not show; `values`: one per seed."""
    bad = _bad(line)
    helped, hurt, tied = values.count(-bad), values.count(bad), sum(map(math.isnan, values))
    notes = []
    if diverged := helped + hurt + tied:
        sides = [(hurt, "against the line"), (helped, "for it"), (tied, "with both sides diverged")]
        counts = ", ".join(f"{count} {side}" for count, side in sides if count)
        notes.append(f"{diverged} of {len(values)} seeds not finite and outside the interval: {counts}")
        if len(values) >= FEWEST and diverged in (helped, hurt) and diverged == len(values):
            return ("reproduced" if helped else "not reproduced"), notes
    if estimate.n < FEWEST or estimate.low is None or estimate.high is None:
        return "inconclusive", [*notes, f"too few seeds: {estimate.n} of at least {FEWEST}"]
    answer = _compare(line, estimate.low, estimate.high)
    if (answer == "reproduced" and hurt + tied) or (answer == "not reproduced" and helped):
        return "inconclusive", notes
    return answer, notes


def _compare(line: Bounds, low: float, high: float) -> Answer:
    if line.at_most is not None:
        holds, fails = high <= line.at_most, low > line.at_most
    elif line.at_least is not None:
        holds, fails = low >= line.at_least, high < line.at_least
    elif line.worse_by_at_most is not None:
        holds, fails = low > -line.worse_by_at_most, high < -line.worse_by_at_most
    else:
        bound = line.better_by or 0.0
        holds, fails = low > bound, high < bound
    return "reproduced" if holds else "not reproduced" if fails else "inconclusive"


def in_words(line: RuleLine, metric: str) -> str:
    """Returns a line of a rule as a sentence without a full stop."""
    match line:
        case Basin():
            bound = _bound(line, line.sweep, line.against)
            return f"decades of learning rates with {metric} within {line.within:g} of the best: {bound}"
        case Order():
            order = " > ".join(line.order)
            return f"Kendall's tau between {order} and the order by {metric}: {_bound(line, '', None)}"
        case Best():
            return f"share of {metric}: {_bound(line, line.arm, f'the best of {line.best_of}')}"
        case Contrast():
            if line.minus is None:
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
