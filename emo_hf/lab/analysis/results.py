"""From result files to the table of a comparison: one row per arm, over its finished runs."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emo_hf.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Stat:
    """Mean and standard deviation over the seeds; None where there is none. `missing`: values that are not finite."""

    mean: float | None
    sd: float | None
    missing: int = 0

    @classmethod
    def from_values(cls, values: list[float | None]) -> "Stat":
        """A mean with a missing value (not finite) is missing."""
        missing = values.count(None)
        if missing or not values:
            return cls(None, None, missing)
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def text(self, form: str, form_of_sd: str | None = None) -> str:
        """Returns "mean ± standard deviation", or the mean alone; there has to be one."""
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
        return self.runs[0]["optimizer"]

    @property
    def tuning(self) -> str:
        return self.runs[0]["tuning"]

    def stat(self, name: str) -> Stat | None:
        """Returns mean and standard deviation of a number of the summaries, None if they do not have it."""
        values = [number(run[name]) for run in self.runs if name in run]
        return Stat.from_values(values) if values else None


def number(value: Any) -> float | None:
    """Returns a finite float, None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        RecipeError: it is none.
    """
    return parsed(path, path.read_text(encoding="utf-8"))


def parsed(path: Path, text: str) -> Any:
    """Returns what `text` out of the file `path` holds as JSON; `RecipeError` if it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise RecipeError(f"{path} cannot be read: {error}.") from None


def table(summaries: Iterable[dict[str, Any]]) -> list[ArmResult]:
    """Returns one row per arm, in the order of first appearance."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for summary in summaries:
        arms.setdefault(summary["arm"], []).append(summary)
    return [ArmResult(arm, runs) for arm, runs in arms.items()]
