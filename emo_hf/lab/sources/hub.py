"""Data sets of the hub, or of its local cache."""

from typing import Any

import numpy as np

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.data import Data, HubData, TaskType
from emo_hf.lab.sources import own
from emo_hf.lab.sources.columns import Table, content
from emo_hf.lab.sources.files import with_statistics
from emo_hf.lab.sources.kinds import Images, Pictures, TaskData


def read(data: Data, kind: TaskType) -> TaskData:
    """Reads the split train, and the one to evaluate on, for a task of `kind`."""
    import datasets

    hub = data.hub
    assert hub is not None
    hub.refuse_folder()
    try:
        splits = datasets.load_dataset(hub.name, hub.config, revision=hub.revision)
        train, test = own.of_splits(splits, data, hub.name)
        return images(train, test, hub) if kind == "image-classification" else content(data.columns, train, test)
    except RecipeError:
        raise
    except Exception as error:  # the hub, its cache and the readers raise all kinds of errors
        raise RecipeError(
            f"The data set {hub.name} at revision {hub.revision} cannot be loaded from the Hugging Face hub or its"
            f" cache ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'})."
            " Check the network, or give a local folder with --data-dir."
        ) from error


def images(train: Table, test: Table | None, hub: HubData) -> Images:
    """Reads images of one channel, and their classes."""
    learned = _pictures(train.rows, hub)
    tested = _pictures(test.rows, hub) if test else learned[:0]
    return with_statistics(learned, tested, tuple(train.rows.features[hub.label].names))


def _pictures(split: Any, hub: HubData) -> Pictures:
    images = [np.asarray(row[hub.text].convert("L")) for row in split]
    return Pictures(np.stack(images), np.array(split[hub.label], dtype=np.int64))
