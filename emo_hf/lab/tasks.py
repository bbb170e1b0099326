"""A cell's model, tokenizer, data sets and metric: what a Trainer needs, built from the recipe's words.

sequence-classification    GPT-2 reads a text and names its class, from the hidden state of its last token
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from emo_hf.errors import RecipeError
from emo_hf.lab import metrics
from emo_hf.lab.sources import Example, Examples
from emo_hf.lab.spec import Cell
from emo_hf.lab.task import Config, Hub

END, PAD = "<|endoftext|>", "<|pad|>"


@dataclass(frozen=True)
class Parts:
    """The arguments of a Trainer that depend on the task."""

    model: PreTrainedModel
    processing_class: PreTrainedTokenizerBase
    train_dataset: Dataset
    eval_dataset: Dataset
    data_collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    compute_metrics: Callable[[Any], dict[str, float]]


def build(cell: Cell, found: Examples) -> Parts:
    """Builds a sequence classification task. Seed the global generators before: a new model's weights are random.

    Raises:
        RecipeError: the model is not to be had from the hub.
    """
    labels, config = found.labels, cell.scale.model.config
    if config:
        tokenizer = train_tokenizer(config, (example.text for example in found.train), cell.scale.max_tokens)
        model = gpt2(config, tokenizer, labels, cell.scale.max_tokens)
    else:
        model, tokenizer = from_hub(cell.scale.model.hub, labels)
    return Parts(
        model=model,
        processing_class=tokenizer,
        train_dataset=encode(found.train, tokenizer, labels, cell.scale.max_tokens),
        eval_dataset=encode(found.test, tokenizer, labels, cell.scale.max_tokens),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=metrics.Accuracy(),
    )


def train_tokenizer(config: Config, texts: Iterable[str], max_tokens: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE on `texts`. It ends every text with a token of its own, which the classifier reads."""
    tokenizer = Tokenizer(models.BPE())
    if config.lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    # a space in front, so that a word is the same token at the start of a text and inside it
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, padding_side="right", model_max_length=max_tokens
    )


def gpt2(
    config: Config, tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...], max_tokens: int
) -> PreTrainedModel:
    """A GPT-2 with new random weights and a linear classifier."""
    return GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=max_tokens,
            n_embd=config.width,
            n_layer=config.layers,
            n_head=config.heads,
            activation_function="gelu_pytorch_tanh",  # GPT-2's gelu_new in one kernel
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **_classes(labels),
        )
    )


def from_hub(hub: Hub, labels: tuple[str, ...]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A pretrained model with a new classifier, and its tokenizer."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(hub.name, revision=hub.revision)
        if tokenizer.pad_token is None:  # GPT-2 has none; the classifier reads the last token that is no padding
            tokenizer.pad_token = tokenizer.eos_token
        model = AutoModelForSequenceClassification.from_pretrained(
            hub.name, revision=hub.revision, pad_token_id=tokenizer.pad_token_id, **_classes(labels)
        )
    except OSError as error:  # transformers' word for: no network, no such name or revision, not in the cache
        raise RecipeError(
            f"The model {hub.name} at revision {hub.revision} cannot be loaded from the Hugging Face hub or its cache "
            f"({str(error).splitlines()[0]}). Check the network, or choose a size that builds its own (--size small)."
        ) from error
    return model, tokenizer


def encode(
    examples: tuple[Example, ...], tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...], max_tokens: int
) -> Dataset:
    """Returns a `datasets.Dataset` with input_ids, attention_mask and labels; padding is the collator's."""
    tokens = tokenizer([example.text for example in examples], truncation=True, max_length=max_tokens)
    return Dataset.from_dict({**tokens, "labels": [labels.index(example.label) for example in examples]})


def _classes(labels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }
