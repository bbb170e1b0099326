"""Keys and passwords are found, and what only looks like one is left alone."""

import pytest

from emo_hf.hf.confidential import masked, masked_of_log, places

TOKEN = "hf_" + "aB3dE5gH" * 4
HASH = "0a1b2c3d4e" * 4


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"see {TOKEN}.",
        "hf_" + "abcdefgh" * 4,
        "sk-proj-" + "a1b2" * 5,
        "hf_Sesame_and_some_more",
        "ghp_" + "a1b2" * 9,
        "AKIA" + "A1B2" * 4,
        "xoxb-" + "a1b2" * 9,
        "github_pat_" + "a1b2" * 9,
        HASH,
        f"key {HASH}",
        f"https://{TOKEN}@huggingface.co/a/b",
        "https://user:pass@host/x",
        "git+https://:pass@host/x",
        "https://user:p@ss@host",
    ],
)
def test_keys_and_passwords(text):
    (line,) = places({"a": [{"b": text}]})
    assert line.startswith("a.0.b: holds ")
    for shown in (line, masked(text), masked_of_log(text)):
        assert not any(secret in shown for secret in (text, TOKEN, HASH, "pass@", "p@ss", "a1b2", "abcdefgh"))


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
    ],
)
def test_what_is_none(text):
    assert not list(places({"source": text}))


def test_a_hash_is_no_key_where_a_revision_belongs():
    assert not list(places({"revision": HASH}))
    assert list(places({"revision": TOKEN}))


def test_names_are_looked_at_and_not_repeated():
    lines = list(places({"arms": {TOKEN: {"note": "https://user:pass@host"}}}))
    assert len(lines) == 2
    assert not any(TOKEN in line or "pass" in line.partition(": ")[0] for line in lines)
