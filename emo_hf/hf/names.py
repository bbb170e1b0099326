"""New members of the closed enumerations in which transformers keeps the names that `TrainingArguments` accepts."""

import functools
from collections.abc import Iterable
from enum import Enum
from typing import Any, cast


def add_members(enumeration: type[Enum], values: Iterable[str]) -> None:
    """Adds ``values`` to an enumeration of strings; those that it has are left alone.

    Raises:
        AttributeError, TypeError, ValueError: it is not built as the enumerations of Python and transformers are.
    """
    for value in values:
        if value in enumeration._value2member_map_:
            continue
        member: Any = str.__new__(cast("type[Any]", enumeration), value)
        # A member hashes as its name. Name and value are equal, so the plain string finds the handler as well:
        # arguments that were pickled, or deep-copied by Python 3.10, hold that string.
        member._name_ = member._value_ = value
        member.__objclass__ = enumeration
        member._sort_order_ = len(enumeration._member_names_)
        # training_args.bin must load where this package is not installed: pickle the member as its string.
        member.__reduce_ex__ = functools.partial(_reduce, value)
        enumeration._member_names_.append(value)
        enumeration._member_map_[value] = member
        enumeration._value2member_map_[value] = member
        type.__setattr__(enumeration, value, member)
        if enumeration(value) is not member or member not in list(enumeration):
            raise ValueError(f"{enumeration.__name__} ignores its new member {value!r}")


def remove_members(enumeration: type[Enum], values: Iterable[str]) -> None:
    """Takes those of ``values`` out again that `add_members` has added."""
    for value in values:
        member = enumeration._value2member_map_.get(value)
        if member is None or "__reduce_ex__" not in vars(member):
            continue
        enumeration._member_names_.remove(value)
        del enumeration._member_map_[value], enumeration._value2member_map_[value]
        type.__delattr__(enumeration, value)


def _reduce(value: str, protocol: int | None = None) -> tuple[type[str], tuple[str]]:
    return str, (value,)
