"""Models and tokenizers of karpathy/llama2.c (its export of version 0), as transformers' own classes.

model       7 int32: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative: the classifier is not
            the embedding), seq_len; then float32: `TENSORS` in this order, each for all layers; the cosines and
            sines of the positions, which transformers computes itself; the classifier
tokenizer   int32 longest token; for each token float32 score, int32 length, UTF-8 bytes
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.recipe.task import Llama2c
from emo_hf.lab.sources import files
from emo_hf.lab.tasks.pretrained import check_length

UNKNOWN, START, END = "<unk>", "<s>", "</s>"  # the first three tokens; in the file, two have line breaks around them
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))  # the tokens from 3 on
HUB_FOLDER = "stories260K"  # of both files, in karpathy/tinyllamas


@dataclass(frozen=True, slots=True)
class Header:
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    seq_len: int
    shared: bool

    @property
    def head(self) -> int:
        return self.dim // self.n_heads

    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """Returns the name in transformers (``{}`` is the layer) and the shape of each tensor, in the file's order."""
        kv, layer = self.n_kv_heads * self.head, "model.layers.{}."
        positions = (self.seq_len, self.head // 2)
        return [
            ("model.embed_tokens.weight", (self.vocab_size, self.dim)),
            (layer + "input_layernorm.weight", (self.dim,)),
            (layer + "self_attn.q_proj.weight", (self.dim, self.dim)),
            (layer + "self_attn.k_proj.weight", (kv, self.dim)),
            (layer + "self_attn.v_proj.weight", (kv, self.dim)),
            (layer + "self_attn.o_proj.weight", (self.dim, self.dim)),
            (layer + "post_attention_layernorm.weight", (self.dim,)),
            (layer + "mlp.gate_proj.weight", (self.hidden_dim, self.dim)),
            (layer + "mlp.down_proj.weight", (self.dim, self.hidden_dim)),
            (layer + "mlp.up_proj.weight", (self.hidden_dim, self.dim)),
            ("model.norm.weight", (self.dim,)),
            ("cosines", positions),
            ("sines", positions),
            *([] if self.shared else [("lm_head.weight", (self.vocab_size, self.dim))]),
        ]


def load(run_config: RunConfig) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Returns the model and the tokenizer of `run_config`; `RecipeError` if a file is missing or malformed."""
    chosen = run_config.scale.model.llama2c
    assert chosen is not None
    if run_config.data_dir is not None:
        model_file, tokenizer_file = files.find(chosen.files, Path(run_config.data_dir))
    else:
        model_file, tokenizer_file = download(chosen)
    model = read_model(model_file)
    check_length(model_file.name, model.config, run_config.scale.max_tokens)
    return model, read_tokenizer(tokenizer_file, model.config.vocab_size)


def download(chosen: Llama2c) -> list[Path]:
    hub = chosen.hub
    try:
        names = (f"{HUB_FOLDER}/{name}" for name in files.FILES[chosen.files][1])
        return [Path(hf_hub_download(hub.name, name, revision=hub.revision)) for name in names]
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{HUB_FOLDER} of {hub.name} at revision {hub.revision} cannot be loaded from the Hugging Face hub or its "
            f"cache ({str(error).splitlines()[0]}). Check the network, or give a local folder with --data-dir."
        ) from error


def read_model(path: Path) -> LlamaForCausalLM:
    """Reads a model file."""
    raw = files.unpacked(path)
    header = _header(path, raw)
    weights, at = {}, 28
    for name, shape in header.tensors():
        for layer in range(header.n_layers) if "{}" in name else (0,):
            count = int(np.prod(shape))
            values = torch.frombuffer(bytearray(raw[at : at + 4 * count]), dtype=torch.float32).view(shape)
            at += 4 * count
            if "q_proj" in name or "k_proj" in name:
                values = _split_halves(values, header.head)
            weights[name.format(layer)] = values
    del weights["cosines"], weights["sines"]
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=header.vocab_size,
            hidden_size=header.dim,
            intermediate_size=header.hidden_dim,
            num_hidden_layers=header.n_layers,
            num_attention_heads=header.n_heads,
            num_key_value_heads=header.n_kv_heads,
            max_position_embeddings=header.seq_len,
            rms_norm_eps=1e-5,
            tie_word_embeddings=header.shared,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
        )
    )
    model.load_state_dict(weights)
    return model


def _header(path: Path, raw: bytes) -> Header:
    if len(raw) < 28:
        raise RecipeError(f"{path} is no model of llama2.c: expected a head of 28 bytes, got {len(raw)} bytes.")
    sizes = struct.unpack("<7i", raw[:28])
    dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len = sizes
    header = Header(dim, hidden_dim, n_layers, n_heads, n_kv_heads, abs(vocab_size), seq_len, shared=vocab_size > 0)
    positive = min(*sizes[:5], abs(vocab_size), seq_len) > 0
    if not positive or header.dim % (2 * header.n_heads) or header.n_heads % header.n_kv_heads:
        raise RecipeError(
            f"{path} is no model of llama2.c: expected dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, "
            f"seq_len, got {', '.join(map(str, sizes))}."
        )
    layers = {True: header.n_layers, False: 1}
    expected = 28 + 4 * sum(layers["{}" in name] * int(np.prod(shape)) for name, shape in header.tensors())
    if len(raw) != expected:
        raise RecipeError(f"{path}: expected {expected} bytes as its head says, got {len(raw)}.")
    return header


def _split_halves(weight: torch.Tensor, head: int) -> torch.Tensor:
    """Reorders the rows of queries or keys: llama2.c rotates pairs of neighbours, transformers halves of a head."""
    rows, columns = weight.shape
    return weight.view(rows // head, head // 2, 2, columns).transpose(1, 2).reshape(rows, columns).contiguous()


def read_tokenizer(path: Path, vocab_size: int) -> PreTrainedTokenizerFast:
    """Reads a tokenizer file.

    A text gets a space in front, and what is no token becomes its bytes. Then the two neighbours that form the token
    with the highest score are joined, until no two form a token.
    """
    scores = _tokens(path, vocab_size)
    ids = {token: number for number, token in enumerate(scores)}
    joined = [
        (-scores[token], ids[token], token[:cut], token[cut:])
        for token in scores
        if ids[token] >= 3 + len(BYTES)
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    merges = [(left, right) for _, _, left, right in sorted(joined)]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, ids[START])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, unk_token=UNKNOWN, pad_token=END
    )


def _tokens(path: Path, vocab_size: int) -> dict[str, float]:
    """Returns token -> score, in the order of the token numbers."""
    raw, at = files.unpacked(path), 4
    scores: dict[str, float] = {}
    while at < len(raw):
        number = len(scores)
        try:
            score, length = struct.unpack_from("<fi", raw, at)
            token = struct.unpack_from(f"<{length}s", raw, at + 8)[0].decode("utf-8")
        except (struct.error, UnicodeDecodeError):
            raise RecipeError(f"{path}, token {number}: expected a score, a length and as many UTF-8 bytes.") from None
        at += 8 + length
        token = token.strip("\n") if number in (1, 2) else token.replace(" ", "▁")
        if token in scores:
            raise RecipeError(f"{path}, token {number}: {token!r} is there twice.")
        scores[token] = score
    if tuple(scores)[: 3 + len(BYTES)] != (UNKNOWN, START, END, *BYTES):
        raise RecipeError(
            f"{path} is no tokenizer of llama2.c: expected {UNKNOWN}, {START}, {END}, {BYTES[0]} ... first."
        )
    if len(scores) != vocab_size:
        raise RecipeError(f"{path}: expected {vocab_size} tokens as the model has, got {len(scores)}.")
    return scores
