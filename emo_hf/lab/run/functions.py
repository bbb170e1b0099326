"""Test functions of two variables, and the paths of optimizers down them.

    rosenbrock    (1 - x)^2 + 100 (y - x^2)^2                             a bent valley, minimum 0 at (1, 1)
    rastrigin     20 + x^2 - 10 cos(2 pi x) + y^2 - 10 cos(2 pi y)        a grid of holes, the deepest at (0, 0)

Starts, clipping and 500 steps are those of the authors' pictures (muooon/EmoNavi@475e2c4, muooon/EmoSens@8f48f87^),
which follow examples/visualize_optimizers.py of kozistr/pytorch_optimizer. Here, though, the optimizers get the loss,
nothing decays unless an arm says so, and everything is float64. Trainer builds the optimizers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import Trainer, TrainingArguments, get_scheduler

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.arms import Arm
from emo_hf.lab.recipe.fields import Count, Name, NonNegative, Positive, StrictModel, Text
from emo_hf.lab.recipe.schema import FunctionRecipe, chosen_arms, chosen_size
from emo_hf.lab.run.arguments import optim_args
from emo_hf.lab.run.worker import write_json
from emo_hf.optimizer import EmoOptimizer

Point = tuple[float, float]

SETTLED = 50  # the result is the mean distance of so many last points, as a single end point can be luck
MAX_GRAD_NORM = 1.0  # as in Trainer


@dataclass(frozen=True, slots=True)
class Function:
    """A function of two variables with its start, its minimum, and the region and contours of its picture."""

    value: Callable[[Tensor, Tensor], Tensor]
    start: Point
    minimum: Point
    x: tuple[float, float]
    y: tuple[float, float]
    levels: tuple[float, ...]


def rosenbrock(x: Tensor, y: Tensor) -> Tensor:
    """(1 - x)^2 + 100 (y - x^2)^2, elementwise."""
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def rastrigin(x: Tensor, y: Tensor) -> Tensor:
    """20 + x^2 - 10 cos(2 pi x) + y^2 - 10 cos(2 pi y), elementwise."""
    return 20 + x**2 - 10 * torch.cos(2 * math.pi * x) + y**2 - 10 * torch.cos(2 * math.pi * y)


FUNCTIONS = {
    "rosenbrock": Function(rosenbrock, (-2.0, 2.0), (1.0, 1.0), (-2.2, 2.0), (-1.0, 3.0), (1, 5, 20, 80, 300, 1000)),
    "rastrigin": Function(rastrigin, (-2.0, 3.5), (0.0, 0.0), (-4.5, 4.5), (-4.5, 4.5), (5, 10, 20, 30, 40, 50)),
}


class ArmPath(StrictModel):
    """The path of an arm, and the mean distance of its last points to the minimum."""

    arm: Name
    optimizer: Text
    lr: Positive
    tuning: Text
    distance: NonNegative
    points: list[Point]


class Result(StrictModel):
    """The paths of a recipe: the content of its ``paths.json``."""

    recipe: Name
    function: Literal["rosenbrock", "rastrigin"]
    steps: Count
    paths: list[ArmPath]


def run(recipe: FunctionRecipe, runs: Path, size: str | None = None, arms: list[str] | None = None) -> Path:
    """Descends with every arm, or with those of `arms`. This takes seconds, so nothing is skipped.

    Returns:
        RUNS/<recipe>/<size>/paths.json, written whole or not at all.

    Raises:
        RecipeError: the recipe lacks the size or an arm, or an arm ran away to infinity.
    """
    chosen = chosen_size(recipe, size)
    steps, name = recipe.sizes[chosen].steps, recipe.task.function
    paths = [_follow(FUNCTIONS[name], arm, recipe.arms[arm], steps) for arm in chosen_arms(recipe, arms)]
    result = Result(recipe=recipe.name, function=name, steps=steps, paths=paths)
    path = runs / recipe.name / chosen / "paths.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result.model_dump(mode="json"))
    return path


def read(path: Path) -> Result:
    """Reads what `run` wrote.

    Raises:
        RecipeError: there is no such file, or it holds no paths.
    """
    try:
        return Result.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"{path} holds no paths ({reason}): expected a paths.json of `emo-hf run`.") from None


def _follow(function: Function, name: str, arm: Arm, steps: int) -> ArmPath:
    points = descend(function, arm, steps)
    if not all(map(math.isfinite, points[-1])):
        raise RecipeError(f"arms.{name}: ran away to infinity within {steps} steps at lr {arm.lr:g}; lower it.")
    return ArmPath(
        arm=name,
        optimizer=arm.optimizer,
        lr=arm.lr,
        tuning=str(arm.tuning),
        distance=distance(function, points),
        points=points,
    )


def distance(function: Function, points: list[Point]) -> float:
    """Returns the mean distance of the last points to the minimum, >= 0."""
    last = points[-SETTLED:]
    return sum(math.dist(point, function.minimum) for point in last) / len(last)


def descend(function: Function, arm: Arm, steps: int) -> list[Point]:
    """Returns the start and the point after each of `steps` steps, or up to the first that is not finite."""
    position = torch.nn.Parameter(torch.tensor(function.start, dtype=torch.float64))
    optimizer = _optimizer(arm, position)
    schedule = get_scheduler(arm.schedule, optimizer, round(arm.warmup * steps), steps)
    points = [function.start]
    while len(points) <= steps and all(map(math.isfinite, points[-1])):
        optimizer.zero_grad()
        loss = function.value(*position)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([position], MAX_GRAD_NORM)
        if isinstance(optimizer, EmoOptimizer):
            optimizer.observe(loss)
        optimizer.step()
        schedule.step()
        points.append(tuple(position.tolist()))
    return points


def _optimizer(arm: Arm, position: torch.nn.Parameter) -> torch.optim.Optimizer:
    args = TrainingArguments(
        optim=arm.optim,
        optim_args=optim_args(arm),
        learning_rate=arm.lr,
        lr_scheduler_type=arm.schedule,
        report_to="none",
        use_cpu=True,
    )
    cls, kwargs = Trainer.get_optimizer_cls_and_kwargs(args)
    return cls([{"params": [position], "weight_decay": arm.weight_decay}], **kwargs)
