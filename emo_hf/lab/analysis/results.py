"""The table of a comparison: one row per arm, over its finished runs."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emo_hf.errors import RecipeError
from emo_hf.reading import GREATEST, read_text, shown

Count = Annotated[int, Field(ge=0, le=GREATEST)]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Stat:
    """Mean and standard deviation over the seeds, None where there is none; `missing`: how many are not finite."""

    mean: float | None
    sd: float | None
    missing: int = 0

    @classmethod
    def from_values(cls, values: list[float | None]) -> "Stat":
        """A mean with a missing value (not finite) is missing."""
        finite = [value for value in values if value is not None]
        if not finite or len(finite) < len(values):
            return cls(None, None, len(values) - len(finite))
        return cls(statistics.fmean(finite), statistics.stdev(finite) if len(finite) > 1 else None)

    def text(self, form: str, form_of_sd: str | None = None) -> str:
        """Returns "mean ± standard deviation", or the mean alone if there is one seed; the mean has to exist."""
        return f"{self.mean:{form}}" + ("" if self.sd is None else f" ± {self.sd:{form_of_sd or form}}")


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm of a comparison and the summaries of its runs."""

    arm: str
    runs: list[dict[str, Any]]

    @property
    def n(self) -> int:
        return len(self.runs)

    @property
    def optimizer(self) -> str:
        return str(self.runs[0]["optimizer"])

    @property
    def tuning(self) -> str:
        return str(self.runs[0]["tuning"])

    def stat(self, name: str) -> Stat | None:
        """Returns mean and standard deviation of a number of the summaries, None if no summary has it."""
        values = [number(run[name]) for run in self.runs if name in run]
        return Stat.from_values(values) if values else None


def number(value: Any) -> float | None:
    """Returns `value` if it is a finite number, else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


class Environment(BaseModel):
    """Where a run ran: the content of its ``env.json``, and how many runs did, in a report."""

    model_config = ConfigDict(extra="allow", strict=True)

    runs: Count | None = None
    python: str | None = None
    system: str | None = None
    device: str | None = None
    cpu_threads: Count | None = None
    packages: dict[str, str | None] = {}


def environment(path: Path) -> dict[str, Any]:
    """Returns the content of an ``env.json``, an empty one if there is none; raises `RecipeError` if it is no such."""
    text = read_text(path, RecipeError) if path.exists() else "{}"
    checked(Environment, text, path)
    content: dict[str, Any] = json.loads(text)
    return content


def checked(model: type[Model], text: str, path: Path) -> Model:
    """Returns the JSON `text` of the file `path` as a model.

    Raises:
        RecipeError: it does not fit; its first mistake is named.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f", {part}" for part in first["loc"])
        got = shown(first["input"])
        raise RecipeError(f"{path} is not as emo-hf wrote it{place}: {first['msg']}, got {got}.") from None


def table(summaries: Iterable[dict[str, Any]]) -> list[ArmResult]:
    """Returns one row per arm, in the order of first appearance."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for summary in summaries:
        arms.setdefault(summary["arm"], []).append(summary)
    return [ArmResult(arm, runs) for arm, runs in arms.items()]
