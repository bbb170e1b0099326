"""What may not leave the machine: keys, and passwords within addresses. A recipe that holds one is refused, a card and
the reason of a failure show it as dots.

A hash looks like a key. In a recipe it is none as the value of ``revision``, nor behind @, /, : or "commit".
"""

import re
from collections.abc import Iterator
from typing import Any

# of Hugging Face, W&B, GitHub and others; and a long mixture of letters and digits, which may be one
_ISSUED = (
    r"\b(?:(?:hf_|api_org_)(?:[A-Za-z0-9]{12,}|(?=[\w-]*[A-Z0-9])[\w-]{12,})|sk-(?=[\w-]*\d)[\w-]{12,}"
    r"|(?:wandb_v1_|gh[oprsu]_|github_pat_|glpat-|xox[abp]-)[\w-]{12,}|AKIA[0-9A-Z]{16})"
)
_KEYS = re.compile(rf"{_ISSUED}|\b(?=\w*\d)(?=\w*[A-Za-z])\w{{24,}}\b")
# in a recipe, names like GPT2ForSequenceClassification and trec_gpt2_weight_pca_3panel are none
_KEYS_IN_RECIPES = re.compile(rf"{_ISSUED}|(?<![A-Za-z0-9])(?=(?:[A-Za-z]*\d){{5}})(?=\d*[A-Za-z])[A-Za-z0-9]{{24,}}")
_PASSWORD = re.compile(r"(?<=://)[^\s/:@]*:[^\s/,;]*@")
_HASH = r"(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})"
_REVISION = re.compile(rf"(?:(?<=[@/:])|(?<=commit )){_HASH}\b")
_PATHS_AND_LONG_WORDS = re.compile(r"[\w+/=-]{24,}|(?<![\w.])/[\w./-]+")


def masked(text: str, dots: str = "...") -> str:
    """Returns `text` with dots in place of what could be a key or a password."""
    return _KEYS.sub(dots, _PASSWORD.sub(f"{dots}@", text))


def masked_of_log(text: str) -> str:
    """Returns a line that anything may have written, also without paths and long words."""
    return _PATHS_AND_LONG_WORDS.sub("[...]", masked(text, "[...]"))


def places(content: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields where in the content of a YAML file a key or password stands, as a line that does not repeat it."""
    if isinstance(content, str) and (kind := _kind(content, path[-1:] == ("revision",))):
        yield f"{'.'.join(map(masked, path))}: holds {kind}, which would reach reports and cards: take it out."
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        if isinstance(content, dict) and isinstance(key, str) and (kind := _kind(key)):
            yield f"{'.'.join(map(masked, (*path, key)))}: a name with {kind}: give it another."
        yield from places(value, (*path, str(key)))


def _kind(text: str, is_revision: bool = False) -> str | None:
    if _PASSWORD.search(text):
        return "an address with a password"
    if is_revision and re.fullmatch(_HASH, text):
        return None
    return "what looks like a key or token" if _KEYS_IN_RECIPES.search(_REVISION.sub("", text)) else None
