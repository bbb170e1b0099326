"""Embedded sentences, a tokenizer trained on them, and tiny models, for the trainers of other people."""

from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers import T5Config, T5ForConditionalGeneration

from emo_hf.lab.sources import sentences

MARKS = {"statement": " .", "question": " ?", "exclamation": " !"}


def examples(n: int = 12) -> list[dict[str, str]]:
    """The first n sentences, each with the mark that ended it and with one that did not."""
    rows = []
    for text, label in ((e.text, e.label) for e in sentences().train[:n]):
        wrong = next(mark for kind, mark in MARKS.items() if kind != label)
        rows.append({"prompt": text, "chosen": MARKS[label], "rejected": wrong})
    return rows


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = [row["prompt"] + mark for row in examples(500) for mark in MARKS.values()]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=256, special_tokens=["<unk>", "<pad>", "<eos>"], show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>", model_max_length=64
    )


def make_config(**changes: Any) -> GPT2Config:
    tokens = {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
    return GPT2Config(vocab_size=256, n_positions=64, n_embd=16, n_layer=1, n_head=2, **tokens, **changes)


def make_model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(make_config())


def make_reward_model() -> GPT2ForSequenceClassification:
    torch.manual_seed(0)
    return GPT2ForSequenceClassification(make_config(num_labels=1))


def make_seq2seq_model() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=256,
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            pad_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    )


def as_dataset(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(rows)
