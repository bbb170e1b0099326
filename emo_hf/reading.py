"""How a file that may be damaged, or somebody else's, is read: what is wrong with it is one error that names it.

content = read_json(path, RecordError)      its JSON, whatever it is
expect(content, dict, str(path), "a JSON object", RecordError)
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from emo_hf.errors import EmoError

SHOWN = 60  # characters of what was found
GREATEST = 2**53  # beyond it, not every integer is a float
LARGEST = 10**308  # an integer from here on may be no float at all

Kind = TypeVar("Kind")


def read_text(path: Path, error: type[EmoError]) -> str:
    """Returns the text of a file.

    Raises:
        error: it cannot be opened, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}.") from None
    except UnicodeDecodeError as problem:
        raise error(f"{path} cannot be read: it is not UTF-8 ({problem.reason} at byte {problem.start}).") from None


def read_json(path: Path, error: type[EmoError]) -> Any:
    """Returns the JSON of a file.

    Raises:
        error: it cannot be opened, or is no JSON.
    """
    return parse_json(read_text(path, error), str(path), error)


def parse_json(text: str, place: str, error: type[EmoError]) -> Any:
    """Returns the JSON in `text`, which is from `place`: a file, or a line of it.

    Raises:
        error: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise error(f"{place} is not JSON: {problem}.") from None


def expect(value: Any, kind: type[Kind], place: str, what: str, error: type[EmoError]) -> Kind:
    """Returns `value` if it is of the type `kind`; a bool is no number.

    Args:
        place: where it is from.
        what: what was expected there, in words.

    Raises:
        error: it is of another type.
    """
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise error(f"{place}: expected {what}, got {shown(value)}.")


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that a float can hold, or NaN or infinite."""
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST
    )


def is_count(value: Any) -> bool:
    """Whether a value of JSON is a whole number from 0 on, at most 2**53."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= GREATEST


def shown(value: Any) -> str:
    """Returns a value for an error message: short, and without control characters."""
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
