"""The folder of one run, and the names of the files in it:

    config.yaml           what the run is: an `emo_hf.lab.recipe.schema.RunConfig`
    env.json              versions and device
    log.txt               everything that its processes printed
    history.jsonl         what Trainer logs, while it logs it
    emo_signals.jsonl     the signals of an emo optimizer
    emo_run.json          the settings of that optimizer, and the length of the training
    trajectory.npz        the weights of the classifier at every evaluation, if the recipe measures them
    checkpoint-<step>/    a checkpoint of Trainer
    trainer_state.json    the state of Trainer, in each checkpoint
    summary.json          the result; it is written last, so a folder that has it is finished

`emo-hf run` writes all of them. A training of one's own leaves some of them, and the dashboards read what is there.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from emo_hf.errors import RecipeError
from emo_hf.extras import needing
from emo_hf.reading import expect, is_count, is_number, parse_json, read_text, shown

SIGNALS, SETTINGS = "emo_signals.jsonl", "emo_run.json"
RECIPE = "recipe.yaml"  # in the folder of a comparison
HISTORY, STATE = "history.jsonl", "trainer_state.json"
_CHECKPOINT = re.compile(r"checkpoint-[0-9]+")
# what is in a summary; all else are numbers, None where one was not finite
SQUARABLE = 1e150  # its square, for a standard deviation, is still a number
NEEDED = ("arm", "optimizer", "tuning")
TEXTS = (*NEEDED, "recipe", "size", "data_sha256")
CLASSES = "classes"  # the names of what a task tells apart
LISTS = (CLASSES, "nonfinite")  # of names
COUNTS = ("seed", "steps", "parameters", "trained_parameters", "train_examples", "test_examples")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder; it need not exist."""

    path: Path

    @classmethod
    def in_comparison(cls, place: Path, arm: str, seed: int) -> "RunFolder":
        """Returns the folder of an arm and a seed in that of their comparison, RUNS/<recipe>/<size>."""
        return cls(place / arm / f"seed{seed}")

    @classmethod
    def all_in_comparison(cls, place: Path) -> Iterator["RunFolder"]:
        """Yields the folders of the runs in a comparison, sorted, without those that were moved aside."""
        for config in sorted(place.glob("*/seed*/config.yaml")):
            if ".aside-" not in config.parent.name:
                yield cls(config.parent)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def comparison(self) -> Path:
        """The folder of its comparison."""
        return self.path.parents[1]

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "env.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def history(self) -> Path:
        return self.path / HISTORY

    @property
    def signals(self) -> Path:
        return self.path / SIGNALS

    @property
    def settings(self) -> Path:
        return self.path / SETTINGS

    @property
    def trajectory(self) -> Path:
        return self.path / "trajectory.npz"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def is_finished(self) -> bool:
        return self.summary.exists()

    def checkpoints(self) -> list[Path]:
        """Returns the folders of its checkpoints, in no order. Others whose name begins so are somebody else's."""
        return [path for path in self.path.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name) and path.is_dir()]

    def newest_state(self) -> Path | None:
        """Returns the state that Trainer wrote last, at the end or into a checkpoint; None if there is none."""
        states = [path for folder in (self.path, *self.checkpoints()) if (path := folder / STATE).exists()]
        return max(states, key=lambda path: path.stat().st_mtime, default=None)

    def read_config(self) -> Any:
        """Returns the content of ``config.yaml``, unchecked; None if there is none, or it is no YAML."""
        if not self.config.exists():
            return None
        with needing(str(self.config)):
            import yaml  # only runs of recipes have this file
        try:
            return yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return None

    def read_log(self) -> str:
        """Returns what its processes printed; an empty text if there is no log."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def read_summary(self) -> dict[str, Any] | None:
        """Returns the result, None if the run has not finished.

        Raises:
            RecipeError: the file is no summary.
        """
        if not self.is_finished:
            return None
        return parse_summary(read_text(self.summary, RecipeError), self.summary)


def is_comparison_folder(place: Path) -> bool:
    """Whether `place` is the folder of a comparison."""
    return (place / RECIPE).is_file()


def parse_summary(text: str, path: Path, line: int | None = None) -> dict[str, Any]:
    """Returns the summary of a run in `text`, which is from the file `path`, or from one `line` of it.

    Raises:
        RecipeError: it is none.
    """
    place = str(path) if line is None else f"{path}, line {line}"
    summary: dict[str, Any] = {}
    try:
        summary = expect(parse_json(text, place, RecipeError), dict, place, "a JSON object", RecipeError)
        for name in TEXTS:
            expect(summary.get(name, None if name in NEEDED else ""), str, f"{place}, {name}", "a text", RecipeError)
        for name, value in summary.items():
            if name in COUNTS and not is_count(value):
                raise RecipeError(f"{place}, {name}: expected a whole number, got {shown(value)}.")
            if name in LISTS:
                if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
                    raise RecipeError(f"{place}, {name}: expected a list of texts, got {shown(value)}.")
            elif name not in TEXTS and not (value is None or (is_number(value) and not SQUARABLE < abs(value) < inf)):
                raise RecipeError(f"{place}, {name}: expected a number, got {shown(value)}.")
    except RecipeError as error:
        raise RecipeError(f"{place} is no summary: remove its folder and run again. {error}") from None
    return summary
