"""New tokenizers and models from a recipe's numbers, and trained ones from the hub or a local copy of it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.recipe.task import Config, HubModel

NO_CODE: dict[str, Any] = {"trust_remote_code": False}  # else transformers asks on the terminal whether to run it
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


def load(auto: Any, run_config: RunConfig, **more: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Returns the trained model of `run_config`, made by `auto` (an Auto class of transformers), and its tokenizer."""
    hub = _of(run_config)
    with _readable(run_config):
        tokenizer = AutoTokenizer.from_pretrained(**_source(run_config), **NO_CODE)
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise ValueError(f"its tokenizer, {type(tokenizer).__name__}, is none of the package tokenizers")
        if tokenizer.pad_token is None:  # as with GPT-2, whose classifier reads the last token before the padding
            tokenizer.pad_token = tokenizer.eos_token
        own = {"use_safetensors": True} if run_config.model_dir and hub.gguf is None else {}  # a pickle may run code
        model = auto.from_pretrained(
            **_source(run_config), **NO_CODE, pad_token_id=tokenizer.pad_token_id, **own, **more
        )
    _check_config(run_config, model.config)
    return model, tokenizer


def check(run_config: RunConfig) -> None:
    """Raises `RecipeError` if the trained model is out of reach, is another one, or cannot read that many tokens."""
    with _readable(run_config):
        config = AutoConfig.from_pretrained(**_source(run_config), **NO_CODE)
    _check_config(run_config, config)


def _check_config(run_config: RunConfig, config: PretrainedConfig) -> None:
    hub = _of(run_config)
    if run_config.model_dir and not hub.config:
        raise RecipeError(
            "model.hub.config: missing: a local copy is told from other models by values of its configuration, as in"
            f" {{model_type: {config.model_type}, hidden_size: {getattr(config, 'hidden_size', '...')}}}."
        )
    for key, expected in hub.config.items():
        if (got := getattr(config, key, None)) != expected:
            raise RecipeError(f"{_place(run_config)} is not {hub.name}: expected {key} {expected!r}, got {got!r}.")
    check_length(hub.name, config, run_config.scale.max_tokens)


def _of(run_config: RunConfig) -> HubModel:
    assert run_config.scale.model.hub is not None
    return run_config.scale.model.hub


def _source(run_config: RunConfig) -> dict[str, Any]:
    """Returns the arguments of ``from_pretrained`` that say which model it is."""
    hub = _of(run_config)
    gguf = {"gguf_file": hub.gguf} if hub.gguf else {}
    if run_config.model_dir:
        return {"pretrained_model_name_or_path": _place(run_config), "local_files_only": True, **gguf}
    return {"pretrained_model_name_or_path": hub.name, "revision": hub.revision, **gguf}


def _place(run_config: RunConfig) -> str:
    hub = _of(run_config)
    return str(Path(run_config.model_dir, hub.folder)) if run_config.model_dir else hub.name


@contextmanager
def _readable(run_config: RunConfig) -> Iterator[None]:
    hub = _of(run_config)
    if not run_config.model_dir:
        hub.refuse_folder()
    try:
        yield
    except Exception as error:  # the hub, its cache, transformers and the readers of the files raise all kinds
        if run_config.model_dir:
            what, do = f"The copy of {hub.name} in {_place(run_config)}", "Fetch it again with emo-hf fetch-models"
        else:
            what = f"The model {hub.name} at revision {hub.revision}, of the Hugging Face hub or its cache,"
            do = "Check the network, give the folder of a copy with --model-dir, or choose another size"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RecipeError(f"{what} cannot be loaded ({reason}). {do}.") from error


def check_length(name: str, config: PretrainedConfig, max_tokens: int) -> None:
    """Raises `RecipeError` if a model with this `config` cannot read that many tokens."""
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < max_tokens:
        raise RecipeError(f"max_tokens {max_tokens}: {name} reads at most {positions}.")
