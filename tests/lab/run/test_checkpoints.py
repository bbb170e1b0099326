"""Runs that broke off and go on from a checkpoint. What trains, trains for real, on the shipped sentences."""

import contextlib
import json
import math
import os
import signal

import pytest
import torch
from safetensors.torch import save_file

from emo_hf.dashboards import read_signals
from emo_hf.lab.recipe import loading
from emo_hf.lab.run import checkpoints, runner
from emo_hf.lab.run.runner import Settings
from emo_hf.run_folder import RunFolder
from tests.hf.tiny_gpt2 import OLD

STEPS = 40
EVERY = 8 if OLD else 10  # 4 steps are an epoch, at whose end alone transformers < 5 resumes exactly


@pytest.fixture
def run_config(recipe, write):
    """One that evaluates twice on its way, with a dropout that draws random numbers."""
    recipe["sizes"]["smoke"] |= {"epochs": 10, "evaluations": 3}
    return loading.recipe(write(recipe)).run_configs("smoke")[0]


@pytest.fixture
def run(tmp_path):
    def run(run_config, watch=lambda progress: None, place="runs", **settings):
        (outcome,) = runner.run([run_config], tmp_path / place, Settings(**settings), watch)
        return outcome

    return run


def kill(progress) -> None:
    """Kills the run after its second checkpoint."""
    for under_way in progress.running.values():
        if (under_way.folder.path / f"checkpoint-{2 * EVERY}" / "trainer_state.json").exists():
            with contextlib.suppress(ProcessLookupError):  # it may be gone since the last look
                os.kill(under_way.worker.pid, signal.SIGKILL)


def summary(outcome) -> dict:
    """What a run came to, but for what differs from run to run; the mean of the losses to the precision of a sum.

    transformers 4.57 adds up losses that it has rounded for its log.
    """
    assert outcome.error is None
    found = json.loads((outcome.folder.summary).read_text())
    assert found["seconds"] > 0
    return {name: value for name, value in found.items() if name not in ("seconds", "peak_memory")} | {
        "train_loss": pytest.approx(found["train_loss"], rel=1e-4 if OLD else 1e-12)
    }


def history(outcome) -> list[dict]:
    """All that was logged on the way, but for times."""
    rows = read_signals(outcome.folder.history)
    return [
        {name: value for name, value in row.items() if not name.startswith(("eval_runtime", "eval_s"))}
        for row in rows
        if "train_runtime" not in row
    ]


@pytest.fixture
def broken(run_config, run, monkeypatch):
    """A run that was killed in its middle, and looked at often enough for that."""
    monkeypatch.setattr(runner, "POLL", 0.001)
    outcome = run(run_config, kill, save_every=EVERY)
    monkeypatch.undo()
    assert outcome.error == "killed by SIGKILL (out of memory?)"
    return outcome.folder


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_a_resumed_run_ends_like_an_uninterrupted_one(run_config, run, broken, caplog):
    torn = broken.path / f"checkpoint-{3 * EVERY}"  # from another kill, in the middle of a save
    torn.mkdir(exist_ok=True)
    (torn / "trainer_state.json").write_text('{"global_')
    cut(broken.path / f"checkpoint-{2 * EVERY}" / "optimizer.pt")  # and this one by a loss of power
    foreign = broken.path / "checkpoint-of-mine"
    foreign.mkdir()
    whole, resumed = run(run_config, place="whole"), run(run_config, resume=True)
    assert resumed.folder == broken
    assert summary(resumed) == summary(whole)
    assert history(resumed) == history(whole)
    assert read_signals(whole.folder.history)[-1]["step"] == STEPS
    assert [path for path in broken.path.iterdir() if path.is_dir()] == [foreign]
    lost = f"checkpoint-{2 * EVERY}"
    assert f"{lost} is not whole (optimizer.pt: " in caplog.text
    assert f"goes on from checkpoint-{EVERY}; {lost} is now torn-{lost}." in caplog.text
    assert os.listdir(broken.path.parent) == [broken.path.name]  # nothing was moved aside


def test_a_run_killed_after_its_last_step(run_config, run, monkeypatch):
    monkeypatch.setattr(checkpoints, "remove", lambda folder: None)
    whole = run(run_config, save_every=15)
    expected = summary(whole)
    whole.folder.summary.unlink()
    assert sorted(path.name for path in whole.folder.checkpoints()) == ["checkpoint-30", f"checkpoint-{STEPS}"]
    monkeypatch.undo()
    assert summary(run(run_config, resume=True)) == expected


