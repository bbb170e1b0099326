"""What goes wrong in a training: it goes on or stops with a clear error, and what was saved before is whole."""

import contextlib
import math
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer_utils import get_last_checkpoint

from emo_hf.dashboards import read_signals, report
from emo_hf.errors import CheckpointError, NonFiniteLossError
from emo_hf.hf import telling
from emo_hf.hf.feed import find_optimizer
from tests import ROOT

pytestmark = pytest.mark.slow

HERE = str(ROOT)
SAVING = {"max_steps": 12, "save_strategy": "steps", "save_steps": 4}
BAD = 7  # the step whose loss is not finite


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def said(caplog: pytest.LogCaptureFixture, level: str) -> list[str]:
    """Returns the messages of a level, without the line of every start."""
    ours = [log for log in caplog.records if log.levelname == level and log.name.startswith("emo_hf")]
    return [log.message for log in ours if log.name != telling.__name__]


def without_clock(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "emo/step_seconds"}


# -- a loss that is not finite ---------------------------------------------------------------------------------------


def bad_at(value: float) -> type[Trainer]:
    class Bad(Trainer):
        """Its loss is `value` at one step. It keeps the weights that it had before."""

        def compute_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            bad = self.state.global_step == BAD - 1
            if bad:
                self.before = weights(self)
            return super().compute_loss(*args, **kwargs) * (value if bad else 1.0)

    return Bad


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (math.nan, {"logging_nan_inf_filter": True}),
        (math.inf, {"logging_nan_inf_filter": False, "gradient_accumulation_steps": 2}),
        (-math.inf, {"max_grad_norm": 1.0}),
        (math.nan, {"optim": "adamw_torch", "lr_scheduler_type": "emopulse"}),
    ],
    ids=str,
)
def test_raise_stops_before_anything_changes(value, options, make_trainer, read_signals, tmp_path):
    straight = make_trainer(**options, **SAVING, output_dir=str(tmp_path / "straight"))
    straight.train()
    trainer = make_trainer(bad_at(value), **options, **SAVING)
    with pytest.raises(NonFiniteLossError, match=f"got a loss of {value}. Nothing was changed. Look for"):
        trainer.train()
    assert equal(weights(trainer), trainer.before)
    assert [row["step"] for row in read_signals(trainer.args.output_dir)] == list(range(1, BAD))
    resumed = make_trainer(**options, **SAVING)
    resumed.train(resume_from_checkpoint=True)
    assert equal(weights(resumed), weights(straight))
    assert len(read_signals(trainer.args.output_dir)) == 12


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_skip_leaves_the_step_out(value, filtered, make_trainer, read_signals, caplog):
    class After(TrainerCallback):
        def on_step_end(self, args: Any, state: TrainerState, *_: Any, optimizer: Any, **__: Any) -> None:
            if state.global_step in (BAD - 1, BAD):
                emotion.append(find_optimizer(optimizer).param_groups[0]["emo"])
            if state.global_step == BAD:
                assert equal(weights(trainer), trainer.before)

    emotion: list[tuple[float, ...]] = []
    options = {"optim_args": "on_nonfinite_loss=skip", "logging_nan_inf_filter": filtered, **SAVING}
    trainer = make_trainer(bad_at(value), trainer={"callbacks": [After()]}, **options)
    trainer.train()
    assert trainer.state.global_step == 12
    before, after = emotion
    assert [one - other for one, other in zip(after, before, strict=True)].count(0) == len(after) - 1
    assert find_optimizer(trainer.optimizer).skipped_steps == 1
    assert [row["step"] for row in read_signals(trainer.args.output_dir)] == [*range(1, BAD), *range(BAD + 1, 13)]
    (line,) = said(caplog, "WARNING")
    assert line.startswith(f"emosens-3.9: the loss of step {BAD} is not finite")
    logged = {log["step"]: log["loss"] for log in trainer.state.log_history if "loss" in log}
    assert math.isfinite(logged[BAD]) == filtered
    assert all(torch.isfinite(weight).all() for weight in weights(trainer))


@pytest.mark.parametrize("options", [{}, {"optim": "adamw_torch", "lr_scheduler_type": "emopulse"}], ids=str)
def test_a_batch_whose_labels_are_all_masked_does_not_end_a_training(options, make_trainer, read_signals, caplog):
    class Masked(Trainer):
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
            if self.state.global_step == BAD - 1:
                inputs["labels"] = torch.full_like(inputs["labels"], -100)
            kwargs.pop("num_items_in_batch", None)
            return super().compute_loss(model, inputs, *args, **kwargs)

    trainer = make_trainer(Masked, **options, **SAVING)
    trainer.train()
    assert trainer.state.global_step == 12
    assert [row["step"] for row in read_signals(trainer.args.output_dir)] == [*range(1, BAD), *range(BAD + 1, 13)]
    (line,) = said(caplog, "WARNING")
    assert f"the loss of step {BAD} is not finite, as that of a batch whose labels are all masked" in line


# -- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["optimizer.pt", "scheduler.pt"])  # without one, Trainer loads neither
def test_stacking_is_said_once(lost, make_trainer, caplog):
    make_trainer(**SAVING).train()
    trainer = make_trainer(**SAVING)
    checkpoint = Path(trainer.args.output_dir) / "checkpoint-8"
    (checkpoint / lost).unlink()
    caplog.clear()
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert said(caplog, "WARNING") == [
        "The training resumes at step 8 without a state of the optimizer: its emotion (loss averages, pulse, stop "
        "signal) and its moments start anew from the saved weights."
    ]
    assert find_optimizer(trainer.optimizer).steps == 4


def test_a_fresh_start_from_saved_weights_needs_no_word(make_trainer, tmp_path, caplog):
    first = make_trainer(**SAVING)
    first.train()
    saved = Path(first.args.output_dir) / "checkpoint-12" / "model.safetensors"
    trainer = make_trainer(max_steps=1, output_dir=str(tmp_path / "second"))
    trainer.model.load_state_dict(load_file(saved), strict=False)  # the tied head is not in it
    assert equal(weights(trainer), weights(first))
    caplog.clear()
    trainer.train()
    assert not said(caplog, "WARNING")
    assert find_optimizer(trainer.optimizer).steps == 1


@pytest.mark.parametrize("other", ["emolynx", "emosens-3.8", "adamw_torch"])
def test_a_checkpoint_of_another_optimizer_is_refused_with_both_names(other, make_trainer):
    make_trainer(optim=other, **{**SAVING, "max_steps": 4}).train()
    name = {"emolynx": "emolynx-3.6", "adamw_torch": "another optimizer"}.get(other, other)
    with pytest.raises(CheckpointError, match=f"state is of {name}, this optimizer is emosens-3.9. Continue with"):
        make_trainer(**SAVING).train(resume_from_checkpoint=True)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
from tests.hf.tiny_gpt2 import make_data, make_model
from transformers import Trainer, TrainingArguments
import emo_hf

args = TrainingArguments("run", optim="emosens", lr_scheduler_type="constant", max_steps=12, save_steps=4,
                         use_cpu=True, per_device_train_batch_size=2, max_grad_norm=0.0, logging_steps=1,
                         report_to=[], disable_tqdm=True, dataloader_pin_memory=False)
save = torch.save

def save_half(content, path):
    save(content, path)
    if "checkpoint-8/optimizer.pt" in path:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

torch.save = save_half
Trainer(make_model(), args, train_dataset=make_data()).train()
"""


def test_kill_9_during_a_save(make_trainer, run_python, tmp_path):
    (tmp_path / "train.py").write_text(KILLED)
    assert run_python("train.py", HERE, ok=False).returncode == -signal.SIGKILL
    out = tmp_path / "run"
    killed = read_signals(out / "emo_signals.jsonl")
    assert [row["step"] for row in killed] == list(range(1, 9))

    torn = Path(get_last_checkpoint(out))
    assert torn.name == "checkpoint-8"
    with pytest.raises(FileNotFoundError, match=r"checkpoint-8/trainer_state\.json"):  # Trainer writes it last
        make_trainer(**SAVING).train(resume_from_checkpoint=True)
    torn.rename(out / "torn-8")
    make_trainer(**SAVING).train(resume_from_checkpoint=True)
    rows = read_signals(out / "emo_signals.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [without_clock(row) for row in rows[:8]] == [without_clock(row) for row in killed]  # the same 5 to 8


# -- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() or (done := subprocess.run(mount, capture_output=True, text=True)).returncode:
        pytest.skip("no right to mount a tmpfs" if os.geteuid() else f"mount: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


class Fill(TrainerCallback):
    """Fills the disk at the end of step 5."""

    def __init__(self, disk: Path) -> None:
        self.filler = disk / "filler"

    def on_step_end(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step == 5:
            with contextlib.suppress(OSError), self.filler.open("wb", buffering=0) as file:
                while file.write(b"\0" * 4096):
                    pass


@pytest.mark.parametrize("strategy", ["no", "steps"])
def test_a_full_disk(strategy, small_disk, make_trainer, caplog):
    options = {**SAVING, "save_strategy": strategy, "output_dir": str(small_disk / "run")}
    trainer = make_trainer(trainer={"callbacks": [fill := Fill(small_disk)]}, **options)
    if strategy == "steps":
        with pytest.raises(Exception, match="No space left on device"):
            trainer.train()
    else:
        trainer.train()
    assert trainer.state.global_step == (8 if strategy == "steps" else 12)
    out, errors = small_disk / "run", said(caplog, "ERROR")
    recorded = [row["step"] for row in read_signals(out / "emo_signals.jsonl")]
    assert recorded == list(range(1, recorded[-1] + 1))  # a few more fit into the last page
    assert errors[0].startswith(
        f"Step {recorded[-1] + 1} cannot be recorded in {out / 'emo_signals.jsonl'}: [Errno 28]"
    )
    assert len(errors) == (1 if strategy == "steps" else 2)  # the other: trainer_state.json at the end
    assert not list(out.glob("trainer_state.json*"))  # whole or not there
    assert report.read([out])[0].steps == recorded[-1]
    fill.filler.unlink()
    if strategy == "steps":
        subprocess.run(["rm", "-r", str(out / "checkpoint-8")], check=True)
        resumed = make_trainer(**options)
        resumed.train(resume_from_checkpoint=True)
        assert [row["step"] for row in read_signals(out / "emo_signals.jsonl")] == list(range(1, 13))


# -- W&B -------------------------------------------------------------------------------------------------------------


DYING = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from tests.hf.tiny_gpt2 import make_data, make_model
from transformers import Trainer, TrainerCallback, TrainingArguments
import emo_hf

class Kill(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step != 5:
            return
        for task in os.listdir("/proc/self/task"):
            for child in open(f"/proc/self/task/{task}/children").read().split():  # W&B's service
                os.kill(int(child), signal.SIGKILL)
                print("killed", flush=True)
        time.sleep(0.3)

args = TrainingArguments("run", optim="emosens", lr_scheduler_type="constant", max_steps=12, save_steps=4,
                         use_cpu=True, per_device_train_batch_size=2, max_grad_norm=0.0, logging_steps=1,
                         report_to=["wandb"], disable_tqdm=True, dataloader_pin_memory=False)
Trainer(make_model(), args, train_dataset=make_data(), callbacks=[Kill()]).train()
"""


def test_w_and_b_dies(make_trainer, run_python, read_signals, tmp_path):
    (tmp_path / "train.py").write_text(DYING)
    done = run_python("train.py", HERE)
    assert "killed" in done.stdout
    assert done.stderr.count("W&B failed and gets no more signals") == 1
    assert "the training goes on" in done.stderr
    assert [row["step"] for row in read_signals(tmp_path / "run")] == list(range(1, 13))
    resumed = make_trainer(**{**SAVING, "max_steps": 13})
    resumed.train(resume_from_checkpoint=True)
    assert [row["step"] for row in read_signals(tmp_path / "run")] == list(range(1, 14))
