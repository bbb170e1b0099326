"""Trainers of sentence-transformers: the fed loss is their objective, in every way in."""

import pytest
from datasets import Dataset

from tests.integrations.tiny_text import examples, make_encoder

st = pytest.importorskip("sentence_transformers")
losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")


def test_fed_loss_is_the_objective_of_sentence_transformers(build, options, tokenizer, check, tmp_path):
    model = make_encoder(tmp_path / "model", tokenizer)
    rows = [{"anchor": row["prompt"], "positive": row["prompt"] + row["chosen"]} for row in examples()]
    trainer = build(
        st.SentenceTransformerTrainer,
        model=model,
        args=st.SentenceTransformerTrainingArguments(**options),
        train_dataset=Dataset.from_list(rows),
        loss=losses.MultipleNegativesRankingLoss(model),
    )
    check(trainer)
