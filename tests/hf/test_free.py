"""A Trainer tells EmoFree how long the training is, whether its schedule goes down, and how much it clips."""

import json
import logging
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

import emo_hf
from emo_hf.dashboards import report
from emo_hf.hf.callback import anneals
from emo_hf.hf.feed import find_optimizer


def train(make_trainer, **options):
    trainer = make_trainer(optim="emofree", logging_steps=1, **options)
    trainer.train()
    return trainer, find_optimizer(trainer.optimizer)


@pytest.mark.parametrize(("schedule", "goes_down"), [("linear", True), ("cosine", True), ("constant", None)])
def test_trainer_tells_the_length_and_the_schedule(make_trainer, schedule, goes_down):
    _, optimizer = train(make_trainer, max_steps=9, lr_scheduler_type=schedule)
    assert optimizer.mechanism.warmup == 6
    assert optimizer.mechanism.anneals is goes_down
    assert optimizer.options["lr"] == 1.0


def test_schedules_that_stay_up_are_known():
    assert {name: anneals(name) for name in ("constant_with_warmup", "polynomial", "reduce_lr_on_plateau")} == {
        "constant_with_warmup": None,
        "polynomial": True,
        "reduce_lr_on_plateau": None,
    }


def test_what_was_clipped_is_told(make_trainer, monkeypatch):
    told = []
    monkeypatch.setattr(emo_hf.EmoFree, "note_clipping", lambda self, divisor: told.append(float(divisor)))
    trainer, _ = train(make_trainer, max_steps=4, max_grad_norm=0.5)
    norms = [log["grad_norm"] for log in trainer.state.log_history if "grad_norm" in log]
    assert told == pytest.approx([max(1.0, norm / 0.5) for norm in norms])
    assert max(told) > 1


def test_only_the_optimizer_whose_gradients_were_clipped_is_told():
    accelerator = Accelerator(cpu=True)
    models = [torch.nn.Linear(2, 1) for _ in range(2)]
    optimizers = [emo_hf.EmoFree(model.parameters()) for model in models]
    accelerator.prepare(*optimizers)
    for _ in range(2):  # told once all the same
        emo_hf.attach(accelerator)
    accelerator.backward(sum(model(torch.ones(1, 2)).sum() for model in models))
    norm = accelerator.clip_grad_norm_(models[0].parameters(), 0.1)
    assert float(optimizers[0]._measurement.clipped) == pytest.approx(float(norm) / 0.1)
    assert optimizers[1]._measurement.clipped == 1.0


def test_accumulation_is_a_larger_batch():
    """With clipping, which is told once per step: the same steps, to rounding."""
    seen = []
    for parts in (1, 2):
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=parts)
        generator = torch.Generator().manual_seed(0)
        inputs, targets = (torch.randn(n, generator=generator, dtype=torch.float64) for n in ((8, 3), (8, 1)))
        model = torch.nn.Linear(3, 1, dtype=torch.float64)
        torch.nn.init.constant_(model.weight, 1.0)
        torch.nn.init.zeros_(model.bias)
        optimizer = emo_hf.EmoFree(model.parameters(), total_steps=30)
        model, prepared = accelerator.prepare(model, optimizer)
        for _ in range(30):
            for part in torch.arange(8).chunk(parts):
                with accelerator.accumulate(model):
                    loss = (model(inputs[part]) - targets[part]).square().mean()
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 0.1)
                    prepared.step()
                    prepared.zero_grad()
        assert optimizer.steps == 30
        seen.append((*optimizer.found, *optimizer.signals().log().values()))
    assert seen[0] == pytest.approx(seen[1], rel=1e-9, abs=1e-9)


def test_what_it_found_is_said_once(make_trainer, caplog):
    with caplog.at_level(logging.WARNING):
        _, optimizer = train(make_trainer, max_steps=20)
    first, *said = [message for message in caplog.messages if message.startswith(("emofree", "Step"))]
    assert first == "emofree 1.0: multiplier 1.0, step size to be found within about 19 steps, schedule constant"
    assert said == [f"Step {optimizer.found.steps}: emofree-1.0 {optimizer.found}"]


def test_signals_are_recorded(make_trainer, read_signals):
    trainer, _ = train(make_trainer, max_steps=20)
    rows = read_signals(trainer.args.output_dir)
    assert len(rows) == 20
    own = {"agreement", "agreement_end", "growth", "fall_seen", "fall_predicted", "fall_trust", "steering", "braking"}
    assert {f"emo/{name}" for name in own} <= rows[-1].keys()
    assert (rows[0]["emo/steering"], rows[-1]["emo/steering"]) == (0.0, 1.0)


def test_what_it_found_is_on_record(make_trainer, read_signals):
    """In the run's settings, its report, each checkpoint after the ramp, and the model card."""
    trainer, optimizer = train(make_trainer, max_steps=40, save_strategy="steps", save_steps=20)
    found, folder = optimizer.found, Path(trainer.args.output_dir)
    expected = {
        "emo_found_lr": found.size,
        "emo_found_after": found.steps,
        "emo_found_agreement": [found.highest, found.last],
    }
    assert expected.items() <= json.loads((folder / "emo_run.json").read_text()).items()
    (run,) = report.read([folder])
    assert run.found == found.size
    assert "<dt>found step size</dt>" in report.html([run])
    for step in (20, 40):
        state = json.loads((folder / f"checkpoint-{step}/trainer_state.json").read_text())
        settings = state["stateful_callbacks"]["EmotionCallback"]["attributes"]["settings"]
        assert (expected.items() <= settings.items()) == (step >= found.steps)
    assert read_signals(folder)[found.steps - 1]["emo/lr"] == pytest.approx(found.size, rel=0.6)


def test_a_resumed_training_keeps_what_was_found(make_trainer):
    first, optimizer = train(make_trainer, max_steps=40, save_strategy="steps", save_steps=30)
    folder = Path(first.args.output_dir)
    (folder / "emo_run.json").unlink()
    resumed = make_trainer(optim="emofree", max_steps=40)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-30"))
    assert json.loads((folder / "emo_run.json").read_text())["emo_found_lr"] == optimizer.found.size


def test_the_card_tells_what_was_found(make_trainer):
    trainer = make_trainer(emo_hf.EmoTrainer, optim="emofree", max_steps=20)
    trainer.train()
    trainer.create_model_card()
    found = find_optimizer(trainer.optimizer).found
    card = Path(trainer.args.output_dir, "README.md").read_text()
    assert f"| Found | `{found.size:.2g}` after {found.steps} steps: a learning rate for AdamW |" in card
    assert f"found_lr={found.size}" in card
