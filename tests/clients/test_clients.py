"""Loops that others write, run as they stand: the loss that is heard, and the rate that is logged.

The scripts beside this file have the shape of public ones. None of them knows that it is measured.
"""

import re
import subprocess
import sys
import warnings

import pytest

from emo_hf import registry
from emo_hf.hf import telling
from tests.clients.meter import SCRIPTS, run
from tests.hf.two_processes import on_two_ranks

ADAPTER = ("--optimizer_type", "emo_hf.EmoSens", "--learning_rate", "1.0")
RATES = ("--text_encoder_lr", "0.5", "--unet_lr", "1.0")
CASES = {  # script, arguments, and its optimizer steps on one rank and on two
    "language model": ("language_model", (), 22, 12),
    "language model, accumulated": ("language_model", ("--gradient_accumulation_steps", "4"), 6, 4),
    "classification": ("classification", (), 22, 12),
    "classification, divided by hand": ("classification", ("--gradient_accumulation_steps", "4"), 8, 6),
    "diffusion": ("diffusion", (), 12, 6),
    "diffusion, accumulated": ("diffusion", ("--gradient_accumulation_steps", "4"), 4, 2),
    "adapter": ("adapter", (*ADAPTER, *RATES), 8, 8),
    "adapter, accumulated": ("adapter", (*ADAPTER, *RATES, "--gradient_accumulation_steps", "3"), 8, 8),
}
each_case = pytest.mark.parametrize("name", CASES)


def check_logs(notes):
    """Every rate that was logged is the step size that the group had in the step before."""
    told = 0
    for log, rates in notes.logs:
        for key, group in (("lr", 0), ("learning_rate", 0), ("lr/textencoder", 0), ("lr/unet", 1)):
            if key in log:
                told += 1
                assert log[key] == (rates[group] if rates else 0.0)
    assert told > 1


@each_case
def test_one_rank_hears_the_mean_loss_of_every_step(name):
    script, arguments, steps, _ = CASES[name]
    notes = run(script, *arguments)
    assert len(notes.heard) == notes.steps == steps
    assert len(set(notes.heard)) > 1
    assert notes.heard == pytest.approx(notes.objectives, abs=1e-6)
    check_logs(notes)


@each_case
def test_two_ranks_hear_the_mean_over_both(name, tmp_path):
    script, arguments, _, steps = CASES[name]
    first, second = on_two_ranks(run, tmp_path, script, *arguments)
    assert len(first.heard) == steps
    assert first.heard == second.heard
    assert first.objectives != second.objectives
    means = [sum(pair) / 2 for pair in zip(first.objectives, second.objectives, strict=True)]
    assert first.heard == pytest.approx(means, abs=1e-6)
    assert first.rates == second.rates
    check_logs(first)


SCHEDULES = {
    "constant": ("--lr_scheduler", "constant"),
    "constant_with_warmup": ("--lr_scheduler", "constant_with_warmup", "--lr_warmup_steps", "3"),
    "cosine": ("--lr_scheduler", "cosine", "--lr_warmup_steps", "2"),
    "of torch": ("--lr_scheduler_type", "CosineAnnealingLR", "--lr_scheduler_args", "T_max=8"),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rates_of_both_groups_are_logged_as_they_were(schedule):
    notes = run("adapter", *ADAPTER, *RATES, *SCHEDULES[schedule])
    check_logs(notes)
    for log, _ in notes.logs:
        assert (log["lr/textencoder"], log["lr/unet"]) == (log["effective/textencoder"], log["effective/unet"])
        assert "lr/d*lr/unet" not in log
        assert log["lr/unet"] == pytest.approx(2 * log["lr/textencoder"])
    pulses = [rates[1] for rates in notes.rates]
    assert len(set(pulses)) == len(pulses)  # the emotion moves them, whatever the schedule


def test_a_loop_that_is_resumed_goes_on(tmp_path):
    options = ("--output_dir", str(tmp_path), "--checkpointing_steps", "6")
    whole = run("diffusion", *options)
    rest = run("diffusion", *options, "--resume_from_checkpoint", str(tmp_path / "checkpoint-6"))
    assert (whole.steps, rest.steps, len(rest.heard)) == (12, 12, 6)
    assert rest.heard == pytest.approx(rest.objectives, abs=1e-6)
    check_logs(rest)
    assert rest.heard == whole.heard[6:]
    assert rest.rates == whole.rates[6:]


NEWEST = ("emosens", "emoairy", "emocats", "emotion", "emovoid")
HABITS = ("weight_decay=0.01", "eps=1e-8", "betas=(0.9,0.99)", "use_shadow=True", "stopcoef=0.04", "notify=False")


@pytest.mark.parametrize("name", NEWEST)
def test_the_options_that_people_pass_are_taken(name, capfd, monkeypatch):
    monkeypatch.setattr(telling.logger, "disabled", True)  # how it starts is said in any case
    spec = registry.find(name)
    arguments = ("--optimizer_type", f"emo_hf.{registry.optimizer_class(name).__name__}", *ADAPTER[2:], *RATES)
    ignored = {*spec.dead} & {each.partition("=")[0] for each in HABITS}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        notes = run("adapter", *arguments, "--optimizer_args", *HABITS)
    assert len(notes.heard) == 8
    named = [set(re.findall(r"(\w+)=", str(each.message))) for each in said]
    assert named == ([ignored] if ignored else [])
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_script_that_names_the_class_only_on_its_command_line_is_fed():
    command = [sys.executable, str(SCRIPTS / "adapter.py"), *ADAPTER, *RATES, "--optimizer_args", "notify=False"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)
    assert done.stderr.startswith("emosens 3.9: multiplier 0.5 to 1.0, ")
