"""The rule of a recipe: the differences that decide its claim, and how large they must be. It is fixed before the run.

    rule:
    - {arm: emosens, against: adamw, better_by: 0}                      sens is better
    - {arm: emocats, against: emosens, worse_by_at_most: 0.02}          cats is as good
    - {arm: sens-noisy, against: sens, minus: {arm: adamw-noisy, against: adamw}, better_by: 0}     loses less
    - {arm: emosens, metric: stop_regret, at_most: 0.05}                a number by itself
    - {arm: emofree, best_of: adamw, worse_by_at_most: 0.01}            at most 1 % worse than a sweep's best rate
    - {sweep: emosens, against: adamw, within: 0.1, better_by: 0}       good over more decades of the learning rate
    - {order: [navi, fact, neco], at_least: 0.5}                        the published order, by Kendall's tau

`emo_hf.lab.analysis.verdicts` judges each line by the interval of its mean over the seeds.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from emo_hf.lab.recipe.fields import Finite, Name, NonNegative, Positive, StrictModel, one_of, renamed

# The numbers that a rule can be about, and whether more is better.
METRICS: dict[str, bool] = {
    "accuracy": True,
    "perplexity": False,
    "eval_loss": False,
    "train_loss": False,
    "best_eval_loss": False,  # the smallest of all evaluations
    "overfit": False,  # last minus smallest evaluation loss
    "gap": False,  # evaluation minus training loss, when the training loss first falls below `equal_train_loss`
    "stop_regret": False,  # evaluation loss at the stop signal minus the smallest
    "stop_share": True,  # share of the run before the stop signal, 1 if it never came
    "step_size_median": True,
    "found_lr": True,  # the step size that EmoFree's ramp found
    "state_ratio": False,  # bytes of optimizer state per byte of trained parameter
    "state_share": False,  # bytes of optimizer state per byte of all parameters
    "peak_memory": False,  # bytes of the process at their highest
    "skewness_correlation": True,  # Spearman, of the scalar and the skewness of the gradient
    "kurtosis_correlation": True,
    "earlier_accuracy": True,  # on what was learned before a handover
}
if TYPE_CHECKING:
    Metric = str
else:
    Metric = Literal[tuple(METRICS)]


def _two(name: str) -> Any:
    """Returns a model validator: the field `name` differs from ``against``."""

    def check(line: Any) -> Any:
        if getattr(line, name) == line.against:
            raise ValueError(f"{name} and against are both {line.against}, which differs from itself by nothing")
        return line

    return model_validator(mode="after")(check)


class Pair(StrictModel):
    """The difference between two arms.

    Attributes:
        arm: the first one.
        against: the one that is subtracted.
    """

    arm: Name
    against: Name

    _arms = _two("arm")


class Bounds(StrictModel):
    """What a line's number must reach. A line gives exactly one of these.

    Attributes:
        better_by: the difference is above this; it is counted so that more is better.
        worse_by_at_most: the same difference is above minus this.
        at_least: the plain number or difference is at least this.
        at_most: the plain number or difference is at most this.
    """

    better_by: NonNegative | None = None
    worse_by_at_most: Positive | None = None
    at_least: Finite | None = None
    at_most: Finite | None = None

    _bound = one_of("better_by", "worse_by_at_most", "at_least", "at_most")


class Contrast(Bounds):
    """One arm, the difference of two, or the difference of two differences.

    Attributes:
        arm: the arm that the line is about.
        against: the arm that is subtracted.
        minus: a second difference that is subtracted from the first.
        metric: of this line; without it the recipe's.
    """

    _former = renamed(minus="beyond")
    arm: Name
    against: Name | None = None
    minus: Pair | None = None
    metric: Metric | None = None

    _arms = _two("arm")

    def arms(self) -> Iterator[str]:
        yield from filter(None, (self.arm, self.against))
        if self.minus:
            yield from (self.minus.arm, self.minus.against)


class Best(Bounds):
    """The difference between an arm and the best arm of a sweep, as a share of the latter's value: 0.01 is 1 %.

    The best arm is the one with the best mean over the seeds. So the sweep has seen the data that decide.

    Attributes:
        arm: the arm that the line is about.
        best_of: a sweep, or one arm.
        metric: of this line; without it the recipe's.
    """

    arm: Name
    best_of: Name
    metric: Metric | None = None


class Basin(Bounds):
    """The decades of learning rates over which a sweep stays near the best of two sweeps.

    Attributes:
        sweep: the sweep that the line is about.
        against: the sweep that is subtracted.
        metric: of this line; without it the recipe's.
        within: how far the metric may be from the best value that either sweep reaches with that seed.
    """

    sweep: Name
    against: Name
    within: Positive
    metric: Metric | None = None

    _sweeps = _two("sweep")


class Order(Bounds):
    """Kendall's tau between the published order, best first, and ours.

    Attributes:
        order: the arms in the published order.
        metric: of this line; without it the recipe's.
    """

    order: Annotated[list[Name], Field(min_length=3)]
    metric: Metric | None = None

    def arms(self) -> Iterator[str]:
        yield from self.order


def _kind(line: Any) -> str:
    keys = line if isinstance(line, dict) else getattr(line, "model_fields_set", ())  # none if it is no line
    return next((f"[{name}]" for name in ("sweep", "order", "best_of") if name in keys), "[arm]")


RuleLine = Annotated[
    Annotated[Contrast, Tag("[arm]")]
    | Annotated[Best, Tag("[best_of]")]
    | Annotated[Basin, Tag("[sweep]")]
    | Annotated[Order, Tag("[order]")],
    Discriminator(_kind),
]


def arms_of(line: RuleLine, families: Mapping[str, list[str]]) -> list[str]:
    """Returns the arms that `line` compares; `families` holds those of each sweep."""
    match line:
        case Best():
            return [line.arm, *families.get(line.best_of, [line.best_of])]
        case Basin():
            return [arm for sweep in (line.sweep, line.against) for arm in families.get(sweep, [])]
        case _:
            return list(line.arms())
