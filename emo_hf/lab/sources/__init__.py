"""Labelled texts, running text or images: from the package, from a local folder or from the hub.

A bad file is one `RecipeError` with its name and line, before any training starts.

    kinds    what a task learns from: `Examples`, `Images`, `Text`, `Completions`
    columns  from the columns of a table to these
    files    data sets in their original files
    own      one's own tables and text files
    hub      data sets of the Hugging Face hub
    guess    what a file of one's own is meant for
    packages trained models that come as packages
"""

from importlib import resources
from pathlib import Path

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.sources import files, hub, own
from emo_hf.lab.sources.kinds import Completions, Example, Examples, Images, TaskData, Text

__all__ = ["Completions", "Example", "Examples", "Images", "TaskData", "Text", "examples", "sentences"]


def examples(run_config: RunConfig) -> TaskData:
    """Reads what `run_config` trains and evaluates on, cut, held out and made noisy as it says.

    A running text is whole: `emo_hf.lab.tasks` cuts it into pieces, and holds out a number of them if it is to.

    Raises:
        RecipeError: the data is missing, malformed, out of reach, or too small for the recipe.
    """
    data, scale, condition = run_config.task.data, run_config.scale, run_config.arm.condition
    noise = condition.label_noise if condition else 0
    content = _read(run_config)
    if noise and isinstance(content, Text | Completions):
        raise RecipeError(f"arms.{run_config.name}.condition.label_noise: running text has no labels to replace.")
    if isinstance(content, Text):
        return content if data.table or not isinstance(data.holdout, float) else content.hold_out(data.holdout)
    if data.holdout is not None:
        content = content.hold_out(data.holdout)
    content = content.first(train_limit(run_config), scale.test_examples)
    return content.with_noise(noise, run_config.seed) if noise and not isinstance(content, Completions) else content


def train_limit(run_config: RunConfig) -> int | None:
    """Returns the number of training examples of `run_config`: its arm's, else its scale's. None means all."""
    condition = run_config.arm.condition
    return (condition and condition.train_examples) or run_config.scale.train_examples


def _read(run_config: RunConfig) -> TaskData:
    data, kind = run_config.task.data, run_config.task.type
    if run_config.data_dir is not None and data.files:
        return files.read(data.files, Path(run_config.data_dir))
    if run_config.data_dir is not None and data.own:
        return own.read(data, Path(run_config.data_dir))
    if data.embedded:
        labelled = sentences()
        return running_text(labelled) if kind == "causal-lm" else labelled
    assert data.hub is not None  # `Recipe.run_configs` asks for a folder if there is only `files`
    return hub.read(data, kind)


def sentences() -> Examples:
    """Returns the shipped set: sentences of a play without their last mark (see ``data/README.md``)."""
    text = resources.files("emo_hf.lab.sources").joinpath("data/sentences.tsv").read_text(encoding="utf-8")
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for line in text.splitlines()[1:]:
        split, label, sentence = line.split("\t")
        splits[split].append(Example(sentence, label))
    return Examples(tuple(splits["train"]), tuple(splits["test"]))


def running_text(labelled: Examples) -> Text:
    """Returns the texts without their labels, one per line."""
    return Text(*("".join(f"{example.text}\n" for example in part) for part in (labelled.train, labelled.test)))
