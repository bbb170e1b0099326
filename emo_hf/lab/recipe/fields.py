"""What every part of a recipe is made of: a strict model, and checked words and numbers."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from emo_hf.errors import RecipeError

# lower-case letters and digits with single separators between them, so a name cannot leave its folder
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=64)]
Text = Annotated[str, Field(min_length=1, max_length=5000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
LARGEST_COUNT = 10**9  # a larger one is a typing error
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("expected a finite number, a word, true, false, null, or a list of these")
    return value


Value = Annotated[Any, AfterValidator(_plain)]  # of an option that only its optimizer knows


class StrictModel(BaseModel):
    """No unknown keys, no conversions, no later changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)


def one_of(*names: str) -> Any:
    """Returns a model validator: exactly one of the fields `names` is given."""

    def check(model: StrictModel) -> StrictModel:
        if len([name for name in names if getattr(model, name) is not None]) != 1:
            raise ValueError(f"give exactly one of {', '.join(names)}")
        return model

    return model_validator(mode="after")(check)


def changed(*names: str) -> Any:
    """Returns a model validator: at least one of the fields `names` differs from its default."""

    def check(model: StrictModel) -> StrictModel:
        if all(getattr(model, name) == type(model).model_fields[name].default for name in names):
            raise ValueError(f"changes nothing: give {', '.join(names[:-1])} or {names[-1]}, or leave it out")
        return model

    return model_validator(mode="after")(check)


def renamed(**former: str) -> Any:
    """Returns a model validator that reads keys by their former names as well: ``new="old"``."""

    def rename(content: Any) -> Any:
        return with_new_keys(content, former) if isinstance(content, dict) else content

    return model_validator(mode="before")(rename)


def with_new_keys(content: dict[str, Any], former: Mapping[str, str]) -> dict[str, Any]:
    """Returns `content` with today's keys; `former` maps each to its former name.

    Raises:
        RecipeError: a key is given by both names.
    """
    for new, old in former.items():
        if old not in content:
            continue
        if new in content:
            raise RecipeError(f"{old} is the former name of {new}: give one of them")
        value = content[old]
        if old == "feed" and isinstance(value, bool):  # withhold_loss is its opposite
            value = not value
        content = {**{key: other for key, other in content.items() if key != old}, new: value}
    return content
