"""Embedded sentences, a tokenizer trained on them, and tiny models, for other people's trainers."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from emo_hf.lab.sources import sentences

MARKS = {"statement": " .", "question": " ?", "exclamation": " !"}
VOCABULARY = 64  # so small that a random model ends a completion by chance
LENGTH = 128
# TRL 1.16 and PEFT 0.21 use the old names of transformers 5.23.
OLD_NAMES = r"ignore:`(is_)?gradient_checkpointing\w*` is deprecated and will be removed in v6:FutureWarning"
TOKENS = {"pad_token_id": 1, "eos_token_id": 2}


def examples(n: int = 12) -> list[dict[str, str]]:
    """The first n sentences, each with the mark that ended it (chosen) and one that did not (rejected)."""
    return [
        {
            "prompt": example.text,
            "chosen": MARKS[example.label],
            "rejected": next(mark for label, mark in MARKS.items() if label != example.label),
        }
        for example in sentences().train[:n]
    ]


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<unk>", "<pad>", "<eos>"], show_progress=False
    )
    tokenizer.train_from_iterator([row["prompt"] + "".join(MARKS.values()) for row in examples(300)], trainer)
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LENGTH, **names)


def gpt2_config(**changes: Any) -> GPT2Config:
    size = {"n_positions": LENGTH, "n_embd": 16, "n_layer": 1, "n_head": 2}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2Config(vocab_size=VOCABULARY, bos_token_id=2, **size, **TOKENS, **dropout, **changes)


def make_model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(gpt2_config())


def make_reward_model() -> GPT2ForSequenceClassification:
    torch.manual_seed(0)
    return GPT2ForSequenceClassification(gpt2_config(num_labels=1))


def make_seq2seq_model() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    size = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, decoder_start_token_id=1, **size, **TOKENS))


def make_llama(folder: Path) -> LlamaForCausalLM:
    """Returns a model that was saved in `folder` and loaded from there."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=False,
        bos_token_id=2,
        **size,
        **TOKENS,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return LlamaForCausalLM.from_pretrained(folder)


def make_encoder(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Returns a `SentenceTransformer`: a GPT-2 that was saved in `folder`, and the mean of its outputs."""
    from sentence_transformers import SentenceTransformer

    make_model().transformer.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return SentenceTransformer(str(folder), device="cpu")
