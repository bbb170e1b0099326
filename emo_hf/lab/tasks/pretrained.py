"""New tokenizers and models from a recipe's numbers, and trained ones from the hub."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GPT2Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.task import Config, Hub

END, PAD = "<|endoftext|>", "<|pad|>"


def train_tokenizer(config: Config, texts: Iterable[str], max_tokens: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE on `texts`. It ends every text with a special token, which the classifier reads."""
    tokenizer = Tokenizer(models.BPE())
    if config.lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    # with a space in front, the first word of a text gets the same token as inside a text
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


def gpt2_config(config: Config, tokenizer: PreTrainedTokenizerBase, max_tokens: int, **more: Any) -> GPT2Config:
    return GPT2Config(
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
        **more,
    )


def from_hub(auto: Any, hub: Hub, max_tokens: int, **more: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Returns a pretrained model, made by `auto` (an Auto class of transformers), and its tokenizer."""
    with _from_hub_or_cache(hub):
        tokenizer = AutoTokenizer.from_pretrained(hub.name, revision=hub.revision)
        if tokenizer.pad_token is None:  # as with GPT-2, whose classifier reads the last token before the padding
            tokenizer.pad_token = tokenizer.eos_token
        model = auto.from_pretrained(hub.name, revision=hub.revision, pad_token_id=tokenizer.pad_token_id, **more)
    check_length(hub.name, model.config, max_tokens)
    return model, tokenizer


def check(hub: Hub, max_tokens: int) -> None:
    """Raises `RecipeError` if a pretrained model is out of reach, or cannot read that many tokens."""
    with _from_hub_or_cache(hub):
        config = AutoConfig.from_pretrained(hub.name, revision=hub.revision)
    check_length(hub.name, config, max_tokens)


@contextmanager
def _from_hub_or_cache(hub: Hub) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # from transformers: no network, no such name or revision, or not in the cache
        raise RecipeError(
            f"The model {hub.name} at revision {hub.revision} cannot be loaded from the Hugging Face hub or its cache "
            f"({str(error).splitlines()[0]}). Check the network, or choose a size that builds its own (--size small)."
        ) from error


def check_length(name: str, config: PretrainedConfig, max_tokens: int) -> None:
    """Raises `RecipeError` if a model with this `config` cannot read that many tokens."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions and max_tokens > positions:
        raise RecipeError(f"max_tokens {max_tokens}: {name} reads at most {positions}.")
