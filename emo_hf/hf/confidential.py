"""What may not leave the machine: keys, and passwords within addresses. A recipe that holds one is refused, a card and
the reason of a failure show it as dots.

A hash looks like a key. In a recipe it is none as the value of ``revision`` and its like, behind @ or /, or behind
the name of a hash and a colon (``sha256:``, ``commit:``). Behind any other colon it is one.

The forms are written from what each issuer says of its keys; the scanners gitleaks and detect-secrets have rules for
them too. Neither is a dependency: the one is no Python, the other brings requests, to ask issuers whether a key works.
Every repetition that could be tried from many places has a bound, so that no text takes long.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple


class Form(NamedTuple):
    """How a kind of secret looks, and who says so."""

    kind: str
    source: str
    pattern: str


_MORE = r"[\w-]{12,300}"
_MIXED = r"(?=[\w-]{0,300}[A-Z0-9])"  # words in lower case are names of variables
FORMS = (
    Form(
        "Hugging Face",
        "huggingface.co/docs/hub/security-tokens",
        rf"\b(?:hf_|api_org_)(?:[A-Za-z0-9]{{12,99}}|{_MIXED}{_MORE})",
    ),
    Form("Weights & Biases", "docs.wandb.ai, API keys", rf"\bwandb_v1_{_MORE}"),
    Form(
        "OpenAI, Anthropic",
        "platform.openai.com and docs.anthropic.com, API keys",
        rf"\bsk-(?=[\w-]{{0,300}}\d){_MORE}",
    ),
    Form("Google", "cloud.google.com/docs/authentication/api-keys", r"\bAIza[\w-]{35}"),
    Form(
        "AWS, its id",
        "docs.aws.amazon.com/IAM, unique identifiers",
        r"\b(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}\b",
    ),
    Form(
        "AWS, the key itself",
        "docs.aws.amazon.com/IAM, access keys: 40 characters of base64",
        r"(?<![\w+/=.-])(?=[A-Za-z+/]{0,39}\d)(?=(?:[a-z0-9+/]{0,39}[A-Z]){8})(?=(?:[A-Z0-9+/]{0,39}[a-z]){8})"
        r"[A-Za-z0-9+/]{40}(?![\w+/=-])",
    ),
    Form(
        "Azure",
        "learn.microsoft.com, storage connection strings",
        r"\b(?:AccountKey|SharedAccessKey)=[\w+/]{40,100}={0,2}",
    ),
    Form("GitHub", "docs.github.com, GitHub's token formats", rf"\b(?:gh[oprsu]_|github_pat_){_MORE}"),
    Form("GitLab", "docs.gitlab.com, token prefixes", rf"\bgl(?:pat|ptt|dt|rt|cbt|agent|soat)-{_MORE}"),
    Form("Slack", "api.slack.com/authentication/token-types", r"\b(?:xox[a-z]|xapp)-[\w-]{12,300}"),
    Form(
        "Slack, Discord: a webhook",
        "api.slack.com and discord.com/developers, webhooks",
        r"\b(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/[\w/-]{10,300}",
    ),
    Form("Stripe", "docs.stripe.com/keys", r"\b[prs]k_(?:live|test)_[A-Za-z0-9]{10,99}"),
    Form("SendGrid", "docs.sendgrid.com, API keys", r"\bSG\.[\w-]{16,64}\.[\w-]{16,64}"),
    Form(
        "npm, PyPI",
        "docs.npmjs.com and pypi.org/help, access tokens",
        r"\b(?:npm_[A-Za-z0-9]{36}|pypi-AgE[\w-]{20,300})",
    ),
    Form("JSON Web Token", 'RFC 7519: base64url of {"', r"\beyJ[\w-]{10,2000}\.eyJ[\w-]{5,2000}(?:\.[\w-]{0,2000})?"),
    Form(
        "private key",
        "RFC 7468, section 10",
        r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"(?s:.{0,4999}?(?:-----END[ A-Z0-9]{0,60}-----|\Z))?",
    ),
    Form(
        "a signed address",
        "docs.aws.amazon.com, signed requests; learn.microsoft.com, shared access signatures",
        r"[?&](?:sig|(?:X-Amz-)?Signature)=[^\s&]{8,500}",
    ),
    Form(
        "what is called a secret",
        "as detect-secrets' KeywordDetector, with letters and digits behind the word",
        r"(?i:(?<![a-z])(?:password|passwd|secret|token|api[_-]?key|(?:access|account|private|secret)[_-]?key))"
        r"[\"']?[ \t]{0,3}[=:][ \t]{0,3}[\"']?"
        r"(?=[^\s\"'&,;]{0,99}\d)(?=[^\s\"'&,;]{0,99}[A-Za-z])[^\s\"'&,;]{8,300}",
    ),
)
_ISSUED = "|".join(form.pattern for form in FORMS)
# a long mixture of letters and digits may be a key
_KEYS = re.compile(rf"{_ISSUED}|\b(?=\w*\d)(?=\w*[A-Za-z])\w{{24,}}\b")
# in a recipe, names like GPT2ForSequenceClassification and trec_gpt2_weight_pca_3panel are none
_KEYS_IN_RECIPES = re.compile(rf"{_ISSUED}|(?<![A-Za-z0-9])(?=(?:[A-Za-z]*\d){{5}})(?=\d*[A-Za-z])[A-Za-z0-9]{{24,}}")
# user:password@, or a token in the place of both; a short name alone is none
_PASSWORD = re.compile(r"(?<=://)(?:[^\s/:@]*:[^\s/,;]*@|(?=[^\s/:@]{0,99}\d|[^\s/:@]{20})[^\s/:@]{8,}@)")
_HASH = r"(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})"
_OF_HASHES = ("revision", "rev", "commit", "sha", "sha1", "sha256", "md5")  # keys of hashes
_REVISION = re.compile(rf"(?:(?<=[@/])|(?i:\b(?:{'|'.join(_OF_HASHES)}|sha-256|git))[: ]{{1,2}}`?){_HASH}\b")
_PATHS_AND_LONG_WORDS = re.compile(r"[\w+/=-]{24,}|(?<![\w.])/[\w./-]+")


def masked(text: str, dots: str = "...") -> str:
    """Returns `text` with dots in place of what could be a key or a password."""
    return _KEYS.sub(dots, _PASSWORD.sub(f"{dots}@", text))


def masked_of_log(text: str) -> str:
    """Returns a line that anything may have written, also without paths and long words."""
    return _PATHS_AND_LONG_WORDS.sub("[...]", masked(text, "[...]"))


def places(content: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields where in the content of a YAML file a key or password stands, as a line that does not repeat it."""
    if isinstance(content, str) and (kind := _kind(content, bool(path) and path[-1] in _OF_HASHES)):
        yield f"{'.'.join(map(masked, path))}: holds {kind}, which would reach reports and cards: take it out."
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        if isinstance(content, dict) and isinstance(key, str) and (kind := _kind(key)):
            yield f"{'.'.join(map(masked, (*path, key)))}: a name with {kind}: give it another."
        yield from places(value, (*path, str(key)))


def _kind(text: str, is_hash: bool = False) -> str | None:
    if _PASSWORD.search(text):
        return "an address with a password or token"
    if is_hash and re.fullmatch(_HASH, text):
        return None
    return "what looks like a key or token" if _KEYS_IN_RECIPES.search(_REVISION.sub("", text)) else None
