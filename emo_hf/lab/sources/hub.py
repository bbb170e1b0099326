"""Data sets of the hub, or of its local cache."""

from collections.abc import Callable
from typing import Any

import numpy as np

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.task import HubData, TaskType
from emo_hf.lab.sources.files import stripped_lines, with_statistics
from emo_hf.lab.sources.kinds import Example, Examples, Images, Pictures, TaskData, Text


def read(data: HubData, kind: TaskType) -> TaskData:
    """Reads the splits train and test for a task of `kind`."""
    import datasets

    if kind != "causal-lm" and data.label is None:
        raise RecipeError(f"task.data.hub.label: missing: {kind} needs the column of the classes of {data.name}.")
    data.refuse_folder()
    try:
        splits = datasets.load_dataset(data.name, data.config, revision=data.revision)
        return SHAPES[kind](splits["train"], splits["test"], data)
    except Exception as error:  # the hub, its cache and the readers raise all kinds of errors
        raise RecipeError(
            f"The data set {data.name} at revision {data.revision} cannot be loaded from the Hugging Face hub or its"
            f" cache ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'})."
            " Check the network, or give a local folder with --data-dir."
        ) from error


def _examples(train: Any, test: Any, data: HubData) -> Examples:
    return Examples(_rows(train, data), _rows(test, data))


def _rows(split: Any, data: HubData) -> tuple[Example, ...]:
    label = split.features[data.label]
    named = label.int2str if hasattr(label, "int2str") else str
    return tuple(Example(row[data.text], named(row[data.label])) for row in split)


def _text(train: Any, test: Any, data: HubData) -> Text:
    return Text(stripped_lines(train[data.text]), stripped_lines(test[data.text]))


def _images(train: Any, test: Any, data: HubData) -> Images:
    return with_statistics(_pictures(train, data), _pictures(test, data), tuple(train.features[data.label].names))


def _pictures(split: Any, data: HubData) -> Pictures:
    images = [np.asarray(row[data.text].convert("L")) for row in split]
    return Pictures(np.stack(images), np.array(split[data.label], dtype=np.int64))


SHAPES: dict[TaskType, Callable[[Any, Any, HubData], TaskData]] = {
    "sequence-classification": _examples,
    "causal-lm": _text,
    "image-classification": _images,
}
