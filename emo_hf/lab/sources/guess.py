"""What a file of one's own is meant for: its format, and what each column is for. Every guess gives its reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.data import TaskType
from emo_hf.lab.sources.columns import Table

FORMATS = {
    **{".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"},
    **{".parquet": "parquet", ".txt": "text"},
}
NAMES = {  # of columns, the likeliest first
    "prompt": ("prompt", "instruction", "question", "input", "query"),
    "completion": ("completion", "response", "answer", "output", "reply"),
    "label": ("label", "labels", "class", "category", "kind", "target", "sentiment", "intent", "topic", "type"),
    "text": ("text", "sentence", "question", "review", "document", "content", "message", "comment", "title"),
}
MOST_CLASSES = 200


class Guess(NamedTuple):
    """A task, the columns to read by what they are for, and why."""

    task: TaskType
    columns: dict[str, str]
    reasons: list[str]


def form(path: Path) -> str:
    """Returns the format of a file or folder by its name and content; `RecipeError` if it is none that can be read."""
    if path.is_dir() and any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return "saved"
    if path.is_dir() and any(path.rglob("*.txt")):
        return "text"
    if path.is_file() and path.suffix.lower() in FORMATS:
        return FORMATS[path.suffix.lower()]
    raise RecipeError(
        f"{path} {'is of no known kind' if path.exists() else 'does not exist'}: expected a file {', '.join(FORMATS)},"
        " a folder of files .txt, or one that save_to_disk of datasets wrote."
    )


def columns(table: Table, given: Mapping[str, str]) -> Guess:
    """Guesses what the columns of a table are for, as far as it is not `given`.

    Raises:
        RecipeError: the table has no column of texts.
    """
    rows = table.rows[:10_000]  # enough to see what a column is
    named = {name.lower(): name for name in rows}
    texts = [name for name, values in rows.items() if values and all(isinstance(value, str) for value in values)]
    if not given or given.keys() & {"prompt", "completion"}:
        prompt, completion = (given.get(key) or _named(key, named, texts) for key in ("prompt", "completion"))
        if prompt and completion and prompt != completion:
            pair = {"prompt": prompt, "completion": completion}
            return Guess("causal-lm", pair, [_reason(key, name, given) for key, name in pair.items()])
    counts = {name: len(set(map(str, values))) for name, values in rows.items()}
    size = len(next(iter(rows.values()), []))
    classes = [name for name, count in counts.items() if 2 <= count <= min(MOST_CLASSES, max(2, size // 2))]
    label = given.get("label") or _named("label", named, classes)
    text = given.get("text") or _named("text", named, [name for name in texts if name != label])
    reasons = []
    if text:
        reasons.append(_reason("text", text, given))
    else:
        longest = {name: sum(map(len, rows[name])) for name in texts if name != label}
        if not longest:
            raise RecipeError(f"{table.name} has no column of texts, only {', '.join(rows)}: give one by --text.")
        text = max(longest, key=longest.__getitem__)
        reasons.append(f"text is the column {text!r}, whose texts are the longest")
    if label is None and (few := [name for name in classes if name != text]):
        label = min(few, key=counts.__getitem__)
        reasons.append(f"label is the column {label!r}, which has only {counts[label]} different values")
    elif label is not None:
        reasons.append(_reason("label", label, given))
    if label is None:
        return Guess("causal-lm", {"text": text}, [*reasons, "no column looks like classes: a language model learns"])
    return Guess("sequence-classification", {"text": text, "label": label}, reasons)


def _named(key: str, named: Mapping[str, str], among: list[str]) -> str | None:
    return next((named[name] for name in NAMES[key] if named.get(name) in among), None)


def _reason(key: str, name: str, given: Mapping[str, str]) -> str:
    return f"{key} is the column {name!r}, {'as given' if key in given else 'by its name'}"
