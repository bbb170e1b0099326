"""A language model reads a text and names its class: a new GPT-2 from its last token, a trained one as it does."""

from typing import Any

from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    GPT2ForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.recipe.task import Config
from emo_hf.lab.sources import Example, Examples
from emo_hf.lab.tasks import metrics
from emo_hf.lab.tasks.adapters import adapt
from emo_hf.lab.tasks.parts import Parts
from emo_hf.lab.tasks.pretrained import gpt2_config, load, train_tokenizer


def build(run_config: RunConfig, data: Examples) -> Parts:
    """Builds a sequence classification task."""
    labels, chosen, max_tokens = data.labels, run_config.scale.model, run_config.scale.max_tokens
    tokenizer: PreTrainedTokenizerBase
    if chosen.config:
        tokenizer = train_tokenizer(chosen.config, (example.text for example in data.train), max_tokens)
        model = gpt2(chosen.config, tokenizer, labels, max_tokens)
    elif chosen.hub:
        model, tokenizer = load(AutoModelForSequenceClassification, run_config, **class_options(labels))
    else:
        raise RecipeError("model.llama2c writes texts: use it for causal-lm; for classes give model.config or hub.")
    return Parts(
        model=adapt(model, chosen.lora, "SEQ_CLS"),
        processing_class=tokenizer,
        train_dataset=encode(data.train, tokenizer, labels, max_tokens),
        eval_dataset=encode(data.test, tokenizer, labels, max_tokens),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=metrics.Accuracy(),
    )


def gpt2(
    config: Config, tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...], max_tokens: int
) -> PreTrainedModel:
    """Returns a GPT-2 with new random weights and a linear classifier."""
    return GPT2ForSequenceClassification(gpt2_config(config, tokenizer, max_tokens, **class_options(labels)))


def encode(
    examples: tuple[Example, ...], tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...], max_tokens: int
) -> Dataset:
    """Returns a `datasets.Dataset` with input_ids, attention_mask and labels, without padding."""
    tokens = tokenizer([example.text for example in examples], truncation=True, max_length=max_tokens)
    return Dataset.from_dict({**tokens, "labels": [labels.index(example.label) for example in examples]})


def class_options(labels: tuple[str, ...]) -> dict[str, Any]:
    """Returns the options that tell a configuration of transformers its classes."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }
