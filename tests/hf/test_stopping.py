"""What `EmotionCallback` does when its optimizer is ready to stop, by the rules of the optimizers themselves."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from transformers import Trainer, TrainerControl, TrainerState
from transformers.trainer_utils import get_last_checkpoint

from emo_hf import registry
from emo_hf.dashboards import report
from emo_hf.dashboards.diagnosis import diagnose
from emo_hf.errors import OptionError
from emo_hf.hf import EmotionCallback, EmoTrainer, registration
from emo_hf.hf.feed import keep_own_loss
from emo_hf.hf.stopping import Reaction
from tests.hf.tiny_gpt2 import make_data

pytestmark = pytest.mark.slow

READY = {"optim_args": "stopcoef=100"}  # a loss that is always low enough: ready once the noise has died down
READY_AT = 37  # the first such step


def easy_data() -> list[dict[str, torch.Tensor]]:
    """Half of the 32 tokens: a loss of 2.8 is there to be reached from 3.5."""
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randint(1, 17, (8,), generator=generator) for _ in range(40)]
    return [{"input_ids": row, "labels": row.clone()} for row in rows]


def reacting(on_ready: str, patience: int = 1, **parts: Any) -> dict[str, Any]:
    """Arguments of a Trainer beside its TrainingArguments."""
    return {"callbacks": [EmotionCallback(on_ready=on_ready, patience=patience)], **parts}


def graded(loss: Callable[[int], float]) -> type[Trainer]:
    """A Trainer whose evaluation at a step costs nothing and gives ``loss(step)``."""

    class Graded(Trainer):
        def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            metrics = {"eval_loss": loss(self.state.global_step)}
            self.log(metrics)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    return Graded


def record(state: Path | TrainerState) -> dict[str, Any]:
    saved = state if isinstance(state, TrainerState) else TrainerState.load_from_json(state / "trainer_state.json")
    return saved.stateful_callbacks["EmotionCallback"]["attributes"]["ready"]


# -- when ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patience", "ready", "saves"),
    [
        (1, "00100110", [3, 6]),
        (2, "10101010", []),
        (2, "110101111", [2]),  # one step down does not end a cluster
        (2, "1100110011", [2, 6, 10]),
        (3, "0110111111000111", [7, 16]),
    ],
)
def test_a_cluster_begins_and_ends_after_patience_steps(patience, ready, saves, make_args):
    optimizer = registry.build("emosens", [torch.nn.Parameter(torch.ones(1))])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(1)
    optimizer.step(loss=1.0)
    reaction, state, made = Reaction("save", patience), TrainerState(), []
    reaction.begin(state)
    for state.global_step, up in enumerate(ready, start=1):
        control = TrainerControl()
        reaction.observe(make_args(), state, control, replace(optimizer.signals(), ready=float(up)), "emosens-3.9")
        if control.should_save:
            made.append(state.global_step)
            reaction.after_save(make_args(), state)
    assert made == saves
    assert record(state)["clusters"] == len(saves)


@pytest.mark.parametrize(
    "options", [{"on_ready": "halt"}, {"on_ready": None}, {"patience": 0}, {"patience": 1.5}, {"patience": True}]
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(OptionError, match=r"expected on_ready to be one of log, save, stop, and patience"):
        EmotionCallback(**options)


def test_a_patience_of_numpy_is_a_number():
    reaction = Reaction("log", np.int64(3))
    assert type(reaction.patience) is int


# -- stop ------------------------------------------------------------------------------------------------------------


def test_the_training_ends_where_both_margins_have_held_and_says_why(make_trainer, read_signals, caplog):
    trainer = make_trainer(
        EmoTrainer,
        reacting("stop", patience=3, train_dataset=easy_data()),
        learning_rate=2.0,
        optim_args="stopcoef=2.9",
        max_steps=150,
        per_device_train_batch_size=4,
        logging_steps=100,
    )
    trainer.train()
    out, rows = Path(trainer.args.output_dir), read_signals(trainer.args.output_dir)
    calm = [row["emo/distance"] - row["emo/noise"] >= 0.3 for row in rows]
    low = [row["emo/ema_medium"] <= 2.9 for row in rows]
    both = [one and other for one, other in zip(calm, low, strict=True)]
    assert both[-3:] == [True] * 3
    assert not any(all(both[i : i + 3]) for i in range(len(both) - 3))
    assert sum(calm) > sum(both) > 0  # the loss, too, had to be waited for
    step = trainer.state.global_step
    assert len(rows) == step < 150
    assert [log["step"] for log in trainer.state.log_history if "loss" in log] == [step]

    latest = record(out)["latest"]
    assert (latest["step"], latest["action"]) == (step, "stop")
    margin = f"distance - noise = {rows[-1]['emo/distance'] - rows[-1]['emo/noise']:.3g} >= 0.3"
    loss = f"loss average {rows[-1]['emo/ema_medium']:.3g} <= stopcoef = 2.9"
    assert latest["reason"] == f"emosens-3.9 was ready to stop at 3 steps in a row: {margin}, {loss}"
    (said,) = [log.message for log in caplog.records if "ready to stop" in log.message]
    assert said == f"Step {step}: {latest['reason']}. The training ends."

    assert diagnose(*report.read([out]))[0].text == f"Stopped at step {step}: ready for 3 steps."

    trainer.create_model_card()
    card = f"\n## Optimizer\n\nTrained with `emosens-3.9` of emo_hf. Stopped at step {step}: {latest['reason']}.\n"
    assert (out / "README.md").read_text().count(card) == 1


@pytest.mark.parametrize(("optim", "text"), [("emosens", "\nTrained with `emosens-3.9` of emo_hf.\n"), ("sgd", "")])
def test_a_card_of_a_training_that_was_not_stopped(optim, text, make_trainer):
    trainer = make_trainer(EmoTrainer, optim=optim, max_steps=1)
    trainer.train()
    trainer.create_model_card()
    card = (Path(trainer.args.output_dir) / "README.md").read_text()
    assert text in card
    assert "Stopped at step" not in card
    assert ("## Optimizer" in card) == bool(text)


@pytest.mark.parametrize(
    ("strategy", "evaluated", "saved"),
    [
        ("steps", [30, READY_AT], [30, READY_AT]),
        ("epoch", [10, 20, 30, READY_AT], [10, 20, 30, READY_AT]),  # at the end of the epoch that is cut short
        ("no", [], []),
    ],
)
def test_the_last_step_can_be_the_best(strategy, evaluated, saved, make_trainer):
    trainer = make_trainer(
        graded(lambda step: 1 / step),  # every evaluation is better than the one before
        reacting("stop", eval_dataset=make_data(2)),
        **READY,
        max_steps=60,
        eval_strategy=strategy,
        save_strategy=strategy,
        eval_steps=30,
        save_steps=30,
        load_best_model_at_end=strategy != "no",
    )
    trainer.train()
    out = Path(trainer.args.output_dir)
    assert trainer.state.global_step == READY_AT
    assert [log["step"] for log in trainer.state.log_history if "eval_loss" in log] == evaluated
    assert sorted(int(path.name.split("-")[1]) for path in out.glob("checkpoint-*")) == saved
    if saved:
        assert Path(trainer.state.best_model_checkpoint).name == f"checkpoint-{READY_AT}"


@pytest.mark.parametrize("restore", [False, True], ids=["", "restore_callback_states"])
def test_a_resume_trains_on_exactly(restore, make_trainer, read_signals, tmp_path):
    options = {**READY, "max_steps": 45, "save_strategy": "steps", "save_steps": 30}

    def make(on_ready: str, name: str) -> Trainer:
        output = {"output_dir": str(tmp_path / name), "restore_callback_states_from_checkpoint": restore}
        return make_trainer(trainer=reacting(on_ready, patience=7), **options, **output)

    straight = make("log", "straight")
    straight.train()
    stopped = make("stop", "halves")
    stopped.train()
    assert stopped.state.global_step == READY_AT + 6
    resumed = make("stop", "halves")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 45
    if Version(transformers.__version__).major >= 5:  # 4.57 resumes inexactly after the first epoch, AdamW as well
        for one, other in zip(resumed.model.parameters(), straight.model.parameters(), strict=True):
            assert torch.equal(one, other)
    assert len(read_signals(tmp_path / "halves")) == 45
    assert record(tmp_path / "halves")["latest"]["step"] == READY_AT + 6  # not a second time
    assert "emo_stopped_at" not in (tmp_path / "halves" / "emo_run.json").read_text()  # it went on to its end


@pytest.mark.parametrize(("patience", "end"), [(7, READY_AT + 6), (2, READY_AT + 3)])
def test_ready_steps_before_a_checkpoint_count(patience, end, make_trainer):
    options = {**READY, "max_steps": 48, "save_strategy": "steps", "save_steps": READY_AT + 2}
    make_trainer(trainer=reacting("stop", patience=7), **options).train()
    trainer = make_trainer(trainer=reacting("stop", patience=patience), **options)
    trainer.train(resume_from_checkpoint=str(Path(trainer.args.output_dir) / f"checkpoint-{READY_AT + 2}"))
    assert trainer.state.global_step == end


@pytest.mark.parametrize("way", ["wrap", "callback"])
def test_emopulse_stops_as_well(way, make_trainer, read_signals):
    if way == "callback":
        registration.remove_patches()
    options = {"optim": "adamw_torch", "lr_scheduler_type": "emopulse", "lr_scheduler_kwargs": {"stopcoef": 100.0}}
    trainer = make_trainer(trainer=reacting("stop"), **options, max_steps=60)
    trainer.train()
    shares = [row["emo/stop_share"] for row in read_signals(trainer.args.output_dir)]
    assert shares == [0] * (trainer.state.global_step - 1) + [1]
    assert "emopulse-3.9 was ready" in record(Path(trainer.args.output_dir))["latest"]["reason"]


def test_a_generation_without_margins_stops_by_its_own_law(make_trainer):
    trainer = make_trainer(trainer=reacting("stop"), optim="emosens-3.7", learning_rate=0.1, max_steps=80)
    trainer.train()
    assert 32 <= trainer.state.global_step < 80
    assert "emosens-3.7 was ready to stop at 1 step: scalar" in record(trainer.state)["latest"]["reason"]


# -- save and log ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:mtime may not be reliable")  # of transformers 4.57, after a quick training
def test_a_kept_checkpoint_survives_the_rotation(make_trainer, read_signals):
    options = {**READY, "max_steps": 45, "save_strategy": "steps", "save_steps": 10, "save_total_limit": 1}
    trainer = make_trainer(trainer=reacting("save", patience=2), **options)
    trainer.train()
    out, kept = Path(trainer.args.output_dir), READY_AT + 1
    assert trainer.state.global_step == 45  # it did not stop
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["checkpoint-45", f"ready-{kept}"]
    assert get_last_checkpoint(out) == str(out / "checkpoint-45")
    assert record(out / f"ready-{kept}")["latest"]["step"] == kept
    resumed = make_trainer(trainer=reacting("save", patience=2), **options)
    resumed.train(resume_from_checkpoint=str(out / f"ready-{kept}"))
    assert resumed.state.global_step == 45
    assert len(read_signals(out)) == 45


def test_save_needs_no_save_strategy(make_trainer):
    trainer = make_trainer(trainer=reacting("save"), **READY, max_steps=READY_AT + 2)
    trainer.train()
    (checkpoint,) = Path(trainer.args.output_dir).glob("*-*/")
    assert checkpoint.name == f"checkpoint-{READY_AT}"


def test_a_checkpoint_that_cannot_be_kept_is_said(make_trainer, monkeypatch, caplog):
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("emo_hf.hf.stopping.shutil.copytree", full)
    trainer = make_trainer(trainer=reacting("save"), **READY, max_steps=READY_AT + 2, save_total_limit=1)
    trainer.train()
    assert trainer.state.global_step == READY_AT + 2
    (said,) = [log.message for log in caplog.records if log.levelname == "ERROR"]
    assert said == f"The checkpoint of step {READY_AT} cannot be kept: [Errno 28] No space left on device"


def test_save_is_not_lost_where_only_the_best_are_saved(make_trainer):
    kept = READY_AT + 1
    trainer = make_trainer(
        graded(lambda step: step),  # the first evaluation is the best
        reacting("save", patience=2, eval_dataset=make_data(2)),
        **READY,
        max_steps=kept + 2,
        eval_strategy="steps",
        eval_steps=kept // 2,
        save_strategy="best",
        metric_for_best_model="loss",
    )
    trainer.train()
    names = {path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*")}
    assert names == {f"checkpoint-{kept // 2}", f"checkpoint-{kept + 1}"}  # Trainer overrules where it evaluates


def test_log_says_it_once_and_goes_on(make_trainer, caplog):
    trainer = make_trainer(**READY, max_steps=READY_AT + 3)  # the callback that comes by itself
    trainer.train()
    (said,) = [log.message for log in caplog.records if "ready to stop" in log.message]
    assert said.endswith("The training goes on (on_ready='stop' would end it).")
    assert record(trainer.state)["latest"]["action"] == "log"


# -- two ranks -------------------------------------------------------------------------------------------------------


def test_two_ranks_decide_the_same(tmp_path):
    here = Path(__file__).parent
    path = os.pathsep.join(filter(None, (str(here.parents[1]), os.environ.get("PYTHONPATH"))))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(here / "stop_script.py")]
    result = subprocess.run(
        [sys.executable, *launch],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    names = ("stop", "save", "skip")
    stop, save, skip = ([torch.load(tmp_path / f"{name}-{rank}.pt") for rank in (0, 1)] for name in names)
    steps = [rank["step"] for rank in stop]
    assert steps[0] == steps[1] < 45
    assert all(torch.equal(one, other) for one, other in zip(stop[0]["weights"], stop[1]["weights"], strict=True))
    alone = [first_cluster(rank["local"]) for rank in save]
    assert alone[0] is not None  # by its own loss, the first rank would have stopped
    assert alone[1] is None  # and the second would not
    assert (tmp_path / "stop" / f"checkpoint-{steps[0]}").is_dir()
    assert result.stderr.count("The training ends.") == 1

    assert [rank["step"] for rank in save] == [45, 45]
    (kept,) = (tmp_path / "save").glob("ready-*")
    assert kept.name == f"ready-{steps[0]}"
    assert {"rng_state_0.pth", "rng_state_1.pth", "trainer_state.json"} <= {file.name for file in kept.iterdir()}

    assert [sum(map(math.isnan, rank["local"])) for rank in skip] == [0, 1]  # a loss of one rank is not finite:
    assert [rank["skipped"] for rank in skip] == [1, 1]  # both leave the step out
    assert all(torch.equal(one, other) for one, other in zip(skip[0]["weights"], skip[1]["weights"], strict=True))
    assert all(torch.isfinite(weight).all() for weight in skip[0]["weights"])


def first_cluster(losses: list[float], patience: int = 2) -> int | None:
    """The step at which an optimizer that gets ``losses`` has been ready at ``patience`` steps in a row."""
    optimizer, ready = registry.build("emosens", [torch.nn.Parameter(torch.ones(1))], stopcoef=6.0), []
    for loss in losses:
        optimizer.step(loss=loss)
        ready.append(optimizer.should_stop)
    found = (step for step in range(patience, len(ready) + 1) if all(ready[step - patience : step]))
    return next(found, None)


@pytest.mark.parametrize("on_ready", ["save", "stop"])
def test_ranks_with_a_signal_of_their_own_may_only_log(on_ready, make_trainer):
    callback = EmotionCallback(on_ready=on_ready)
    trainer = make_trainer(trainer={"callbacks": [callback]}, max_steps=2)
    keep_own_loss(trainer.accelerator)
    with pytest.raises(OptionError, match=f"on_ready='{on_ready}' got local_sgd_steps.*Use on_ready='log'"):
        trainer.train()
