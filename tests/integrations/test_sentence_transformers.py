"""Trainers of sentence-transformers: the fed loss is their objective, in every way in."""

import pytest
from datasets import Dataset
from tiny_text import examples, make_model

st = pytest.importorskip("sentence_transformers")
losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")


@pytest.fixture(scope="module")
def encoder(tokenizer, tmp_path_factory):
    """A folder with a tiny Transformer and its tokenizer, as `SentenceTransformer` reads it."""
    folder = str(tmp_path_factory.mktemp("encoder"))
    make_model().transformer.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_fed_loss_is_the_objective_of_sentence_transformers(build, options, encoder, check):
    model = st.SentenceTransformer(encoder, device="cpu")
    rows = [{"anchor": row["prompt"], "positive": row["prompt"] + row["chosen"]} for row in examples()]
    trainer = build(
        st.SentenceTransformerTrainer,
        model=model,
        args=st.SentenceTransformerTrainingArguments(**options),
        train_dataset=Dataset.from_list(rows),
        loss=losses.MultipleNegativesRankingLoss(model),
    )
    check(trainer)
