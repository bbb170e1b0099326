"""The recipe: one YAML file, one comparison of arms (optimizer settings) over seeds on one task.

A recipe is data: it names no code and no path, and whatever becomes a folder is a `Name`, which cannot leave the runs
folder. A `RunConfig` is what one process trains: one arm, one seed, one size, with all defaults written out.
`emo_hf.lab.recipe.loading` reads both from files.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from emo_hf.errors import RecipeError, did_you_mean
from emo_hf.lab.recipe import validation
from emo_hf.lab.recipe.arms import Arm, Change, Tuning
from emo_hf.lab.recipe.fields import LARGEST_COUNT, Count, Finite, Name, Positive, Seed, StrictModel, Text, renamed
from emo_hf.lab.recipe.rules import Basin, Metric, RuleLine
from emo_hf.lab.recipe.task import Scale, Task

SizeName = Literal["smoke", "small", "paper"]
Several = Annotated[int, Field(ge=2, le=LARGEST_COUNT)]
Measure = Literal["trajectory"]  # costs time or space, so only if asked for
FORMER = {"secondary": "also"}  # keys of a recipe, and what they were called before


class Size(Scale):
    """A scale, and what it changes in single arms."""

    arms: dict[Name, Change] = {}


class RunConfig(StrictModel):
    """One run: everything that decides its result. Written as ``config.yaml`` into the run's folder."""

    recipe: Name
    size: SizeName
    name: Name
    seed: Seed
    task: Task
    data_dir: str | None = None
    processes: Several | None = None
    measure: list[Measure] = []
    equal_train_loss: Positive | None = None
    scale: Scale
    arm: Arm
    replayed_seed: Seed | None = None

    @property
    def needs_hub(self) -> bool:
        """Whether anything has to come from the hub."""
        model, data = self.scale.model, self.task.data
        return bool(model.hub) or (self.data_dir is None and bool(data.hub or model.llama2c))


class Published(StrictModel):
    """What the authors report, beside which the report puts ours: metric -> arm -> value."""

    source: Text
    values: dict[Metric, dict[Name, Finite]]


