"""Tokenizer, model and metric of a sequence classification."""

import pytest
import torch
from transformers import set_seed

from emo_hf.lab import sources, tasks
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.task import Config
from emo_hf.lab.tasks import classification, metrics, pretrained

CONFIG = Config(layers=2, heads=2, width=16, vocabulary=400, lowercase=True)
TEXTS = ["Who is there", "nay, answer me", "stand and unfold yourself", "long live the king"]


@pytest.fixture(scope="module")
def tokenizer():
    return pretrained.train_tokenizer(CONFIG, TEXTS * 50, max_tokens=12)


def test_tokenizer(tokenizer):
    assert len(tokenizer) <= 400
    ids = tokenizer("WHO is caf\xe9 \u4e16")["input_ids"]  # bytes: no text is unknown to it
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "who is caf\xe9 \u4e16"
    cut = tokenizer("king " * 100, truncation=True)["input_ids"]
    assert len(cut) == 12
    assert cut[-1] == tokenizer.eos_token_id
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_padding_does_not_matter(tokenizer):
    set_seed(0)
    model = classification.gpt2(CONFIG, tokenizer, ("a", "b", "c"), 12).eval()
    with torch.no_grad():
        together = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
        for text, logits in zip(TEXTS, together, strict=True):
            alone = model(**tokenizer([text], return_tensors="pt")).logits[0]
            torch.testing.assert_close(alone, logits, rtol=1e-5, atol=1e-6)


def test_classes(tokenizer):
    model = classification.gpt2(CONFIG, tokenizer, ("a", "b", "c"), 12)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.score.out_features == 3
    data = classification.encode((sources.Example("Who is there", "b"),), tokenizer, ("a", "b", "c"), 12)
    assert data[0]["labels"] == 1
    assert data[0]["input_ids"] == tokenizer("Who is there")["input_ids"]


def test_build_is_seeded(recipe, write):
    run_config = loading.recipe(write(recipe)).run_configs("smoke")[0]
    found = sources.examples(run_config)
    weights = []
    for seed in (0, 0, 1):
        set_seed(seed)
        weights.append(tasks.build(run_config, found).model.score.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_accuracy_without_hub():
    compute = metrics.Accuracy().compute
    assert compute(predictions=[0, 1, 2, 1], references=[0, 1, 1, 1]) == {"accuracy": 0.75}
    assert compute(predictions=torch.tensor([1]), references=torch.tensor([0])) == {"accuracy": 0.0}
