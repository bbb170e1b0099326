"""Labelled texts, running text or images, from the package, a local folder or the hub, all in one shape.

Reading checks everything: a bad file is one `RecipeError` with its name and line, before any training starts.

    kinds    what a task learns from: `Examples`, `Images`, `Text`
    files    which original files a set has, where they lie in ``--data-dir``, and how they are read
    hub      the same from the Hugging Face hub
"""

from importlib import resources
from pathlib import Path

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.sources import files, hub
from emo_hf.lab.sources.kinds import Example, Examples, Images, TaskData, Text

__all__ = ["Example", "Examples", "Images", "TaskData", "Text", "examples", "sentences"]


def examples(run_config: RunConfig) -> TaskData:
    """Reads what `run_config` trains and evaluates on, as its data, its scale and its arm's condition say.

    Of a causal-lm task this is the text: `emo_hf.lab.tasks` cuts it into pieces, holds out and counts them.

    Raises:
        RecipeError: the data is missing, malformed, out of reach, or less than the recipe asks for.
    """
    data, scale, condition = run_config.task.data, run_config.scale, run_config.arm.condition
    noise = condition.label_noise if condition else 0
    content = _read(run_config)
    if isinstance(content, Text):
        if noise:
            raise RecipeError(f"arms.{run_config.name}.condition.label_noise: running text has no labels to replace.")
        return content
    if data.holdout is not None:
        content = content.hold_out(data.holdout)
    content = content.first(train_limit(run_config), scale.test_examples)
    return content.with_noise(noise, run_config.seed) if noise else content


def train_limit(run_config: RunConfig) -> int | None:
    """How many training examples `run_config` uses: its arm's own number, else its scale's; None is all."""
    condition = run_config.arm.condition
    return (condition and condition.train_examples) or run_config.scale.train_examples


def _read(run_config: RunConfig) -> TaskData:
    data, kind = run_config.task.data, run_config.task.type
    if run_config.data_dir is not None and data.files:
        return files.read(data.files, Path(run_config.data_dir))
    if data.embedded:
        labelled = sentences()
        return running_text(labelled) if kind == "causal-lm" else labelled
    return hub.read(data.hub, kind)


def sentences() -> Examples:
    """The shipped set: sentences of a play without the mark that ended them (see ``data/README.md``)."""
    text = resources.files("emo_hf.lab.sources").joinpath("data/sentences.tsv").read_text(encoding="utf-8")
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for line in text.splitlines()[1:]:
        split, label, sentence = line.split("\t")
        splits[split].append(Example(sentence, label))
    return Examples(tuple(splits["train"]), tuple(splits["test"]))


def running_text(labelled: Examples) -> Text:
    """The texts alone, one a line."""
    return Text(*("".join(f"{example.text}\n" for example in part) for part in (labelled.train, labelled.test)))