class Recipe(StrictModel):
    """One comparison, and the rule that decides its claim.

    Attributes:
        claim: what is to be decided, `source`: who says so.
        caveat: what the verdict cannot say; it stands beside it wherever it is told.
        baseline: the arm that the report pairs all others with.
        rule: what the verdict depends on; without it there is none.
        secondary: lines that are judged like those of the rule, but have no part in the verdict.
        published: numbers of the authors.
        metric: the number that a `rule` and the report are about, if they name no other; the task's own if None.
        processes: how many train one run together (DDP); without it, each run is one process.
        measure: ``trajectory``: the weights of the classifier at every evaluation.
        equal_train_loss: the training loss at which the metric ``gap`` is taken.
    """

    _former = renamed(**FORMER)
    name: Name
    description: Text
    claim: Text | None = None
    source: Text | None = None
    caveat: Text | None = None
    task: Task
    metric: Metric | None = None
    baseline: Name | None = None
    rule: list[RuleLine] = []
    secondary: list[RuleLine] = []
    published: Published | None = None
    processes: Several | None = None
    measure: list[Measure] = []
    equal_train_loss: Positive | None = None
    seeds: Annotated[list[Seed], Field(min_length=1)]
    default_size: SizeName = "small"
    sizes: Annotated[dict[SizeName, Size], Field(min_length=1)]
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]

    @property
    def judged(self) -> str:
        """The metric of the report and of each line of the rule that names none."""
        return self.metric or self.task.metric

    @property
    def families(self) -> dict[str, list[str]]:
        """The arms of each sweep."""
        arms: dict[str, list[str]] = {}
        for name, arm in self.arms.items():
            if arm.family:
                arms.setdefault(arm.family, []).append(name)
        return arms

    @property
    def judged_sweeps(self) -> dict[str, list[str]]:
        """The arms of each sweep that a line is about."""
        lines = [line for line in (*self.rule, *self.secondary) if isinstance(line, Basin)]
        return {name: self.families[name] for line in lines for name in (line.sweep, line.against)}

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if problems := validation.problems(self):
            raise ValueError("\n".join(problems))
        return self

    def run_configs(
        self,
        size: str | None = None,
        arms: list[str] | None = None,
        seeds: list[int] | None = None,
        data_dir: Path | None = None,
    ) -> list[RunConfig]:
        """Returns the runs of one size, arm by arm; `arms` selects, `seeds` replaces those of the recipe.

        Raises:
            RecipeError: a size or arm that the recipe lacks, a seed without another to replay, or a folder that it has
                no use for.
        """
        size = chosen_size(self, size)
        reads = self.task.data.files or self.sizes[size].model.llama2c
        if data_dir is not None and not reads:
            raise RecipeError(f"{self.name} reads no local folder: leave out --data-dir.")
        if data_dir is None and self.task.data.files and not self.task.data.hub:
            raise RecipeError(f"{self.name} reads {self.task.data.files} from a local folder: give --data-dir.")
        scale = Scale(**{name: getattr(self.sizes[size], name) for name in Scale.model_fields})
        common = {
            "recipe": self.name,
            "size": size,
            "task": self.task,
            "processes": self.processes,
            "measure": self.measure,
            "equal_train_loss": self.equal_train_loss,
            "scale": scale,
            "data_dir": str(data_dir) if data_dir else None,
        }
        seeds = list(dict.fromkeys(self.seeds if seeds is None else seeds))
        run_configs = []
        for name in chosen_arms(self, arms):
            arm = self._arm(name, self.sizes[size])
            for seed in seeds:
                replayed = self._replayed_seed(name, seed, seeds) if arm.replay else None
                run_configs.append(RunConfig(**common, name=name, seed=seed, arm=arm, replayed_seed=replayed))
        return run_configs

    def _replayed_seed(self, name: str, seed: int, seeds: list[int]) -> int:
        """The seed whose run an arm replays: for a seed of the recipe the same whatever part of it is run."""
        if not self.arms[name].replay.other_seed:
            return seed
        ring = self.seeds if seed in self.seeds else [other for other in seeds if other not in self.seeds]
        if len(ring) == 1:
            raise RecipeError(
                f"{name} replays another seed than {seed}: give a second one, or leave it out with --arms."
            )
        return ring[(ring.index(seed) + 1) % len(ring)]

    def _arm(self, name: str, size: Size) -> Arm:
        """An arm at one size. A grid was run on a model that the recipe builds: with one of the hub it counts as
        untuned, unless the size itself says that it was run there."""
        arm, change = self.arms[name], size.arms.get(name)
        if change:
            return arm.model_copy(update=dict(change))
        if size.model.hub and arm.tuning.how == "grid":
            return arm.model_copy(update={"tuning": Tuning(how="untuned")})
        return arm

    def matches(self, run_config: RunConfig) -> bool:
        """Whether a run has the settings that the recipe has now. Where its data lay does not matter."""
        if run_config.name not in self.arms or run_config.size not in self.sizes:
            return False
        seeds = [run_config.seed] if run_config.replayed_seed is None else [run_config.seed, run_config.replayed_seed]
        try:
            own = self.run_configs(
                run_config.size, [run_config.name], seeds, Path(run_config.data_dir) if run_config.data_dir else None
            )[0]
        except RecipeError:  # it reads another kind of data now, or replays its own seed
            return False
        return run_config.model_copy(update={"data_dir": None}) == own.model_copy(update={"data_dir": None})


class FunctionTask(StrictModel):
    """A test function of two variables is descended (`emo_hf.lab.run.functions`)."""

    type: Literal["function"]
    function: Literal["rosenbrock", "rastrigin"]


class Steps(StrictModel):
    """How far."""

    steps: Count


class FunctionRecipe(StrictModel):
    """A comparison of arms on one function. Functions are not random, so there are no seeds."""

    name: Name
    description: Text
    claim: Text | None = None
    source: Text | None = None
    task: FunctionTask
    metric: Literal["distance"]
    default_size: SizeName = "small"
    sizes: Annotated[dict[SizeName, Steps], Field(min_length=1)]
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> "FunctionRecipe":
        if self.default_size not in self.sizes:
            raise ValueError(f"default_size: {self.default_size!r} is not among sizes: {', '.join(self.sizes)}")
        if problems := validation.of_function(self.arms):
            raise ValueError("\n".join(problems))
        return self


def chosen_size(recipe: Recipe | FunctionRecipe, size: str | None) -> str:
    """Returns `size`, or the recipe's own if it is None; `RecipeError` if the recipe has no such size."""
    size = size or recipe.default_size
    if size not in recipe.sizes:
        raise RecipeError(f"{recipe.name} has no size {size!r}, only {', '.join(recipe.sizes)}.")
    return size


def chosen_arms(recipe: Recipe | FunctionRecipe, arms: list[str] | None) -> list[str]:
    """Returns each of `arms` once, or all of the recipe if it is None; `RecipeError` if the recipe lacks one."""
    for arm in arms or []:
        if arm not in recipe.arms:
            near = did_you_mean(arm, recipe.arms)
            raise RecipeError(f"{recipe.name} has no arm {arm!r}, only {', '.join(recipe.arms)}.{near}")
    return list(dict.fromkeys(arms or recipe.arms))
