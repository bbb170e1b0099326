"""llama2.c's files as a Llama of transformers, and LoRA beside its weights."""

import itertools
import struct
import sys

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from emo_hf.errors import RecipeError
from emo_hf.lab import sources, tasks
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.task import Lora
from emo_hf.lab.tasks import adapters, llama2c
from tests.lab.made_up_data import write_stories260k

LLAMA = {"hub": {"name": "nobody/nothing", "revision": "main"}, "files": "stories260k"}
LORA = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}


@pytest.fixture
def run_config(recipe, write, data_folder):
    """Returns a run_config that trains the Llama on the shipped sentences."""

    def run_config(folder=data_folder, **scale):
        recipe["task"] = {"type": "causal-lm", "data": {"embedded": "sentences"}}
        recipe["metric"], recipe["default_size"] = "perplexity", "smoke"
        common = {"model": {"llama2c": LLAMA, "lora": LORA}, "steps": 5, "batch_size": 4, "max_tokens": 16}
        recipe["sizes"] = {"smoke": {**common, "train_examples": 20, "test_examples": 8, **scale}}
        return loading.recipe(write(recipe)).run_configs("smoke", data_dir=folder)[0]

    return run_config


def logits(path, ids: list[int]) -> np.ndarray:
    """llama2.c's forward pass, written out: float64, every position attends to itself and those before."""
    raw = path.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocabulary, length = struct.unpack("<7i", raw[:28])
    shared, vocabulary, head = vocabulary > 0, abs(vocabulary), dim // heads
    numbers = np.frombuffer(raw, "<f4", offset=28).astype(np.float64)

    def take(*shape):
        nonlocal numbers
        taken, numbers = np.split(numbers, [int(np.prod(shape))])
        return taken.reshape(shape)

    def norm(x, weight):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight

    def rotate(x):  # (position, head, 2 * pair): neighbours make a pair
        angle = np.arange(len(ids))[:, None] / 10000 ** (np.arange(0, head, 2) / head)
        turned = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)[:, None]
        return np.stack([turned.real, turned.imag], -1).reshape(x.shape)

    kv = kv_heads * head
    embedding, attention_norms = take(vocabulary, dim), take(layers, dim)
    wq, wk, wv = take(layers, dim, dim), take(layers, kv, dim), take(layers, kv, dim)
    wo, ffn_norms, w1 = take(layers, dim, dim), take(layers, dim), take(layers, hidden, dim)
    w2, w3, last_norm = take(layers, dim, hidden), take(layers, hidden, dim), take(dim)
    take(2, length, head // 2)
    classifier = embedding if shared else take(vocabulary, dim)
    assert numbers.size == 0
    x = embedding[ids]
    for layer in range(layers):
        seen = norm(x, attention_norms[layer])
        q = rotate((seen @ wq[layer].T).reshape(-1, heads, head))
        k = rotate((seen @ wk[layer].T).reshape(-1, kv_heads, head)).repeat(heads // kv_heads, 1)
        v = (seen @ wv[layer].T).reshape(-1, kv_heads, head).repeat(heads // kv_heads, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(head)
        scores = np.exp(np.where(np.tri(len(ids)), scores, -np.inf))
        attended = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v)
        x = x + attended.reshape(-1, dim) @ wo[layer].T
        seen = norm(x, ffn_norms[layer])
        gate = seen @ w1[layer].T
        x = x + (gate / (1 + np.exp(-gate)) * (seen @ w3[layer].T)) @ w2[layer].T
    return norm(x, last_norm) @ classifier.T


@pytest.mark.parametrize("shared", [True, False])
def test_model(tmp_path, shared):
    write_stories260k(tmp_path, shared)
    model = llama2c.read_model(tmp_path / "stories260K.bin").eval()
    assert model.config.tie_word_embeddings == shared
    ids = [1, 270, 5, 280, 299, 261, 261, 3]
    with torch.no_grad():
        found = model(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(found, logits(tmp_path / "stories260K.bin", ids), rtol=1e-3, atol=1e-4)


def greedy(path, text: str) -> list[int]:
    """llama2.c's encoding, written out."""
    raw, at, tokens, scores = path.read_bytes(), 4, [], []
    while at < len(raw):
        score, length = struct.unpack_from("<fi", raw, at)
        tokens.append(raw[at + 8 : at + 8 + length])
        scores.append(score)
        at += 8 + length
    ids = {token: number for number, token in enumerate(tokens)}
    found = [ids[b" "]]
    for char in text:
        found += [ids[char.encode()]] if char.encode() in ids else [byte + 3 for byte in char.encode()]
    while True:
        joined = [ids.get(tokens[a] + tokens[b], 0) for a, b in itertools.pairwise(found)]
        if not any(joined):
            return found
        place = max((place for place, token in enumerate(joined) if token), key=lambda place: scores[joined[place]])
        found[place : place + 2] = [joined[place]]


def test_tokenizer(tmp_path):
    write_stories260k(tmp_path)
    tokenizer = llama2c.read_tokenizer(tmp_path / "tok512.bin", 300)
    for text in ("the look", " took  the caf\xe9\n", "\n", "theheretooook \u4e16 QUIT", "a"):
        ids = tokenizer(text)["input_ids"]
        assert ids == [1, *greedy(tmp_path / "tok512.bin", text)]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.tokenize("took the") == ["\u2581took", "\u2581the"]


def broken(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("stories260K.bin", lambda raw: raw[:20], "expected a head of 28 bytes, got 20"),
        ("stories260K.bin", lambda raw: raw[:-4], r"expected \d+ bytes as its head says, got \d+"),
        ("stories260K.bin", lambda raw: b"ak42" + raw[4:], "no model of llama2.c|expected .* bytes as its head"),
        (
            "stories260K.bin",
            lambda raw: struct.pack("<7i", 16, 24, 2, 3, 2, 300, 512) + raw[28:],
            "n_heads, .* got 16, 24",
        ),
        (
            "stories260K.bin",
            lambda raw: struct.pack("<7i", 16, 24, 0, 4, 2, 300, 512) + raw[28:],
            "no model of llama2.c",
        ),
        ("tok512.bin", lambda raw: raw[:-3], "token 299: expected a score, a length"),
        ("tok512.bin", lambda raw: raw[:-1] + b"\xff", "token 299: expected a score, a length"),
        ("tok512.bin", lambda raw: raw + struct.pack("<fi", 0, 2) + b"he", "token 300: 'he' is there twice"),
        (
            "tok512.bin",
            lambda raw: raw + struct.pack("<fi", 0, 2) + b"hh",
            "expected 300 tokens as the model has, got 301",
        ),
        ("tok512.bin", lambda raw: raw[:12] + b"<UNK>" + raw[17:], "no tokenizer of llama2.c: expected <unk>, <s>"),
        ("tok512.bin", lambda raw: b"", "is empty"),
    ],
)
def test_malformed(run_config, data_folder, name, change, message):
    broken(data_folder / "stories260k" / name, change)
    with pytest.raises(RecipeError, match=rf"{name}.*({message})"):
        llama2c.load(run_config())


def test_missing(run_config, data_folder):
    (data_folder / "stories260k/tok512.bin").unlink()
    with pytest.raises(RecipeError, match=r"tok512\.bin is missing: expected stories260K\.bin and tok512\.bin in"):
        llama2c.load(run_config())
    with pytest.raises(
        RecipeError, match=r"stories260K of nobody/nothing at revision main cannot be loaded .* --data-dir"
    ):
        llama2c.load(run_config(folder=None))
    write_stories260k(data_folder / "stories260k")
    with pytest.raises(RecipeError, match=r"max_tokens 600: stories260K\.bin reads at most 512"):
        llama2c.load(run_config(max_tokens=600))


def test_hub_files(run_config, data_folder, monkeypatch):
    asked = []

    def download(name, file, revision):
        asked.append((name, file, revision))
        return str(data_folder / file.lower().replace("260k.bin", "260K.bin"))

    monkeypatch.setattr(llama2c, "hf_hub_download", download)
    llama2c.load(run_config(folder=None))
    assert asked == [("nobody/nothing", f"stories260K/{file}", "main") for file in ("stories260K.bin", "tok512.bin")]


def test_lora_trains_adapters_only(run_config, tmp_path):
    pytest.importorskip("peft")
    chosen = run_config()
    set_seed(0)
    parts = tasks.build(chosen, sources.examples(chosen))
    before = {name: weight.clone() for name, weight in parts.model.named_parameters()}
    trained = {name for name, weight in parts.model.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 * 2 * 2  # two layers, two targets, two matrices
    args = TrainingArguments(
        str(tmp_path), max_steps=5, learning_rate=0.1, report_to="none", save_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False, use_cpu=True,
    )  # fmt: skip
    trainer = Trainer(args=args, **vars(parts))
    trainer.train()
    changed = {name for name, weight in parts.model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == trained
    result = trainer.evaluate()
    assert result["eval_perplexity"] == pytest.approx(np.exp(result["eval_loss"]), rel=1e-4)


def test_lora_of_gpt2():
    pytest.importorskip("peft")
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    # an error here is peft's warning, if it is not told that GPT-2's weights are transposed
    adapted = adapters.adapt(model, Lora(rank=2, alpha=4, targets=["c_attn"]), "CAUSAL_LM")
    shapes = {name.split(".")[-3]: tuple(p.shape) for name, p in adapted.named_parameters() if p.requires_grad}
    assert shapes == {"lora_A": (2, 8), "lora_B": (24, 2)}


def test_lora_without_its_targets_or_peft(run_config, monkeypatch):
    pytest.importorskip("peft")
    chosen = run_config(model={"llama2c": LLAMA, "lora": {**LORA, "targets": ["q_proj", "c_attn"]}})
    found = sources.examples(chosen)
    with pytest.raises(RecipeError, match=r"LlamaForCausalLM has no c_attn, only down_proj, .*q_proj"):
        tasks.build(chosen, found)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RecipeError, match=r"pip install 'emo-hf\[integrations\]'"):
        tasks.build(chosen, found)
