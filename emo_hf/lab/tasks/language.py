"""A language model reads running text, or answers prompts.

Running text is cut into pieces of `max_tokens` tokens. Each piece is one example. An incomplete last piece is left
out, so the mean loss of the pieces is the mean loss of their tokens. Each line is tokenized by itself, with its line
break. So only as much of a long text is read as the recipe needs.

A prompt with its completion is one example, and only the tokens of the completion have a loss. Both are read as they
stand there: no template is put around them, and no space between them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from itertools import islice
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, GPT2LMHeadModel, PreTrainedTokenizerBase, default_data_collator

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.sources import Completions, Text, train_limit
from emo_hf.lab.sources.kinds import Prompted
from emo_hf.lab.tasks import llama2c, metrics
from emo_hf.lab.tasks.adapters import adapt
from emo_hf.lab.tasks.parts import Parts
from emo_hf.lab.tasks.pretrained import gpt2_config, load, train_tokenizer

LEARNED = 1_000_000  # characters that the tokenizer is trained on; more of them change few merges and take time


def build(run_config: RunConfig, data: Text | Completions) -> Parts:
    """Builds a causal language modelling task."""
    chosen, max_tokens = run_config.scale.model, run_config.scale.max_tokens
    model: Any
    tokenizer: PreTrainedTokenizerBase
    if chosen.config:
        tokenizer = train_tokenizer(chosen.config, _lines(data), max_tokens)
    elif chosen.llama2c:
        model, tokenizer = llama2c.load(run_config)
    elif chosen.hub:
        model, tokenizer = load(AutoModelForCausalLM, run_config)
    else:
        raise RecipeError("A vision or vit model sees images: use it for image-classification.")
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]] = default_data_collator
    if isinstance(data, Completions):
        train, test = (answers(part, tokenizer, max_tokens) for part in (data.train, data.test))
        collator = Padded(tokenizer.pad_token_id or 0)
    else:  # before the model: it fails if the text is too short
        train, test = map(dataset, split(run_config, data, tokenizer))
    if chosen.config:
        model = GPT2LMHeadModel(gpt2_config(chosen.config, tokenizer, max_tokens))
    model.loss_type = "ForCausalLM"  # the default of transformers, which warns about it for GPT-2
    return Parts(
        model=adapt(model, chosen.lora, "CAUSAL_LM"),
        processing_class=tokenizer,
        train_dataset=train,
        eval_dataset=test,
        data_collator=collator,
        compute_metrics=metrics.Perplexity(),
        preprocess_logits_for_metrics=metrics.token_losses,
    )


def _lines(data: Text | Completions) -> list[str]:
    """Returns what a new tokenizer is trained on."""
    text = data.train if isinstance(data, Text) else "\n".join(part for row in data.train for part in astuple(row))
    return text[:LEARNED].splitlines(keepends=True)


# ---- running text


def split(run_config: RunConfig, text: Text, tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pieces to train and to evaluate on. A holdout is the beginning of the training text."""
    size, holdout = run_config.scale.max_tokens, run_config.task.data.held_pieces
    if holdout is None:
        train = pieces(text.train, tokenizer, size, train_limit(run_config), "train_examples")
        return train, pieces(text.test, tokenizer, size, run_config.scale.test_examples, "test_examples")
    if (wanted := train_limit(run_config)) is not None:
        wanted += holdout
    both = pieces(text.train, tokenizer, size, wanted, "holdout and train_examples together")
    if holdout >= len(both):
        raise RecipeError(f"holdout {holdout}: there are only {len(both)} training examples.")
    test, limit = both[:holdout], run_config.scale.test_examples
    if limit is not None and limit > holdout:
        raise RecipeError(f"test_examples {limit}: the holdout is only {holdout}.")
    return both[holdout:], test[:limit]


def pieces(text: str, tokenizer: PreTrainedTokenizerBase, size: int, count: int | None, asked: str) -> np.ndarray:
    """Returns the first `count` pieces of `text`, or all if it is None: int64, (count, size)."""
    chunks = list(islice(_pieces(text, tokenizer, size), count))
    if len(chunks) < (count or 1):
        raise RecipeError(f"{asked} {count or 1}: the text has only {len(chunks)} pieces of {size} tokens.")
    return np.array(chunks, dtype=np.int64)


def _pieces(text: str, tokenizer: PreTrainedTokenizerBase, size: int) -> Iterator[list[int]]:
    lines = text.splitlines(keepends=True)
    tokens: list[int] = []
    for start in range(0, len(lines), 1000):  # a thousand at once are quicker than one
        for line in tokenizer.backend_tokenizer.encode_batch_fast(
            lines[start : start + 1000], add_special_tokens=False
        ):
            tokens += line.ids
        whole = len(tokens) // size * size
        yield from (tokens[at : at + size] for at in range(0, whole, size))
        tokens = tokens[whole:]


def dataset(pieces: np.ndarray) -> Dataset:
    """Returns the pieces with their own tokens as labels, which the model shifts."""
    labels = pieces.copy()
    # Nothing predicts the first token. If it counted, Trainer would divide the loss by one token too many.
    labels[:, 0] = -100
    return Dataset.from_dict({"input_ids": pieces, "labels": labels})


# ---- prompts and completions


def answers(rows: Sequence[Prompted], tokenizer: PreTrainedTokenizerBase, size: int) -> Dataset:
    """Returns one example for each row, of at most `size` tokens; -100 stands for a label without loss.

    An example begins with a special token if the tokenizer begins texts with one, and ends with that of the end. If a
    row is too long, the beginning of its prompt is left out, and if need be the end of its completion.
    """
    start = [token for token in tokenizer("")["input_ids"][:1] if token == tokenizer.bos_token_id]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    prompts, completions = (
        tokenizer([getattr(row, name) for row in rows], add_special_tokens=False)["input_ids"]
        for name in ("prompt", "completion")
    )
    inputs, labels = [], []
    for prompt, completion in zip(prompts, completions, strict=True):
        answer = [*completion, *end][: size - len(start) - 1]
        room = size - len(start) - len(answer)
        asked = [*start, *prompt[-room:]] or [answer.pop(0)]  # nothing predicts the first token
        inputs.append(asked + answer)
        labels.append([-100] * len(asked) + answer)
    return Dataset.from_dict({"input_ids": inputs, "labels": labels})


class Padded:
    """Collates examples of several lengths into a batch, padded on the right."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        lengths = [len(row["input_ids"]) for row in rows]
        blank = {"input_ids": self.pad, "labels": -100, "attention_mask": 0}
        batch = {name: torch.full((len(rows), max(lengths)), value) for name, value in blank.items()}
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            batch["input_ids"][place, :length] = torch.tensor(row["input_ids"])
            batch["labels"][place, :length] = torch.tensor(row["labels"])
            batch["attention_mask"][place, :length] = 1
        return batch
