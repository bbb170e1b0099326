"""From result files to the table of a comparison: one row per arm, over its finished runs."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emo_hf.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Stat:
    """Mean and standard deviation over the seeds; None where there is none."""

    mean: float | None
    sd: float | None

    @classmethod
    def of(cls, values: list[float | None]) -> "Stat":
        """A mean with a missing value (not finite) is missing."""
        if not values or None in values:
            return cls(None, None)
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True, slots=True)
class Row:
    """One arm of a comparison."""

    arm: str
    optimizer: str
    n: int
    accuracy: Stat
    eval_loss: Stat
    step_size: Stat  # of the medians
    seconds: Stat
    tuning: str


def read(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Returns the summaries of the finished runs among `folders`."""
    found = []
    for path in (folder / "summary.json" for folder in folders):
        if not path.exists():
            continue
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise RecipeError(f"{path} is no summary ({error}): remove its folder and run again.") from None
    return found


def table(summaries: Iterable[dict[str, Any]]) -> list[Row]:
    """Returns one row per arm, in the order of first appearance."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for summary in summaries:
        arms.setdefault(summary["arm"], []).append(summary)
    return [
        Row(
            arm=arm,
            optimizer=runs[0]["optimizer"],
            n=len(runs),
            accuracy=Stat.of([run["accuracy"] for run in runs]),
            eval_loss=Stat.of([run["eval_loss"] for run in runs]),
            step_size=Stat.of([run["step_size_median"] for run in runs]),
            seconds=Stat.of([run["seconds"] for run in runs]),
            tuning=runs[0]["tuning"],
        )
        for arm, runs in arms.items()
    ]
