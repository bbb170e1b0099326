"""How methods stand over several comparisons: the final number of each as a multiple of the best one's.

A method is the baseline, or what a line with ``best_of`` sets it against: one arm, or a sweep, which enters with the
best of its learning rates in every comparison. Where these differ, it enters once more with the one learning rate that
is best over all comparisons, which is what somebody has who tunes nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from emo_hf.errors import RecipeError
from emo_hf.lab.analysis.comparison import Comparison
from emo_hf.lab.recipe.rules import METRICS, Best
from emo_hf.lab.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Standing:
    """A method over all comparisons.

    Attributes:
        name: of an arm, or of a sweep that is tuned for each comparison.
        sweep: that `name` is one learning rate of, the same in all comparisons.
        optimizer: its name.
        ratios: by the name of the comparison. 1.0 is the best method's, others are above it, inf where a run diverged.
    """

    name: str
    sweep: str | None
    optimizer: str
    ratios: dict[str, float]

    def share_within(self, factor: float) -> float:
        """Returns the share of comparisons in which the ratio is at most `factor`: a performance profile."""
        return fmean(ratio <= factor for ratio in self.ratios.values())


def standings(comparisons: Sequence[Comparison]) -> list[Standing]:
    """Returns the methods of comparisons that ask the same question, the baseline first.

    The ratio is that of a metric of which less is better, such as the loss, and of its reciprocal otherwise
    (performance profiles: Dolan and Moré, https://arxiv.org/abs/cs/0102001).

    Raises:
        RecipeError: their baselines, lines or kinds of metric differ, or there is nothing to compare.
    """
    questions = {(one.recipe.baseline, _opponents(one.recipe), METRICS[one.recipe.judged]) for one in comparisons}
    if len(questions) != 1:
        raise RecipeError(
            f"Expected comparisons with the same baseline and rule, got {len(questions)} different ones."
        )
    baseline, opponents, _ = questions.pop()
    if baseline is None or not opponents:
        raise RecipeError("There is nothing to compare: expected a baseline, and lines with best_of for it.")
    costs = [_costs(one) for one in comparisons]
    sweeps = [one.recipe.families for one in comparisons]
    tuned = [(name, None) for name in (baseline, *opponents)]
    fixed = [(_best_for_all(name, costs, sweeps), name) for name in opponents if all(name in of for of in sweeps)]
    table = {
        name: [min(of[arm] for arm in sweep.get(name, [name])) for of, sweep in zip(costs, sweeps, strict=True)]
        for name, _ in (*tuned, *fixed)
    }
    lowest = [min(column) for column in zip(*table.values(), strict=True)]
    fixed = [(name, sweep) for name, sweep in fixed if table[name] != table[sweep]]
    names = [one.recipe.name for one in comparisons]
    recipe = comparisons[0].recipe
    return [
        Standing(
            name,
            sweep,
            recipe.arms[recipe.families.get(name, [name])[0]].optimizer,
            {task: cost / least for task, cost, least in zip(names, table[name], lowest, strict=True)},
        )
        for name, sweep in (*tuned, *fixed)
    ]


def _opponents(recipe: Recipe) -> tuple[str, ...]:
    lines = [line for line in (*recipe.rule, *recipe.secondary) if isinstance(line, Best)]
    return tuple(line.best_of for line in lines if line.arm == recipe.baseline)


def _costs(one: Comparison) -> dict[str, float]:
    """Returns what less is better of, for every arm."""
    metric = one.recipe.judged
    means = {row.arm: fmean(one.values(row.arm, metric).values()) for row in one.rows}
    if METRICS[metric]:
        return {arm: 1 / mean if mean > 0 else math.inf for arm, mean in means.items()}
    return means


def _best_for_all(sweep: str, costs: list[dict[str, float]], sweeps: list[dict[str, list[str]]]) -> str:
    """Returns the arm whose costs have the least geometric mean, of those that every comparison has."""
    shared = set.intersection(*(set(of[sweep]) for of in sweeps))
    if not shared:
        raise RecipeError(f"The sweeps {sweep} have no learning rate that all comparisons tried.")
    return min(sorted(shared), key=lambda arm: math.fsum(math.log(of[arm]) for of in costs))
