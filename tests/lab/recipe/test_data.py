"""What a recipe may say of its data."""

import pytest

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.schema import RunConfig

TABLE = {"csv": "a.csv", "text": "t", "label": "l", "holdout": 0.1}
HUB = {"name": "a/b", "revision": "c"}
KINDS = ("sequence-classification", "causal-lm", "image-classification")


@pytest.fixture
def task(recipe, write):
    """Returns the recipe with another task."""

    def task(kind: str, **data):
        recipe.pop("metric", None)
        recipe["task"] = {"type": kind, "data": data}
        return loading.recipe(write(recipe))

    return task


@pytest.mark.parametrize(
    "data",
    [
        TABLE,
        {"json": "a/b c.json", "text": "t", "label": "l", "test": "d.json"},
        {"parquet": "a.parquet", "text": "t", "label": "l", "holdout": 7},
        {"saved": "folder", "text": "t", "label": "l"},
        {"hub": {**HUB, "text": "t", "label": "l"}, "test": "dev"},
    ],
    ids=lambda data: next(iter(data)),
)
def test_a_run_keeps_what_it_reads(task, data, tmp_path):
    recipe = task("sequence-classification", **data)
    run_config = recipe.run_configs("smoke", data_dir=None if "hub" in data else tmp_path)[0]
    written = run_config.model_dump(mode="json", exclude_none=True)
    assert written["task"]["data"] == data
    assert RunConfig.model_validate(written) == run_config
    assert recipe.matches(run_config)


def test_own_data_needs_a_folder(task, tmp_path):
    recipe = task("causal-lm", text="plays", holdout=0.5)
    with pytest.raises(RecipeError, match="tiny reads plays from a local folder: give --data-dir"):
        recipe.run_configs("smoke")
    assert recipe.run_configs("smoke", data_dir=tmp_path)[0].task.data.columns == {}


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (0, {**TABLE, "holdout": 0}, "data.holdout: expected a share between 0 and 1, or a number of examples"),
        (0, {**TABLE, "holdout": 1.0}, "data.holdout: expected a share .*got 1.0"),
        (0, {**TABLE, "holdout": True}, "data.holdout: expected a share .*got True"),
        (0, {**TABLE, "holdout": None}, "data: csv: give test, a second file of its kind, or holdout, as in"),
        (0, {**TABLE, "test": "b.csv"}, "data: csv: give test, a second file"),
        (0, {**TABLE, "json": "a.json"}, "data: give embedded, hub, files, hub and files, csv, json"),
        (0, {**TABLE, "hub": {**HUB, "text": "t", "label": "l"}}, "data: give embedded, hub, files"),
        (0, {"embedded": "sentences", "label": "l"}, "data: text, label, prompt and completion are columns of csv"),
        (0, {"files": "trec-6", "test": "b"}, "data: test: it goes neither with holdout, nor with embedded or files"),
        (0, {**TABLE, "csv": "../a.csv"}, r"data: csv: expected a path below .*--data-dir.*, got '\.\./a\.csv'"),
        (0, {**TABLE, "csv": "/etc/passwd"}, "data: csv: expected a path below"),
        (0, {**TABLE, "csv": "C:/a.csv"}, "data: csv: expected a path below"),
        (0, {**TABLE, "csv": "zip://a::b.csv"}, "data: csv: expected a path below"),
        (0, {**TABLE, "holdout": None, "test": "a/../../b"}, "data: test: expected a path below"),
        (1, {"text": "../plays", "holdout": 0.1}, "data: text: expected a path below"),
        (0, {**TABLE, "label": None}, "task: data: sequence-classification learns from .* text and label, got text"),
        (0, {"hub": {**HUB, "text": "t"}}, "task: data.hub: sequence-classification learns from .*, got text"),
        (1, TABLE, "task: data: causal-lm learns from the columns text or prompt and completion, got text and label"),
        (1, {**TABLE, "text": None, "label": None, "prompt": "p"}, "task: data: causal-lm learns from .*, got prompt"),
        (0, {"text": "plays", "holdout": 0.1}, "task: sequence-classification does not read text files"),
        (2, TABLE, "task: image-classification does not read csv, only fashion-mnist and sets of the hub"),
    ],
)  # fmt: skip
def test_what_is_no_data(task, kind, data, message):
    with pytest.raises(RecipeError, match=rf"1 problem\n  task\.?{message.removeprefix('task')}"):
        task(KINDS[kind], **data)
