"""Keys and passwords are found, and what only looks like one is left alone."""

import re
import time

import pytest

from emo_hf.hf.confidential import FORMS, masked, masked_of_log, places

TOKEN = "hf_" + "aB3dE5gH" * 4
HASH = "0a1b2c3d4e" * 4


DIGITS = "a1b2" * 20
MIXED = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYSAMPLEKEYx"  # 40 characters
SECRETS = {  # kind -> texts with one; all made up, none whole in this file
    "Hugging Face": [
        TOKEN,
        f"see {TOKEN}.",
        "hf_" + "abcdefgh" * 4,
        "hf_Sesame_and_some_more",
        "api_org_" + DIGITS[:34],
    ],
    "Weights & Biases": ["wandb_v1_" + DIGITS[:40]],
    "OpenAI, Anthropic": ["sk-proj-" + DIGITS[:20], "sk-ant-api03-" + DIGITS],
    "Google": ["AIza" + DIGITS[:35]],
    "AWS, its id": [f"{start}{'A1B2' * 4}" for start in ("AKIA", "ASIA", "ABIA", "ACCA")] + ["key:AKIA" + "Q" * 16],
    "AWS, the key itself": [MIXED, f"aws {MIXED}", f"id:{MIXED}"],
    "Azure": ["DefaultEndpointsProtocol=https;AccountKey=" + DIGITS + "=="],
    "GitHub": [f"gh{kind}_" + DIGITS[:36] for kind in "oprsu"] + ["github_pat_" + DIGITS[:36]],
    "GitLab": ["glpat-" + DIGITS[:20], "glrt-" + DIGITS[:20]],
    "Slack": ["xoxb-" + DIGITS[:36], "xapp-1-" + DIGITS[:36]],
    "Slack, Discord: a webhook": ["https://hooks.slack" + ".com/services/T0/B0/x" + DIGITS[:8]],
    "Stripe": ["sk_live" + "_" + DIGITS[:24], "rk_test" + "_" + DIGITS[:24]],
    "SendGrid": ["SG." + DIGITS[:22] + "." + DIGITS[:43]],
    "npm, PyPI": ["npm_" + DIGITS[:36], "pypi-AgE" + DIGITS],
    "JSON Web Token": [
        "eyJ" + DIGITS[:17] + ".eyJ" + DIGITS[:30] + "." + DIGITS[:43],
        "eyJhbGciOiJub25l.eyJzdWIiOiJh.",
    ],
    "private key": [
        f"-----BEGIN {kind}PRIVATE KEY-----\nMIIsesame\n-----END {kind}PRIVATE KEY-----"
        for kind in ("", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ")
    ]
    + ["-----BEGIN PGP PRIVATE KEY BLOCK-----\nsesame"],
    "a signed address": ["https://host/x?sv=1&sig=sesame%2Fsesame", "https://host/x?X-Amz-Signature=sesamesesame"],
    "what is called a secret": [
        f"{name}{sign}sesame2sesame"
        for name in ("password", "api_key", "API-KEY", "access_token", "aws_secret_access_key", "SECRET")
        for sign in ("=", ": ", ':"')
    ]
    + ["https://host/x?access_token=sesame2sesame"],
    "a long mixture": [HASH, f"key {HASH}", f"key:{HASH}", f"wandb: {HASH}", f"http://host:{HASH}"],
    "an address with one": [
        f"https://{TOKEN}@huggingface.co/a/b",
        f"https://{HASH[:12]}@host/x",
        "https://sesame-and-a-long-word@host/x",
        "https://user:pass@host/x",
        "git+https://:pass@host/x",
        "https://user:p@ss@host",
    ],
}


def test_every_form_has_a_source_and_a_text():
    assert SECRETS.keys() == {form.kind for form in FORMS} | {"a long mixture", "an address with one"}
    for form in FORMS:
        assert form.source
        assert all(re.search(form.pattern, text) for text in SECRETS[form.kind])


@pytest.mark.parametrize("text", [text for texts in SECRETS.values() for text in texts])
def test_keys_and_passwords(text):
    (line,) = places({"a": [{"b": text}]})
    assert line.startswith("a.0.b: holds ")
    for shown in (line, masked(text), masked_of_log(text)):
        parts = (text, TOKEN, HASH, HASH[:12], MIXED, "pass@", "p@ss", "a1b2", "abcdefgh", "sesame", "A1B2", "QQQQ")
        assert not any(secret in shown for secret in parts)


@pytest.mark.parametrize(
    "piece",
    ["hf_-", "sk-", "eyJ-", "-----BEGIN PRIVATE KEY-----", "token=", "://a:", "://a1", "a1", "A", "xoxb-a-", "0"],
)
def test_no_text_takes_long(piece):
    for text in (piece * (60_000 // len(piece)), f"{piece} " * (60_000 // len(piece))):
        start = time.process_time()
        list(places({"a": text}))
        masked_of_log(text)
        assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "text",
    [
        "GPT2ForSequenceClassification",
        "trec_gpt2_weight_pca_3panel.png",
        f"https://github.com/muooon/EmoNavi/commit/{HASH} and muooon/EmoSens@{HASH}",
        "ssh://git@github.com/a/b",
        "http://localhost:80/a@b",
        "a task-specific-learning-rate of sk-learn-compatible models",
        "emo_hf_and_the_transformers",
        "hf_hub_download_of_models",
        "Wav2Vec2ForSequenceClassification2",
        f"https://proceedings.neurips.cc/paper/2020/hash/{HASH[:32]}-Abstract.html",
        f"commit {HASH}, sha256:{HASH[:24] + HASH}",
        "http://foo.bar:8080,me@x.de",
        f"rev: {HASH}; sha1:{HASH}; git:{HASH}; md5: {HASH[:32]}",
        f"swh:1:rev:{HASH}",
        f"data (revision `{HASH}`), SHA-256 `{HASH[:24] + HASH}`",
        "https://jordan@host/x",
        "the next token: 8-bit, 512 tokens in all; secret: none",
        "num_tokens=1e6, token_count: 512, max_tokens: 100000000",
        "EleutherAI/pythia-160m-deduped/resolve/main/config.json",
        "recipes/second_generation/trec/emosens39",
        "a significant=0.0012345 sig: 12345678",
        "-----BEGIN CERTIFICATE-----",
        "Asian and AKIA",
    ],
)
def test_what_is_none(text):
    assert not list(places({"source": text}))


def test_a_hash_is_no_key_where_a_revision_belongs():
    assert not list(places({"revision": HASH}))
    assert list(places({"revision": TOKEN}))
    assert not list(places({"config": {"sha256": HASH[:24] + HASH}}))
    assert list(places({"key": HASH}))


def test_names_are_looked_at_and_not_repeated():
    lines = list(places({"arms": {TOKEN: {"note": "https://user:pass@host"}}}))
    assert len(lines) == 2
    assert not any(TOKEN in line or "pass" in line.partition(": ")[0] for line in lines)