def test_a_checkpoint_of_another_configuration_is_not_used(run_config, run, broken):
    other = run_config.model_copy(update={"arm": run_config.arm.model_copy(update={"lr": 0.5})})
    outcome = run(other, resume=True)
    aside = RunFolder(broken.path.with_name("seed0.aside-1"))
    assert checkpoints.newest(run_config, aside) is not None
    assert loading.run_config(aside.config) == run_config
    assert read_signals(outcome.folder.history)[0] == {"step": 0, "total_steps": STEPS}
    assert summary(outcome) == summary(run(other, place="whole"))


def state_after(step, callbacks):
    return json.dumps({"global_step": step, "log_history": [], "stateful_callbacks": callbacks})


@pytest.fixture
def two(tmp_path):
    """A folder with two whole checkpoints, as Trainer writes them."""
    for step in (10, 20):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        clock = {"Clock": {"args": {}, "attributes": {"seconds": 1.0}}}
        (checkpoint / "trainer_state.json").write_text(state_after(step, clock))
        (checkpoint / "config.json").write_text("{}")
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            torch.save({"a": torch.arange(1000)}, checkpoint / name)
        save_file({"a": torch.arange(1000)}, checkpoint / "model.safetensors")
    (tmp_path / "history.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in range(0, 25, 5)))
    return RunFolder(tmp_path)


def put(text):
    return lambda path: path.write_text(text)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "trainer_state.json", "config.json")
DAMAGES = [
    *((name, how) for name in FILES for how in (cut, put(""), lambda path: path.write_bytes(bytes(5000)))),
    *((name, os.remove) for name in FILES if name != "config.json"),
    *((name, flip) for name in FILES if name.endswith((".pt", ".pth"))),
    *(
        ("trainer_state.json", put(text))
        for text in (
            *("{}", "[]", "null", "7", '{"global_', '{"global_step": 20}', '{"no_such_field": 1}'),
            state_after(7, {"Clock": {"attributes": {"seconds": 1.0}}}),
            state_after(20, {"Clock": {"attributes": {"seconds": "1"}}}),
            state_after(20, {"Clock": {"attributes": {"seconds": math.nan}}}),
            state_after(20, {"Clock": None}),
            state_after(20, []),
        )
    ),
]


@pytest.mark.parametrize("place", range(len(DAMAGES)))
def test_a_torn_checkpoint_is_told_and_moved_aside_and_the_one_before_it_used(place, run_config, two, caplog):
    name, damage = DAMAGES[place]
    assert checkpoints.newest(run_config, two).name == "checkpoint-20"
    assert not caplog.text
    damage(two.path / "checkpoint-20" / name)
    removed = name == "model.safetensors" and damage is os.remove
    found = checkpoints.newest(run_config, two)
    assert found.name == "checkpoint-10"
    assert f"checkpoint-20 is not whole ({'the weights' if removed else name}" in caplog.text
    checkpoints.rewind(two, found)
    assert (two.path / "torn-checkpoint-20").is_dir()
    assert [row["step"] for row in read_signals(two.history)] == [0, 5, 10, 10]
    damage(two.path / "checkpoint-10" / name)
    assert checkpoints.newest(run_config, two) is None


def test_foreign_folders_are_left_alone(run_config, two):
    names = [
        "checkpoint-",
        "checkpoint-best",
        "checkpoint-20-mine",
        "checkpoint-x9",
        "checkpoint--1",
        "checkpoint-1e3",
    ]
    for name in names:
        (two.path / name).mkdir()
    (two.path / "checkpoint-77").write_text("no folder")
    checkpoints.rewind(two, checkpoints.newest(run_config, two))
    checkpoints.remove(two)
    assert sorted(path.name for path in two.path.iterdir()) == sorted(
        [*names, "checkpoint-77", "history.jsonl", "recipe.yaml"]
    )


def test_what_cannot_be_resumed(run_config, two):
    assert checkpoints.newest(run_config, two) is not None
    assert checkpoints.newest(run_config.model_copy(update={"processes": 2}), two) is None
    assert checkpoints.newest(run_config.model_copy(update={"measure": ["trajectory"]}), two) is None
    for text in ("", '{"step": 0}\n', "no row\n"):
        two.history.write_text(text)
        assert checkpoints.newest(run_config, two) is None
    two.history.unlink()
    assert checkpoints.newest(run_config, two) is None


def test_checkpoints_lie_where_the_losses_are_logged():
    """Else the first loss after a resume would be the mean of fewer steps than in an uninterrupted run."""
    assert checkpoints.saving(25, 10) == {"save_strategy": "steps", "save_steps": 30, "save_total_limit": 2}
    assert checkpoints.saving(20, 10)["save_steps"] == 20
    assert checkpoints.saving(None, 10) == {"save_strategy": "no"}
