"""The recipe: one YAML file, one comparison of arms (optimizer settings) over seeds on one task.

A `RunConfig` is what one process trains: one arm, one seed, one size, with all defaults written out.
`emo_hf.lab.recipe.loading` reads both from files. A name that becomes a folder is a `Name`: it cannot leave the runs
folder.
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

SizeName = Literal["smoke", "small", "base", "paper"]
Several = Annotated[int, Field(ge=2, le=LARGEST_COUNT)]
MOST_ARMS, MOST_SEEDS, MOST_LINES = 200, 1000, 50
MOST_RUNS = 10_000  # arms times seeds
Measure = Literal["trajectory"]  # what costs time or space is measured on request only
FORMER = {"secondary": "also"}  # keys of a recipe and their former names


class Size(Scale):
    """A scale, and the arms that it changes.

    Attributes:
        arms: what this size changes in an arm.
    """

    arms: dict[Name, Change] = {}


class RunConfig(StrictModel):
    """Everything that decides the result of one run. It lies in the run's folder as ``config.yaml``."""

    recipe: Name
    size: SizeName
    name: Name
    seed: Seed
    task: Task
    data_dir: str | None = None
    model_dir: str | None = None
    processes: Several | None = None
    measure: list[Measure] = []
    equal_train_loss: Positive | None = None
    scale: Scale
    arm: Arm
    replayed_seed: Seed | None = None

    @property
    def needs_hub(self) -> bool:
        """Whether model or data come from the hub."""
        model, data = self.scale.model, self.task.data
        model_of_hub = model.hub and self.model_dir is None
        return bool(model_of_hub or (self.data_dir is None and (data.hub or model.llama2c)))


class Published(StrictModel):
    """What the authors report, for comparison.

    Attributes:
        source: where they do.
        values: metric -> arm -> value.
    """

    source: Text
    values: dict[Metric, dict[Name, Finite]]


