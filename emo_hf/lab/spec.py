"""The recipe: one YAML file, one comparison of arms (optimizer settings) over seeds on one task.

A recipe is data: it names no code and no path, and whatever becomes a folder is a `Name`, which cannot leave the runs
folder. A `Cell` is what one process trains: one arm, one seed, one size, with all defaults written out.
`emo_hf.lab.load` reads both from files.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from emo_hf.errors import RecipeError, did_you_mean
from emo_hf.lab.arms import Arm, Change
from emo_hf.lab.strict import Count, Name, Positive, Seed, Share, Strict, Text, one_of

SizeName = Literal["smoke", "small", "paper"]
Several = Annotated[int, Field(ge=2)]


class Hub(Strict):
    """A repository of the Hugging Face hub at one commit."""

    name: Text
    revision: Text


class HubData(Hub):
    """A data set of the hub with the splits train and test, and the columns to read."""

    text: Text
    label: Text


class Data(Strict):
    """Where the examples come from.

    Attributes:
        embedded: a set that is shipped with the package.
        hub: a data set of the hub.
        files: what a folder given by ``--data-dir`` holds, in the original file format.
        holdout: evaluate on so many of the training examples, left out of the training, instead of on the test set:
            for choosing settings.
    """

    embedded: Literal["sentences"] | None = None
    hub: HubData | None = None
    files: Literal["trec-6"] | None = None
    holdout: Count | None = None

    _source = one_of("embedded", "hub")


class Task(Strict):
    """What is learned from which data."""

    type: Literal["sequence-classification"]
    data: Data


class Config(Strict):
    """A GPT-2 from its configuration, with a byte-level BPE tokenizer trained on the training examples."""

    layers: Count
    heads: Count
    width: Count
    vocabulary: Annotated[int, Field(ge=300)]  # 256 bytes, two special tokens, and merges
    dropout: Share = 0.1
    lowercase: bool = False

    @model_validator(mode="after")
    def _divisible(self) -> "Config":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Model(Strict):
    """From a configuration, or from the hub with its weights and tokenizer."""

    config: Config | None = None
    hub: Hub | None = None

    _source = one_of("config", "hub")


class Scale(Strict):
    """How much of the task: model, steps and examples.

    Attributes:
        epochs: passes over the training examples.
        batch_size: examples per optimizer step, of all processes together.
        max_tokens: longer texts are cut.
        evaluations: how many, evenly spread; the last one is at the end and is the result.
        train_examples: use only the first so many training examples.
        test_examples: use only the first so many evaluation examples.
    """

    model: Model
    epochs: Positive
    batch_size: Count
    max_tokens: Annotated[int, Field(ge=8)] = 64
    evaluations: Count = 1
    train_examples: Count | None = None
    test_examples: Count | None = None


class Size(Scale):
    """A scale, and what it changes in single arms."""

    arms: dict[Name, Change] = {}


class Cell(Strict):
    """One run: everything that decides its result. Written as ``config.yaml`` into the run's folder."""

    recipe: Name
    size: SizeName
    name: Name
    seed: Seed
    metric: Literal["accuracy"]
    task: Task
    data_dir: str | None = None
    processes: Several | None = None
    scale: Scale
    arm: Arm

    @property
    def needs_hub(self) -> bool:
        """Whether anything has to come from the hub."""
        return bool(self.scale.model.hub) or (self.data_dir is None and bool(self.task.data.hub))


class Recipe(Strict):
    """One comparison. `claim` is what it is to decide, `source` who says so.

    `processes` is how many train one run together (DDP); without it, each run is one process.
    """

    name: Name
    description: Text
    claim: Text | None = None
    source: Text | None = None
    task: Task
    metric: Literal["accuracy"]
    processes: Several | None = None
    seeds: Annotated[list[Seed], Field(min_length=1)]
    default_size: SizeName = "small"
    sizes: Annotated[dict[SizeName, Size], Field(min_length=1)]
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        problems = []
        if len(set(self.seeds)) != len(self.seeds):
            problems.append(f"seeds: got {self.seeds}, expected every seed once")
        if self.default_size not in self.sizes:
            problems.append(f"default_size: {self.default_size!r} is not among sizes: {', '.join(self.sizes)}")
        for size, content in self.sizes.items():
            for arm in content.arms.keys() - self.arms.keys():
                problems.append(f"sizes.{size}.arms.{arm}: no such arm.{did_you_mean(arm, self.arms)}")
            if content.batch_size % (self.processes or 1):
                problems.append(f"sizes.{size}.batch_size: not a multiple of the {self.processes} processes")
        if not self.processes:
            problems += alone(self.arms)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def cells(
        self,
        size: str | None = None,
        arms: list[str] | None = None,
        seeds: list[int] | None = None,
        data_dir: Path | None = None,
    ) -> list[Cell]:
        """Returns the runs of one size, arm by arm; `arms` and `seeds` select or, for seeds, replace.

        Raises:
            RecipeError: a size or arm that the recipe lacks, a bad seed, or a folder that it has no use for.
        """
        size = chosen_size(self, size)
        if data_dir is not None and self.task.data.files is None:
            raise RecipeError(f"{self.name} reads no local folder: leave out --data-dir.")
        scale = Scale(**{name: getattr(self.sizes[size], name) for name in Scale.model_fields})
        common = {
            "recipe": self.name,
            "size": size,
            "metric": self.metric,
            "task": self.task,
            "processes": self.processes,
            "scale": scale,
        }
        cells = []
        for name in chosen_arms(self, arms):
            change = self.sizes[size].arms.get(name)
            arm = self.arms[name].model_copy(update=dict(change) if change else {})
            for seed in dict.fromkeys(self.seeds if seeds is None else seeds):
                folder = str(data_dir) if data_dir else None
                cells.append(Cell(**common, name=name, seed=seed, arm=arm, data_dir=folder))
        return cells


class FunctionTask(Strict):
    """A test function of two variables is descended (`emo_hf.lab.functions`)."""

    type: Literal["function"]
    function: Literal["rosenbrock", "rastrigin"]


class Steps(Strict):
    """How far."""

    steps: Count


class FunctionRecipe(Strict):
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
        if problems := alone(self.arms):
            raise ValueError("\n".join(problems))
        return self


def alone(arms: dict[str, Arm]) -> list[str]:
    """Returns what is wrong with `arms` where each run is one process."""
    found = [name for name, arm in arms.items() if arm.local_sgd_steps]
    return [f"arms.{name}.local_sgd_steps: one process has nothing to average: give processes" for name in found]


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
