"""A plain Trainer that resumes from a checkpoint of any spec of the registry continues bit for bit."""

from pathlib import Path

import pytest
import torch

from emo_hf import registry
from emo_hf.errors import CheckpointError
from emo_hf.hf import EmotionCallback, registration
from tests.optimizer_contract import every_row, same, without_3_1_warning

pytestmark = pytest.mark.slow

STEPS, HALF = 20, 10
SAVING = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": HALF}


def outcome(trainer, read_signals):
    """Returns all that a training leaves, but for what the clock says."""
    rows = read_signals(trainer.args.output_dir)
    return {
        "weights": {name: p.detach().clone() for name, p in trainer.model.named_parameters()},
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.lr_scheduler.state_dict(),
        "logs": [log for log in trainer.state.log_history if "loss" in log],
        "rows": [{name: value for name, value in spec.items() if name != "emo/step_seconds"} for spec in rows],
    }


@every_row
@without_3_1_warning
def test_every_row_resumes_bit_for_bit(spec, make_trainer, read_signals):
    options = {"optim": spec.key, "lr_scheduler_type": "linear", **SAVING}
    if "use_shadow" in spec.options:
        options["optim_args"] = "use_shadow=true"
    trainer = make_trainer(**options)
    trainer.train()
    straight = outcome(trainer, read_signals)
    resumed = make_trainer(**options)  # in the same folder: the second half of the record is written again
    checkpoint = Path(trainer.args.output_dir) / f"checkpoint-{HALF}"
    resumed.train(resume_from_checkpoint=str(checkpoint))
    halves = outcome(resumed, read_signals)

    assert len(straight["logs"]) == len(straight["rows"]) == STEPS
    assert not same(straight["logs"][HALF - 1]["learning_rate"], straight["logs"][-1]["learning_rate"])
    for part in straight:
        assert same(halves[part], straight[part]), part
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    assert all(group["optimizer"] == spec.key and type(group["emo"]) is tuple for group in saved["param_groups"])


@pytest.fixture
def checkpoint(make_trainer):
    """Returns a function that trains with some options for a step and returns its checkpoint."""

    def train(**options):
        trainer = make_trainer(max_steps=1, save_strategy="steps", save_steps=1, **options)
        trainer.train()
        return Path(trainer.args.output_dir) / "checkpoint-1"

    return train


@pytest.mark.parametrize("saved", ["emosens-3.8", "emonavi-3.6", "adamw_torch"])
def test_checkpoint_of_another_row_or_version_is_refused_and_both_are_named(saved, checkpoint, make_trainer):
    path = checkpoint(optim=saved)
    name = "another optimizer" if saved == "adamw_torch" else saved
    with pytest.raises(CheckpointError, match=rf"is of {name}, this optimizer is emosens-3\.9\."):
        make_trainer(max_steps=2).train(resume_from_checkpoint=str(path))


@pytest.mark.parametrize("optim", ["emosens", "adamw_torch"])
@pytest.mark.parametrize("way", ["wrap", "callback"])
def test_without_optimizer_state_the_emotion_starts_anew_and_it_is_said(
    optim, way, checkpoint, make_trainer, read_signals, caplog
):
    if way == "callback":
        registration.remove_patches()
    parts = {"callbacks": [EmotionCallback()] if way == "callback" else []}
    schedule = "constant" if optim == "emosens" else "emopulse"
    options = {"optim": optim, "lr_scheduler_type": schedule, "trainer": parts}
    path = checkpoint(**options)
    (path / "optimizer.pt").unlink()
    trainer = make_trainer(max_steps=3, **options)
    trainer.train(resume_from_checkpoint=str(path))
    (warning,) = (record.message for record in caplog.records if "start anew" in record.message)
    assert "resumes at step 1 " in warning
    rows = read_signals(trainer.args.output_dir)
    assert [spec["step"] for spec in rows] == [1, 2, 3]
    assert rows[1]["emo/ema_long"] == pytest.approx(rows[1]["emo/loss"])


@pytest.mark.parametrize("options", [{}, {"optim": "adamw_torch", "lr_scheduler_type": "emopulse"}], ids=str)
def test_resume_with_optimizer_state_says_nothing(options, checkpoint, make_trainer, caplog):
    resumed = make_trainer(max_steps=3, restore_callback_states_from_checkpoint=True, **options)
    with caplog.at_level("WARNING", "transformers.trainer"):
        resumed.train(resume_from_checkpoint=str(checkpoint(**options)))
    assert "start anew" not in caplog.text
    assert "Ignoring" not in caplog.text


def test_registry_has_the_specs_that_are_counted_on():
    assert len(registry.specs()) == 36
