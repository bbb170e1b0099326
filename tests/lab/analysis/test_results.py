"""From summaries to a table, and from a training to its summary."""

import json
import math

import pytest

from emo_hf.errors import RecipeError
from emo_hf.lab.analysis import results
from emo_hf.lab.analysis.results import Stat
from emo_hf.lab.recipe import loading
from emo_hf.lab.run import arguments, measures, worker
from emo_hf.run_folder import RunFolder


def summary(arm: str, **changes) -> dict:
    return {
        "arm": arm,
        "optimizer": "emosens-3.9",
        "accuracy": 0.5,
        "eval_loss": 1.0,
        "step_size_median": 1e-4,
        "seconds": 10.0,
        "tuning": "untuned",
        **changes,
    }


def test_table():
    rows = results.table([summary("b", accuracy=0.4), summary("a", eval_loss=None), summary("b", accuracy=0.6)])
    assert [(row.arm, row.n) for row in rows] == [("b", 2), ("a", 1)]
    assert rows[0].stat("accuracy") == Stat(0.5, pytest.approx(math.sqrt(0.02)))
    assert rows[1].stat("accuracy") == Stat(0.5, None)  # one seed has no standard deviation
    assert rows[1].stat("eval_loss") == Stat(None, None, missing=1)  # it was not finite
    assert rows[1].stat("perplexity") is None  # another task's
    assert results.table([]) == []


def test_read(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    for folder in folders[:2]:
        folder.mkdir()
    (folders[0] / "summary.json").write_text(json.dumps(summary("a")))
    assert [RunFolder(folder).read_summary() for folder in folders] == [summary("a"), None, None]
    other = (summary("a", steps=None), summary("b", classes="ab"), summary("b", classes=[1]))
    for damaged in ("{", *map(json.dumps, other)):
        (folders[1] / "summary.json").write_text(damaged)
        with pytest.raises(RecipeError, match="is no summary"):
            [RunFolder(folder).read_summary() for folder in folders]
    named = measures.null_nonfinite(summary("b", classes=["x", "y"], eval_loss=math.inf))
    (folders[1] / "summary.json").write_text(json.dumps(named))
    assert RunFolder(folders[1]).read_summary() == named


def test_numbers_that_json_lacks():
    row = {"a": 1.0, "b": math.nan, "c": -math.inf, "d": "x"}
    assert measures.null_nonfinite(row) == {"a": 1.0, "b": None, "c": None, "d": "x", "nonfinite": ["b", "c"]}
    assert measures.null_nonfinite({"a": 1.0}) == {"a": 1.0}


def test_summary_is_whole_or_absent(tmp_path):
    path = tmp_path / "summary.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        worker.write_json(path, {"a": math.nan})
    assert not path.exists()
    worker.write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["summary.json"]


def test_no_secrets_in_env(monkeypatch):
    for name in ("WANDB_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "sesame-0123")
    environment = worker.environment()
    assert environment["packages"]["torch"]
    assert "sesame" not in json.dumps(environment)


def test_trainer_gets_the_arm(recipe, write, tmp_path):
    recipe["arms"]["emosens"] |= {
        "lr": 5e-5,  # Trainer's default: still not taken for "unset"
        "options": {"betas": [0.8, 0.9], "use_shadow": True},
        "schedule": "cosine",
        "warmup": 0.5,
        "weight_decay": 0.1,
    }
    recipe["arms"]["adamw"]["lr"] = 3e-4
    emo, _, adamw, _ = loading.recipe(write(recipe)).run_configs("smoke")
    args = arguments.training_arguments(emo, tmp_path, arguments.total_steps(emo, 32), "none")
    assert args.max_steps == 4
    assert args.warmup_steps == 2
    assert args.optim_args == "lr=5e-05,implementation=forloop,beta1=0.8,beta2=0.9,use_shadow=True"
    from emo_hf.hf.optim import class_and_kwargs

    kwargs = class_and_kwargs(args)[1]
    options = {"implementation": "forloop", "betas": (0.8, 0.9), "use_shadow": True}
    assert kwargs == {"version": "3.9", "lr": 5e-5, **options}
    assert (args.lr_scheduler_type, args.weight_decay, args.report_to) == ("cosine", 0.1, [])
    args = arguments.training_arguments(adamw, tmp_path, arguments.total_steps(adamw, 33), "none")
    assert (args.optim, args.optim_args, args.learning_rate, args.max_steps) == ("adamw_torch", None, 3e-4, 5)
