"""Whether the parts of a recipe fit together. Each part is valid by itself already.

A check yields one line per problem. `emo_hf.lab.recipe.loading` puts the file's name before them.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from emo_hf.errors import did_you_mean
from emo_hf.lab.recipe.arms import Arm
from emo_hf.lab.recipe.baselines import ALIASES
from emo_hf.lab.recipe.rules import Basin, Contrast, RuleLine, arms_of

if TYPE_CHECKING:
    from emo_hf.lab.recipe.schema import Recipe

Need = tuple[str, Callable[["Recipe", Arm], bool]]  # in words, and as a test of an arm

EMOTION: Need = ("an emo optimizer, or driven_by", lambda recipe, arm: arm.has_emotion)
MOMENTS: Need = ("an emo optimizer with options: {moments: log}", lambda recipe, arm: arm.logs_moments)
# metrics that not every task and arm has
NEEDS: dict[str, Need] = {
    "accuracy": ("a task of classes", lambda recipe, arm: recipe.task.metric == "accuracy"),
    "perplexity": ("the task causal-lm", lambda recipe, arm: recipe.task.metric == "perplexity"),
    "gap": ("equal_train_loss", lambda recipe, arm: recipe.equal_train_loss is not None),
    "stop_regret": EMOTION,
    "stop_share": EMOTION,
    "skewness_correlation": MOMENTS,
    "kurtosis_correlation": MOMENTS,
    "earlier_accuracy": (
        "a handover with data: halves",
        lambda recipe, arm: arm.handover is not None and arm.handover.data == "halves",
    ),
}

IDLE_ON_FUNCTIONS = (
    *("max_grad_norm", "withhold_loss", "loss_transform", "driven_by", "replay", "weights", "condition", "handover"),
)


def problems(recipe: "Recipe") -> list[str]:
    """Returns everything that does not fit."""
    wrong = [problem for check in (_sizes, _names, _conditions, _replays, _metrics) for problem in check(recipe)]
    if len(set(recipe.seeds)) != len(recipe.seeds):
        wrong.append(f"seeds: got {recipe.seeds}, expected every seed once")
    if recipe.rule and not (recipe.claim and recipe.source):
        wrong.append("rule: decides a claim: give claim and source")
    if not recipe.processes:
        wrong += of_one_process(recipe.arms)
    if recipe.task.type == "causal-lm":
        halved = [name for name, arm in recipe.arms.items() if arm.handover and arm.handover.data == "halves"]
        wrong += [f"arms.{name}.handover.data: halves need classes, and running text has none" for name in halved]
    return wrong


def of_one_process(arms: dict[str, Arm]) -> list[str]:
    """Returns what does not fit in `arms` if each run is one process."""
    averaging = [name for name, arm in arms.items() if arm.local_sgd_steps]
    return [f"arms.{name}.local_sgd_steps: one process has nothing to average: give processes" for name in averaging]


def of_function(arms: dict[str, Arm]) -> list[str]:
    """Returns what does not fit in `arms` that descend a function: there are no batches and no `EmoTrainer`."""
    wrong = of_one_process(arms)
    for name, arm in arms.items():
        idle = [field for field in IDLE_ON_FUNCTIONS if getattr(arm, field) != Arm.model_fields[field].default]
        wrong += [f"arms.{name}.{field}: has no effect on a function: leave it out" for field in idle]
        if arm.optim in ALIASES:
            wrong.append(f"arms.{name}.optim: {arm.optim} is of another package: give one of emo_hf or transformers")
    return wrong


def _sizes(recipe: "Recipe") -> Iterator[str]:
    if recipe.default_size not in recipe.sizes:
        yield f"default_size: {recipe.default_size!r} is not among sizes: {', '.join(recipe.sizes)}"
    for size, content in recipe.sizes.items():
        for arm in content.arms.keys() - recipe.arms.keys():
            yield f"sizes.{size}.arms.{arm}: no such arm.{did_you_mean(arm, recipe.arms)}"
        if content.batch_size % (recipe.processes or 1):
            yield f"sizes.{size}.batch_size: not a multiple of the {recipe.processes} processes"
        if content.model.sees_images != (recipe.task.type == "image-classification"):
            yield f"sizes.{size}.model: a vision or vit model and image-classification go together"


def _names(recipe: "Recipe") -> Iterator[str]:
    """Names of arms and sweeps that do not exist."""
    named = [("baseline", recipe.baseline)] if recipe.baseline else []
    for where, line in _lines(recipe):
        if isinstance(line, Basin):
            for sweep in {line.sweep, line.against} - recipe.families.keys():
                yield f"{where}: no such sweep: {sweep}.{did_you_mean(sweep, recipe.families)}"
        else:
            named += [(where, arm) for arm in arms_of(line, recipe.families)]
            if isinstance(line, Contrast) and line.minus and not line.against:
                yield f"{where}: minus subtracts a second difference: give against"
    for values in (recipe.published.values if recipe.published else {}).values():
        named += [("published", arm) for arm in values]
    named += [(f"arms.{name}.replay.of", arm.replay.of) for name, arm in recipe.arms.items() if arm.replay]
    for where, arm in named:
        if arm not in recipe.arms:
            yield f"{where}: no such arm: {arm}.{did_you_mean(arm, recipe.arms)}"


def _conditions(recipe: "Recipe") -> Iterator[str]:
    """Batches to corrupt that come after the end of the training. The size smoke may be too short for them."""
    for name, arm in recipe.arms.items():
        every = arm.condition.corrupted_every if arm.condition else None
        for size, content in recipe.sizes.items():
            if every and size != "smoke" and content.steps and content.steps <= every:
                where = f"arms.{name}.condition.corrupted_every"
                yield f"{where}: got {every}, expected less than the {content.steps} steps of sizes.{size}"


def _replays(recipe: "Recipe") -> Iterator[str]:
    """Arms that replay an arm without step sizes of its own."""
    for name, replay in ((name, arm.replay) for name, arm in recipe.arms.items() if arm.replay):
        source = recipe.arms.get(replay.of)
        if source and source.replay:
            yield f"arms.{name}.replay.of: {replay.of} is itself a replay: give an arm with sizes of its own"
        elif source and not (source.has_pulse or source.driven_by):
            yield f"arms.{name}.replay.of: {replay.of} has no pulse: give an emo optimizer from 3.7 on"


def _metrics(recipe: "Recipe") -> Iterator[str]:
    """Metrics that no arm of the recipe has, or not every arm of a line."""
    lacking = _without(recipe, recipe.judged, recipe.arms)
    no_arm_has_it = len(lacking) == len(recipe.arms)
    if no_arm_has_it:
        yield f"metric: no arm has {recipe.judged}: it takes {NEEDS[recipe.judged][0]}"
    for where, line in _lines(recipe):
        if no_arm_has_it and line.metric is None:
            continue
        metric = line.metric or recipe.judged
        arms = [arm for arm in arms_of(line, recipe.families) if arm in recipe.arms]
        if lacking := _without(recipe, metric, arms):
            yield f"{where}: no {metric} of {', '.join(lacking)}: it takes {NEEDS[metric][0]}"


def _lines(recipe: "Recipe") -> Iterator[tuple[str, RuleLine]]:
    """All lines and their places."""
    for where, lines in (("rule", recipe.rule), ("secondary", recipe.secondary)):
        yield from ((f"{where}.{number}", line) for number, line in enumerate(lines))


def _without(recipe: "Recipe", metric: str, arms: Iterable[str]) -> list[str]:
    """Those of `arms` that cannot have `metric`, each once."""
    if metric not in NEEDS:
        return []
    _, can_have = NEEDS[metric]
    return [arm for arm in dict.fromkeys(arms) if not can_have(recipe, recipe.arms[arm])]
