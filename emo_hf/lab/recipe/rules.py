"""The rule of a recipe: which differences decide its claim, and from when on. Fixed before the run, as it is data.

    rule:
    - {arm: emosens, against: adamw, better_by: 0}                      sens is better
    - {arm: emocats, against: emosens, worse_by_at_most: 0.02}          cats is as good
    - {arm: sens-noisy, against: sens, minus: {arm: adamw-noisy, against: adamw}, better_by: 0}     loses less
    - {arm: emosens, metric: stop_regret, at_most: 0.05}                a number by itself
    - {sweep: emosens, against: adamw, within: 0.1, better_by: 0}       good over more decades of the learning rate
    - {order: [navi, fact, neco], at_least: 0.5}                        the published order, by Kendall's tau

Each line is judged by the interval of its mean over the seeds (`emo_hf.lab.analysis.verdicts`).
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from emo_hf.lab.recipe.fields import Finite, Name, NonNegative, Positive, StrictModel, one_of, renamed

# the numbers of a summary that a rule can be about, and whether more of it is better
METRICS: dict[str, bool] = {
    "accuracy": True,
    "perplexity": False,
    "eval_loss": False,
    "train_loss": False,
    "best_eval_loss": False,  # the smallest of all evaluations
    "overfit": False,  # last minus smallest evaluation loss
    "gap": False,  # evaluation minus training loss, when the training loss first fell below `equal_train_loss`
    "stop_regret": False,  # evaluation loss at the stop signal minus the smallest
    "stop_share": True,  # share of the run after which the stop signal came up, 1 if it never did
    "step_size_median": True,
    "state_ratio": False,  # bytes of optimizer state per byte of trained parameter
    "state_share": False,  # bytes of optimizer state per byte of all parameters
    "peak_memory": False,  # bytes of the process at their highest
    "skewness_correlation": True,  # Spearman, of the scalar and the skewness of the gradient
    "kurtosis_correlation": True,
    "earlier_accuracy": True,  # on what was learned before a handover
}
Metric = Literal[tuple(METRICS)]


def _two(name: str) -> Any:
    """Returns a model validator: the field `name` is another than ``against``."""

    def check(line: Any) -> Any:
        if getattr(line, name) == line.against:
            raise ValueError(f"{name} and against are both {line.against}, which differs from itself by nothing")
        return line

    return model_validator(mode="after")(check)


class Pair(StrictModel):
    """The difference between two arms."""

    arm: Name
    against: Name

    _arms = _two("arm")


class Bounds(StrictModel):
    """From when on a line of the rule holds; exactly one of these.

    Attributes:
        better_by: the difference, counted so that more is better, is above this.
        worse_by_at_most: the same is above minus this.
        at_least: the number or difference itself, as it is, is at least this.
        at_most: it is at most this.
    """

    better_by: NonNegative | None = None
    worse_by_at_most: Positive | None = None
    at_least: Finite | None = None
    at_most: Finite | None = None

    _bound = one_of("better_by", "worse_by_at_most", "at_least", "at_most")


class Contrast(Bounds):
    """One arm, the difference of two, or the difference of two differences."""

    _former = renamed(minus="beyond")
    arm: Name
    against: Name | None = None
    minus: Pair | None = None
    metric: Metric | None = None  # None: the recipe's

    _arms = _two("arm")

    def arms(self) -> Iterator[str]:
        yield from filter(None, (self.arm, self.against))
        if self.minus:
            yield from (self.minus.arm, self.minus.against)


class Basin(Bounds):
    """The decades of learning rates over which a sweep of arms stays near the best of all sweeps.

    Attributes:
        within: how far the metric may be from the best that either sweep reaches with that seed.
    """

    sweep: Name
    against: Name
    within: Positive
    metric: Metric | None = None

    _sweeps = _two("sweep")


class Order(Bounds):
    """Kendall's tau between the published order, best first, and ours."""

    order: Annotated[list[Name], Field(min_length=3)]
    metric: Metric | None = None

    def arms(self) -> Iterator[str]:
        yield from self.order


def _kind(line: Any) -> str:
    keys = line if isinstance(line, dict) else getattr(line, "model_fields_set", ())  # or it is no line at all
    return next((f"[{name}]" for name in ("sweep", "order") if name in keys), "[arm]")


RuleLine = Annotated[
    Annotated[Contrast, Tag("[arm]")] | Annotated[Basin, Tag("[sweep]")] | Annotated[Order, Tag("[order]")],
    Discriminator(_kind),
]
