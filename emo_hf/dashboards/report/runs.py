"""What was recorded of a training, from any of the places where it may lie:

    a run folder            emo_signals.jsonl, with history.jsonl or trainer_state.json (the newest checkpoint's)
    a folder of runs        all runs below it, except those moved aside
    trainer_state.json      what Trainer logged, also of optimizers that have no emotion
    a W&B run, offline      its folder, or its .wandb file

Keys are those of `emo_hf.dashboards.metrics`. The step size of an optimizer without emotion is Trainer's
``learning_rate``, so that all can be compared.
"""

import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emo_hf.dashboards.jsonl import FILE_NAME, LogRow, check_row
from emo_hf.dashboards.metrics import METRICS
from emo_hf.dashboards.series import Block, Series, gathered, joined, read_blocks, to_float
from emo_hf.errors import RecordError
from emo_hf.reading import expect, is_count, is_number, parse_json, read_json, shown
from emo_hf.run_folder import HISTORY, STATE, RunFolder

logger = logging.getLogger(__name__)

OF_TRAINER = {"loss": "train/loss", "grad_norm": "train/grad_norm", "learning_rate": "train/learning_rate"}
COST = re.compile(  # says nothing of the model
    r"eval/(epoch|(.*_)?(runtime|(samples|steps)_per_second|(model_preparation|jit_compilation)_time))"
)
STEP = "train/global_step"  # of a row in W&B
TIMEOUT = 120  # seconds for W&B to print a file


@dataclass(slots=True)
class RecordedRun:
    """One training. `group` is shared by runs of the same setting with other seeds."""

    path: Path
    name: str
    group: str
    optimizer: str = ""  # empty: not known
    seed: int | None = None
    total_steps: int = 0  # of the whole training; 0: not known
    found: float | None = None  # step size, by an optimizer that finds one
    bounds: dict[str, float] = field(default_factory=dict)  # of the pulse, "floor", "base" and "ceiling", if known
    stopped: str = ""  # why it ended before its time, a sentence; empty if nothing stopped it
    series: dict[str, Series] = field(default_factory=dict)

    def add(self, step: int, row: dict[str, Any]) -> None:
        """Takes what one row says of `step`; a later row wins."""
        for key, number in named(row):
            self.series.setdefault(key, Series())[step] = number

    def take(self, block: Block) -> None:
        """Takes what a stretch of rows says."""
        self.total_steps = self.total_steps if block.total_steps is None else block.total_steps
        for key, (x, y) in block.columns.items():
            if key in self.series:
                self.series[key].extend(x, y)
            else:
                self.series[key] = Series(x, y)

    @property
    def steps(self) -> int:
        """The last step of which anything is known."""
        return max((int(series.x[-1]) for series in self.series.values() if series), default=0)


