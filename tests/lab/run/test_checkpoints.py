"""Runs that broke off and go on from a checkpoint. What trains, trains for real, on the shipped sentences."""

import contextlib
import json
import os
import signal

import pytest

from emo_hf.dashboards import read_signals
from emo_hf.lab.recipe import loading
from emo_hf.lab.run import checkpoints, runner
from emo_hf.lab.run.runner import Settings
from emo_hf.run_folder import RunFolder
from tests.hf.tiny_gpt2 import OLD

STEPS = 40


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
        if (under_way.folder.path / "checkpoint-20" / "trainer_state.json").exists():
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
    outcome = run(run_config, kill, save_every=10)
    monkeypatch.undo()
    assert outcome.error == "killed by SIGKILL (out of memory?)"
    return outcome.folder


def test_a_resumed_run_ends_like_an_uninterrupted_one(run_config, run, broken):
    torn = broken.path / "checkpoint-30"  # from another kill, in the middle of a save
    torn.mkdir(exist_ok=True)
    (torn / "trainer_state.json").write_text('{"global_')
    whole, resumed = run(run_config, place="whole"), run(run_config, resume=True)
    assert resumed.folder == broken
    assert summary(resumed) == summary(whole)
    assert history(resumed) == history(whole)
    assert not list(broken.checkpoints())
    assert os.listdir(broken.path.parent) == [broken.path.name]  # nothing was moved aside


def test_a_run_killed_after_its_last_step(run_config, run, monkeypatch):
    monkeypatch.setattr(checkpoints, "remove", lambda folder: None)
    whole = run(run_config, save_every=15)
    expected = summary(whole)
    whole.folder.summary.unlink()
    assert [path.name for path in whole.folder.checkpoints()] == [f"checkpoint-{STEPS}"]
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


def test_what_cannot_be_resumed(run_config, tmp_path):
    folder = RunFolder(tmp_path)
    checkpoint = tmp_path / "checkpoint-10"
    assert checkpoints.newest(run_config, folder) is None
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text("{}")
    assert checkpoints.newest(run_config, folder) is None  # no state of the random numbers
    (checkpoint / "rng_state.pth").touch()
    assert checkpoints.newest(run_config, folder) == checkpoint
    assert checkpoints.newest(run_config.model_copy(update={"processes": 2}), folder) is None
    assert checkpoints.newest(run_config.model_copy(update={"measure": ["trajectory"]}), folder) is None


def test_checkpoints_lie_where_the_losses_are_logged():
    """Else the first loss after a resume would be the mean of fewer steps than in an uninterrupted run."""
    assert checkpoints.saving(25, 10) == {"save_strategy": "steps", "save_steps": 30, "save_total_limit": 1}
    assert checkpoints.saving(20, 10)["save_steps"] == 20
    assert checkpoints.saving(None, 10) == {"save_strategy": "no"}