class Recipe(StrictModel):
    """One comparison, and the rule that decides its claim.

    Attributes:
        name: the folder of its runs.
        description: what is compared, in a sentence.
        claim: what is to be decided.
        source: who claims it, and where.
        task: what is learned.
        seeds: each arm is trained once for each of them.
        default_size: what is trained without ``--size``.
        sizes: how much of the task: model, steps and examples.
        arms: the optimizer settings that are compared.
        caveat: what the verdict cannot say. Every report repeats it beside the verdict.
        baseline: the arm that the report pairs all others with.
        rule: the lines that decide the verdict. Without them there is none.
        secondary: lines that are judged like those of the rule, but have no part in the verdict.
        published: numbers of the authors.
        metric: the number that rule and report are about, unless they name another. None: the task's own.
        processes: how many train one run together (DDP). None: each run is one process.
        measure: ``trajectory`` records the weights of the classifier at every evaluation.
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
    rule: Annotated[list[RuleLine], Field(max_length=MOST_LINES)] = []
    secondary: Annotated[list[RuleLine], Field(max_length=MOST_LINES)] = []
    published: Published | None = None
    processes: Several | None = None
    measure: list[Measure] = []
    equal_train_loss: Positive | None = None
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS)]
    default_size: SizeName = "small"
    sizes: Annotated[dict[SizeName, Size], Field(min_length=1)]
    arms: Annotated[dict[Name, Arm], Field(min_length=1, max_length=MOST_ARMS)]

    @property
    def judged(self) -> str:
        """The metric of the report, and of each line that names no other."""
        return self.metric or self.task.metric

    def reads_folder(self, size: SizeName) -> bool:
        """Whether ``--data-dir`` names a folder that something is read from at this size."""
        data = self.task.data
        return bool(data.files or data.own or self.sizes[size].model.llama2c)

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
        """The arms of each sweep that a line compares."""
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
        model_dir: Path | None = None,
    ) -> list[RunConfig]:
        """Returns the runs of one size, arm by arm; `arms` selects, `seeds` replaces those of the recipe.

        `model_dir` holds copies of models of the hub; a size that needs none ignores it.

        Raises:
            RecipeError: the recipe lacks the size, an arm or a second seed to replay; or `data_dir` is missing or
                needless.
        """
        size_name = chosen_size(self, size)
        chosen = self.sizes[size_name]
        data = self.task.data
        if data_dir is not None and not self.reads_folder(size_name):
            raise RecipeError(f"{self.name} reads no local folder: leave out --data-dir.")
        if data_dir is None and data.needs_folder:
            read = data.files or (data.own and data.own[1])
            raise RecipeError(f"{self.name} reads {read} from a local folder: give --data-dir.")
        seeds = list(dict.fromkeys(self.seeds if seeds is None else seeds))
        names = chosen_arms(self, arms)
        if len(names) * len(seeds) > MOST_RUNS:
            raise RecipeError(
                f"{self.name}: {len(names)} arms times {len(seeds)} seeds are more than {MOST_RUNS:,} runs: give some"
                " of them with --arms and --seeds."
            )
        scale = Scale(**{field: getattr(chosen, field) for field in Scale.model_fields})
        return [
            RunConfig(
                recipe=self.name,
                size=size_name,
                name=name,
                seed=seed,
                task=self.task,
                data_dir=str(data_dir) if data_dir else None,
                model_dir=str(model_dir) if model_dir and chosen.model.hub else None,
                processes=self.processes,
                measure=self.measure,
                equal_train_loss=self.equal_train_loss,
                scale=scale,
                arm=self._arm(name, chosen),
                replayed_seed=self._replayed_seed(name, seed, seeds),
            )
            for name in names
            for seed in seeds
        ]

    def _replayed_seed(self, name: str, seed: int, seeds: list[int]) -> int | None:
        """The seed of the run that an arm replays. For a seed of the recipe, the other `seeds` play no part."""
        replay = self.arms[name].replay
        if replay is None or not replay.other_seed:
            return seed if replay else None
        ring = self.seeds if seed in self.seeds else [other for other in seeds if other not in self.seeds]
        if len(ring) == 1:
            raise RecipeError(
                f"{name} replays another seed than {seed}: give a second one, or leave it out with --arms."
            )
        return ring[(ring.index(seed) + 1) % len(ring)]

    def _arm(self, name: str, size: Size) -> Arm:
        """An arm at one size.

        A grid holds for the models that the recipe builds, if it builds any. With a model of the hub the arm then
        counts as untuned, unless the size gives its own tuning.
        """
        arm, change = self.arms[name], size.arms.get(name)
        if change:
            return arm.model_copy(update=dict(change))
        builds = any(other.model.hub is None for name, other in self.sizes.items() if name != "smoke")
        if size.model.hub and builds and arm.tuning.how == "grid":
            return arm.model_copy(update={"tuning": Tuning(how="untuned")})
        return arm

    def matches(self, run_config: RunConfig) -> bool:
        """Whether a run has the settings that the recipe has now, wherever its data lay."""
        if run_config.name not in self.arms or run_config.size not in self.sizes:
            return False
        seeds = [run_config.seed] if run_config.replayed_seed is None else [run_config.seed, run_config.replayed_seed]
        try:
            own = self.run_configs(
                run_config.size, [run_config.name], seeds, Path(run_config.data_dir) if run_config.data_dir else None
            )[0]
        except RecipeError:  # the recipe reads other data now, or replays another seed
            return False
        anywhere = {"data_dir": None, "model_dir": None}
        return run_config.model_copy(update=anywhere) == own.model_copy(update=anywhere)


class FunctionTask(StrictModel):
    """The descent of a test function of two variables (`emo_hf.lab.run.functions`).

    Attributes:
        type: tells it from a task that trains a model.
        function: the one to descend.
    """

    type: Literal["function"]
    function: Literal["rosenbrock", "rastrigin"]


class Steps(StrictModel):
    """The length of a descent.

    Attributes:
        steps: optimizer steps.
    """

    steps: Count


class FunctionRecipe(StrictModel):
    """A comparison of arms on one function. Nothing in it is random, so it has no seeds.

    Attributes:
        name: the name of its results.
        description: what is compared, in a sentence.
        claim: what it looks at.
        source: who claims it, and where.
        task: the function.
        metric: the mean distance of the last points to the minimum.
        default_size: what is run without ``--size``.
        sizes: how many steps.
        arms: the optimizer settings that are compared.
    """

    name: Name
    description: Text
    claim: Text | None = None
    source: Text | None = None
    task: FunctionTask
    metric: Literal["distance"]
    default_size: SizeName = "small"
    sizes: Annotated[dict[SizeName, Steps], Field(min_length=1)]
    arms: Annotated[dict[Name, Arm], Field(min_length=1, max_length=MOST_ARMS)]

    @model_validator(mode="after")
    def _consistent(self) -> "FunctionRecipe":
        if self.default_size not in self.sizes:
            raise ValueError(f"default_size: {self.default_size!r} is not among sizes: {', '.join(self.sizes)}")
        if problems := validation.of_function(self.arms):
            raise ValueError("\n".join(problems))
        return self


def chosen_size(recipe: Recipe | FunctionRecipe, size: str | None) -> SizeName:
    """Returns `size`, or the recipe's default if it is None; `RecipeError` if the recipe has no such size."""
    for known in recipe.sizes:
        if known == (size or recipe.default_size):
            return known
    raise RecipeError(f"{recipe.name} has no size {size!r}, only {', '.join(recipe.sizes)}.")


def chosen_arms(recipe: Recipe | FunctionRecipe, arms: list[str] | None) -> list[str]:
    """Returns each of `arms` once, or all arms if it is None; `RecipeError` if the recipe lacks one."""
    for arm in arms or []:
        if arm not in recipe.arms:
            near = did_you_mean(arm, recipe.arms)
            raise RecipeError(f"{recipe.name} has no arm {arm!r}, only {', '.join(recipe.arms)}.{near}")
    return list(dict.fromkeys(arms or recipe.arms))