def named(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields the metrics in a row, by their keys."""
    values = {**row, **dict.fromkeys(row.get("nonfinite", ()), math.nan)}
    for name, value in values.items():
        key = OF_TRAINER.get(name) or name.replace("eval_", "eval/", 1)
        of_evaluation = key.startswith("eval/") and not COST.fullmatch(key)
        wanted = key in METRICS or key == "train/learning_rate" or of_evaluation
        number = to_float(value) if wanted else None
        if number is not None:
            yield key, number


def read(paths: Iterable[str | os.PathLike[str]]) -> list[RecordedRun]:
    """Returns the runs at `paths`.

    Raises:
        RecordError: A path holds no run, or a record cannot be read.
    """
    asked = [Path(path) for path in paths]
    places = {place.resolve(): place for path in asked for place in _find(path)}
    runs = []
    for place in places.values():
        run = _read(place)
        if not METRICS.keys().isdisjoint(run.series):
            runs.append(run)
        elif place in asked:
            raise RecordError(f"{place} holds no step yet.")
        else:
            logger.warning("%s holds no step yet and is left out.", place)
    if not runs:
        raise RecordError(f"No run in {', '.join(map(str, asked))} holds a step yet.")
    return runs


def _find(path: Path) -> list[Path]:
    """Returns the files and folders at or below `path` that hold a run each."""
    if not path.exists():
        raise RecordError(f"There is no {path}. Expected a run folder, {STATE}, or an offline W&B run.")
    found = [path] if path.is_file() else list(run_places(path))
    if not found:
        raise RecordError(f"{path} holds no run: no {FILE_NAME}, {HISTORY}, {STATE} or .wandb file, here or below.")
    return found


def run_places(folder: Path) -> Iterator[Path]:
    """Yields the run folders and .wandb files at or below a folder."""
    if (folder / FILE_NAME).exists() or _log_of(folder):
        yield folder
        return
    yield from sorted(folder.glob("*.wandb"))
    for path in sorted(folder.iterdir()):
        # links may lead in circles; W&B's latest-run is one
        if path.is_dir() and not path.is_symlink() and ".aside-" not in path.name:
            yield from run_places(path)


def _log_of(folder: Path) -> Path | None:
    """Returns the file with what Trainer logged: the laboratory's, else the newest that Trainer saved."""
    run = RunFolder(folder)
    return run.history if run.history.exists() else run.newest_state()


def _read(place: Path) -> RecordedRun:
    try:
        run = _read_file(place) if place.is_file() else _read_folder(place)
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{place} cannot be read: {error}.") from None
    rate = run.series.pop("train/learning_rate", None)
    if rate and "emo/lr" not in run.series:
        run.series["emo/lr"] = rate
    return run


def _read_file(path: Path) -> RecordedRun:
    if path.suffix == ".wandb":
        return _read_wandb(path)
    run = _named(path, path.parent if path.name in (FILE_NAME, STATE) else path.with_suffix(""))
    _add_log(run, path)
    return run


def _read_folder(folder: Path) -> RecordedRun:
    run = described(folder)
    if log := _log_of(folder):
        _add_log(run, log)
    if (folder / FILE_NAME).exists():  # the truth about the signals, and every step of them
        for key in [key for key in run.series if key.startswith("emo/")]:
            del run.series[key]
        _add_log(run, folder / FILE_NAME)
    return run


def _named(path: Path, by: Path) -> RecordedRun:
    """Returns an empty run with the name of a file or folder, in a group of its own."""
    return RecordedRun(path, by.resolve().name, by.resolve().as_posix().lstrip("/"))


def described(folder: Path) -> RecordedRun:
    """Returns an empty run, named by its configuration if it is one of the laboratory, else by its folder."""
    run, files = _named(folder, folder), RunFolder(folder)
    if files.settings.exists():
        settings = _settings(files.settings)
        run.optimizer, run.seed = _emotion(settings), settings.get("seed")
        run.group = run.optimizer or run.group
        run.total_steps, run.found = settings.get("total_steps", 0), _size(settings.get("emo_found_lr"))
        run.bounds, run.stopped = _bounds(settings), _stopped(settings)
    if (config := files.read_config()) is not None:
        try:
            *names, optimizer = [config[name] for name in ("recipe", "size", "name")] + [config["arm"]["optim"]]
            seed = config["seed"]
        except (KeyError, TypeError, IndexError):
            return run  # somebody else's file
        if not is_count(seed) or not all(isinstance(name, str) for name in (*names, optimizer)):
            return run
        group = "/".join(names)
        run.name, run.group, run.seed, run.optimizer = f"{group} seed {seed}", group, seed, run.optimizer or optimizer
    return run


def _settings(path: Path) -> dict[str, Any]:
    """Returns what `Recorder` wrote down of a run."""
    settings = expect(read_json(path, RecordError), dict, str(path), "a JSON object of settings", RecordError)
    for name in ("emo_optimizer", "emo_version"):
        expect(settings.get(name, ""), str, f"{path}, {name}", "a text", RecordError)
    for name in ("seed", "total_steps"):
        if not (is_count(settings.get(name, 0)) or (name == "seed" and settings[name] is None)):
            raise RecordError(f"{path}, {name}: expected a whole number, got {shown(settings[name])}.")
    return settings


def _size(value: Any) -> float | None:
    """Returns a step size, None for what is none."""
    return float(value) if is_number(value) and 0 < value < math.inf else None


def _bounds(settings: dict[str, Any]) -> dict[str, float]:
    """Returns the bounds of the pulse by name, those that are told."""
    told = {name: _size(settings.get(f"emo_pulse_{name}")) for name in ("ceiling", "base", "floor")}
    return {name: size for name, size in told.items() if size is not None}


def _stopped(settings: dict[str, Any]) -> str:
    """Returns why a training ended before its time; an empty text if nothing is told."""
    at, after = settings.get("emo_stopped_at"), settings.get("emo_stopped_after")
    if not (is_count(at) and is_count(after)):
        return ""
    return f"Stopped at step {at:,}: ready for {after:,} step{'' if after == 1 else 's'}."


def _add_log(run: RecordedRun, path: Path) -> None:
    if path.suffix == ".jsonl":
        run.take(joined(read_blocks(path, named)))
        return
    state = expect(read_json(path, RecordError), dict, str(path), "a JSON object, Trainer's state", RecordError)
    log = f"{path} is no state of Trainer: log_history"
    rows = expect(state.get("log_history"), list, log, "a list of rows with a step", RecordError)
    run.take(gathered(_checked(rows, log), named))


def _checked(rows: list[Any], log: str) -> Iterator[LogRow]:
    for number, row in enumerate(rows, start=1):
        place = f"{log}, row {number}"
        if "step" not in expect(row, dict, place, "a row with a step", RecordError):
            raise RecordError(f"{place}: expected a row with a step, got {shown(row)}.")
        check_row(row, place)
        yield row


def _read_wandb(path: Path) -> RecordedRun:
    """Reads a run through W&B's own printer: the file's format is W&B's business."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise RecordError(f"W&B took more than {TIMEOUT} seconds to read {path}.") from None
    if done.returncode:
        raise RecordError(f"W&B cannot read {path}: {done.stderr.strip()[-200:]}")
    try:
        return _of_wandb(path, done.stdout)
    except (AttributeError, KeyError, TypeError) as error:
        raise RecordError(f"{path} holds something else than W&B writes ({type(error).__name__}: {error}).") from None


def _of_wandb(path: Path, printed: str) -> RecordedRun:
    run = RecordedRun(path, path.parent.name, "")
    config: dict[str, Any] = {}
    for number, line in enumerate(printed.splitlines(), start=1):
        record = parse_json(line, f"{path}, record {number}", RecordError)
        content = record.get(record["type"], {})
        if record["type"] == "history" and is_count(step := content["item"].get(STEP)):
            run.add(step, content["item"])
        elif record["type"] == "run":
            run.name = content.get("display_name", run.name)
            run.group = content.get("run_group", "")
            config |= content.get("config", {}).get("update", {})
        elif record["type"] == "config":
            config |= content.get("update", {})
    run.seed = config.get("seed") if is_count(config.get("seed")) else None
    run.found, run.bounds, run.stopped = _size(config.get("emo_found_lr")), _bounds(config), _stopped(config)
    run.optimizer = _emotion(config) or str(config.get("optim", ""))
    run.group = run.group or run.optimizer or run.name
    return run


def _emotion(settings: dict[str, Any]) -> str:
    """Returns the emo optimizer that `Recorder` was told, e.g. "emosens-3.9", or an empty string."""
    return "-".join(str(settings[name]) for name in ("emo_optimizer", "emo_version") if name in settings)
