"""The line at the start of a training: once, whatever trains, and with the numbers that are used."""

import copy
import re

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from emo_hf import EmoPulse, EmoSens, registry
from emo_hf.hf import telling
from tests.hf.test_loops import Accelerator, cross_entropy
from tests.optimizer_contract import build, make_params, run

NUMBER = r"\d+(?:\.\d+)?(?:e-\d+)?"


@pytest.mark.parametrize("spec", registry.specs(), ids=lambda spec: spec.key)
def test_the_numbers_are_those_of_the_steps(spec):
    optimizer = build(spec, params := make_params(), lr=0.5)
    text = telling.outlook(optimizer, "linear")
    assert text.startswith(f"{spec.name} {spec.version}: ")
    assert ("multiplier 0.5" in text) is spec.lr_is_multiplier
    assert ("learning rate 0.5" in text) is not spec.lr_is_multiplier
    assert text.endswith(", schedule linear")
    run(optimizer, params, range(1))
    if found := re.search(f"steps from ({NUMBER}) up to ({NUMBER})", text):
        start, most = map(float, found.groups())
        assert optimizer.effective_lr == pytest.approx(start)
        rises = copy.deepcopy(optimizer._state)
        rises.pulse.snr, rises.pulse.drift = 1e9, 1.0
        assert optimizer.mechanism.rate(rises, 0.5, 0.5).step == pytest.approx(most)
    assert bool(found) is (optimizer.mechanism.can_hold and not optimizer.mechanism.damper)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda params: EmoSens(params),
            "emosens 3.9: multiplier 1.0, steps from 1e-4 up to 3e-3",
        ),
        (
            lambda params: EmoSens(params, 3.0, hold_pulse=True),
            "emosens 3.9: multiplier 3.0, steps of 3e-4",
        ),
        (
            lambda params: EmoSens([{"params": params[:1], "lr": 0.02}, {"params": params[1:], "lr": 10.0}]),
            "emosens 3.9: multiplier 0.02 to 10.0, steps from 2e-6 up to 0.03",
        ),
        (
            lambda params: EmoPulse(torch.optim.AdamW(params, 5e-5)),
            "emopulse 3.9: drives AdamW, steps from 5e-5 up to 1.5e-3",
        ),
    ],
)
def test_one_line(make, text):
    assert telling.outlook(make(make_params())) == text


def said(caplog):
    return [message for message in caplog.messages if re.match(r"emo\w+ \d", message)]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr_scheduler_type": "cosine"}, "steps from 1e-4 up to 3e-3, schedule cosine"),
        (
            {"optim": "adamw_torch", "lr_scheduler_type": "emopulse"},
            "drives AdamW, steps from .* up to 1.5e-3$",
        ),
        ({"optim": "emonavi-3.0", "learning_rate": 2e-4}, "learning rate 2e-4, schedule constant"),
    ],
)
def test_a_trainer_says_it_once(options, text, make_trainer, caplog):
    make_trainer(max_steps=2, **options).train()
    (line,) = said(caplog)
    assert re.search(text, line)


def test_a_schedule_of_the_users_own_is_named(make_trainer, caplog):
    trainer = make_trainer(max_steps=2)
    optimizer = EmoSens(trainer.model.parameters())
    trainer.optimizer, trainer.lr_scheduler = optimizer, get_cosine_schedule_with_warmup(optimizer, 0, 2)
    trainer.train()
    (line,) = said(caplog)
    assert line.endswith("schedule LambdaLR")


def test_a_loop_says_it_once_at_its_first_step(caplog):
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(8, 2)
    optimizer = EmoSens(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    model, optimizer = accelerator.prepare(model, optimizer)
    schedule = accelerator.prepare(schedule)
    assert not said(caplog)
    for _ in range(2):
        accelerator.backward(cross_entropy(model(torch.randn(4, 8)), torch.zeros(4, dtype=int)))
        optimizer.step()
        optimizer.zero_grad()
    assert len(said(caplog)) == 1
