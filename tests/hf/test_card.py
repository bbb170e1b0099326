"""Trainer's model card, and what EmoTrainer adds to it."""

import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import Trainer

from emo_hf import registry
from emo_hf.dashboards import report
from emo_hf.hf import EmoTrainer
from emo_hf.hf import card as card_text


@pytest.mark.parametrize("times", [1, 2])
def test_card_is_valid_and_says_what_trained_the_model(times, make_trainer):
    trainer = make_trainer(EmoTrainer, max_steps=2)
    trainer.train()
    for _ in range(times):
        trainer.create_model_card(tags=["mine"], dataset="CogComp/trec", dataset_tags="trec", tasks="text-generation")
    folder, row = Path(trainer.args.output_dir), registry.find("emosens")
    card = ModelCard.load(folder / "README.md")
    assert sorted(card.data.tags) == sorted({*card.data.tags, "mine", "emo_hf", "emosens"})
    assert card.data.datasets == ["trec"]
    assert card.data.library_name == "transformers"
    assert card.text.count("## Optimizer") == 1
    assert "## Training procedure" in card.text
    for expected in (
        row.source,
        *row.quirks,
        card_text.ONE_TRAINING,
        "![Loss, step size and emotion of the training](emo_signals.png)",
    ):
        assert card.text.count(expected) == 1
    assert (folder / "emo_signals.png").read_bytes()[:4] == b"\x89PNG"
    assert str(folder.parent) not in str(card)


def test_card_without_matplotlib_has_no_picture(make_trainer, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    monkeypatch.delitem(sys.modules, "emo_hf.dashboards.report.figures", raising=False)
    monkeypatch.delattr(report, "figures", raising=False)
    trainer = make_trainer(EmoTrainer, max_steps=1)
    trainer.train()
    trainer.create_model_card()
    folder = Path(trainer.args.output_dir)
    assert "![" not in ModelCard.load(folder / "README.md").text
    assert not (folder / "emo_signals.png").exists()


def test_card_of_a_driven_optimizer_has_its_tag(make_trainer):
    trainer = make_trainer(EmoTrainer, optim="adamw_torch", lr_scheduler_type="emopulse", max_steps=1)
    trainer.train()
    trainer.create_model_card()
    card = ModelCard.load(Path(trainer.args.output_dir, "README.md"))
    assert {"emo_hf", "emopulse"} <= set(card.data.tags)
    assert "Trained with `emopulse-3.9` of emo_hf." in card.text
    assert "one training (n = 1)" in card.text


@pytest.mark.parametrize("kind", [Trainer, EmoTrainer])
@pytest.mark.parametrize(
    ("options", "rate", "words"),
    [
        ({}, "1.0", ("emosens-3.9 of emo_hf with lr=1.0, betas=(0.9, 0.995)",)),
        (
            {"learning_rate": 0.5, "optim_args": "stopcoef=1.5,beta2=0.99", "lr_scheduler_type": "cosine"},
            "0.5",
            ("lr=0.5, betas=(0.9, 0.99)", "stopcoef=1.5"),
        ),
        ({"optim": "emosens-3.8"}, "1.0", ("emosens-3.8 of emo_hf with lr=1.0",)),
        (
            {"optim": "adamw_torch", "lr_scheduler_type": "emopulse", "learning_rate": 1e-3},
            "0.001",
            ("AdamW driven by emopulse-3.9 of emo_hf with lr=0.001, betas=(0.9, 0.999)", "branch=rounding"),
        ),
    ],
)
def test_hyperparameters_are_those_that_were_used(kind, options, rate, words, make_trainer):
    trainer = make_trainer(kind, max_steps=2, **options)
    trainer.train()
    for _ in range(2):
        trainer.create_model_card()
    lines = Path(trainer.args.output_dir, "README.md").read_text().splitlines()
    assert [line for line in lines if "learning_rate:" in line] == [f"- learning_rate: {rate}"]
    (optimizer,) = [line for line in lines if line.startswith("- optimizer:")]
    assert all(word in optimizer for word in words)
    after = lines[lines.index(optimizer) + 1]
    assert after == f"- lr_scheduler_type: {options.get('lr_scheduler_type', 'constant')}"


def test_card_of_another_optimizer_is_the_parents(make_trainer):
    trainer = make_trainer(EmoTrainer, optim="sgd", max_steps=1)
    trainer.train()
    trainer.create_model_card()
    path = Path(trainer.args.output_dir, "README.md")
    ours = path.read_text()
    Trainer.create_model_card(trainer)
    assert path.read_text() == ours


def test_the_card_of_our_own_optimizer_names_no_author_and_no_pulse():
    text = card_text.section(registry.find("emofree"))
    assert "ours, not of the authors" in text
    assert "a factor on what it finds" in text
    assert "advice" not in text
    assert "emoPulse" not in text
