"""A live view of a training in the terminal, read from its files: it works from another terminal, and afterwards.

Each metric is a line of bars over the whole training, from its least to its greatest value (a share from 0 to 1), on a
logarithmic axis where it is declared so. Two colours tell the signs.
"""

import math
import time
from math import inf
from pathlib import Path

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from emo_hf.dashboards.diagnosis import diagnose
from emo_hf.dashboards.health import RECENT
from emo_hf.dashboards.jsonl import FILE_NAME
from emo_hf.dashboards.metrics import Metric, find, of_sets
from emo_hf.dashboards.report.runs import RecordedRun, described, named, run_places
from emo_hf.dashboards.series import Series, Values, joined, read_blocks
from emo_hf.errors import RecordError
from emo_hf.run_folder import HISTORY, RunFolder

BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
SHOWN = (  # the losses of evaluation sets follow the first two
    *("train/loss", "eval/loss", "emo/loss", "emo/ema_short", "emo/ema_medium", "emo/ema_long"),
    *("emo/scalar", "emo/lr", "emo/agreement", "emo/fall_trust", "emo/braking"),
    *("emo/stop_margin_snr", "emo/stop_margin_loss", "emo/stop_share"),
)
MARGINS = {"emo/stop_margin_snr", "emo/stop_margin_loss"}
MARKS = {"good": "", "advice": "! ", "alarm": "!! "}
STYLES = {"good": "green", "advice": "yellow", "alarm": "bold red"}
PERIOD = 1.0  # seconds between two looks at the files
QUIET = 30.0  # seconds without a step that are worth a word


def watch(path: Path, console: Console, once: bool = False) -> None:
    """Shows the run at `path` until it is interrupted; the newest one if several are at or below it.

    Args:
        path: a run folder, or a folder of runs.
        console: where to.
        once: show what is there and return. So it is where `console` is no terminal.

    Raises:
        RecordError: there is no folder `path`, a file in it is no record, or with `once` there is no step in it.
    """
    if not path.is_dir():
        raise RecordError(f"{path} is no folder. Expected the folder of a run that records its signals.")
    follower = Follower(path)
    follower.poll()
    if once or not console.is_terminal:
        if not follower.run.series:
            raise RecordError(f"{path} holds no step yet: no {FILE_NAME} or {HISTORY} with rows, here or below.")
        console.print(View(follower))
        return
    try:
        with Live(View(follower), console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.refresh()
                time.sleep(PERIOD)
                follower.poll()
    except KeyboardInterrupt:
        console.print(View(follower))  # what was seen last stays in the terminal


class Follower:
    """The newest run at or below a folder, as far as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = RecordedRun(path, path.name, "")
        self.written = 0.0  # when
        self._told = 0  # when the settings of the run were written
        self._read: dict[Path, tuple[int, int]] = {}  # file -> its number on the disk, and the bytes read of it

    def poll(self) -> None:
        """Takes in what was written since the last look."""
        found = [
            file
            for folder in run_places(self.path)
            for name in (FILE_NAME, HISTORY)
            if (file := folder / name).exists()
        ]
        if not found:
            return
        newest = max(found, key=lambda file: file.stat().st_mtime)
        self.written = newest.stat().st_mtime
        files = [file for file in found if file.parent == newest.parent]
        settings = RunFolder(newest.parent).settings
        told, self._told = self._told, settings.stat().st_mtime_ns if settings.exists() else 0
        if not self._read or newest.parent != self.run.path or any(self._was_replaced(file) for file in files):
            self.run, self._read = described(newest.parent), {}
        elif told != self._told:  # they say what an optimizer has found, and why a training stopped, once it is known
            now = described(newest.parent)
            self.run.found, self.run.stopped = now.found, now.stopped
        for file in files:
            _, start = self._read.get(file, (0, 0))
            block = joined(read_blocks(file, named, start))
            self._read[file] = file.stat().st_ino, max(start, block.end)
            self.run.take(block)

    def _was_replaced(self, file: Path) -> bool:
        """A resumed training cuts its record by putting a shorter file in its place."""
        now = file.stat()
        number, end = self._read.get(file, (now.st_ino, 0))
        return now.st_ino != number or now.st_size < end


class View:
    """One look at a run, as wide as the terminal."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        run = self._follower.run
        facts = (run.name, run.optimizer, *self._progress(), "" if run.found is None else f"found {run.found:.2g}")
        yield Text(" | ".join(filter(None, facts)), style="bold")
        if not run.series:
            yield Text(f"Waiting for the first step in {self._follower.path} ...")
            return
        diagnosis, *others = (
            Text(f"{MARKS[finding.kind]}{finding.text}", STYLES[finding.kind]) for finding in diagnose(run, RECENT)
        )
        yield diagnosis
        table = Table(box=None, padding=(0, 1), expand=True)
        table.add_column("")
        table.add_column("", ratio=1, no_wrap=True)
        for name in ("now", "least", "greatest"):
            table.add_column(name, justify="right")
        for key in (*SHOWN[:2], *of_sets(run.series), *SHOWN[2:]):
            if key in run.series:
                values = run.series[key].y
                table.add_row(find(key).name, Sparkline(values, find(key)), *_numbers(values))
        yield table
        yield from others

    def _progress(self) -> list[str]:
        run, total = self._follower.run, self._follower.run.total_steps
        if not run.series:
            return []
        parts = [f"step {run.steps:,}" + (f" of {total:,}" if total else "")]
        seconds = run.series.get("emo/step_seconds", Series()).y[-RECENT:]
        quiet = time.time() - self._follower.written
        if RunFolder(run.path).is_finished or (total and run.steps >= total):
            parts.append("finished")
        elif run.stopped:
            parts.append("stopped")
        elif quiet > QUIET:
            parts.append(f"nothing new for {_duration(quiet)}")
        elif len(seconds):
            parts.append(f"{np.median(seconds):.3g} s per step")
            if total:
                parts.append(f"{_duration(float(np.mean(seconds)) * (total - run.steps))} left")
        return parts


class Sparkline:
    """Values as a line of bars, as wide as there is room; x stands for values that are not finite."""

    def __init__(self, values: Values, metric: Metric) -> None:
        self._values = np.asarray(values)
        self._metric = metric

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        values, bars = self._values, ASCII_BARS if options.ascii_only else BARS
        width = min(options.max_width, len(values))
        starts = len(values) * np.arange(width) // width
        # a mean of values that are not all finite is not finite either
        heights = np.add.reduceat(values, starts) / np.diff(starts, append=len(values))
        signs = values[np.append(starts[1:], len(values)) - 1] >= 0
        seen = heights[np.isfinite(heights)]
        if self._metric.axis == "log" and (seen > 0).all():
            heights, seen = np.log(heights), np.log(seen)
        low, high = (0, 1) if self._metric.range == (0, 1) else (seen.min(initial=inf), seen.max(initial=-inf))
        above, below = ("green", "red") if self._metric.key in MARGINS else ("cyan", "magenta")
        line = Text()
        for height, positive in zip(heights.tolist(), signs.tolist(), strict=True):
            if not math.isfinite(height):
                line.append("x", style="bold red")
                continue
            place = (height - low) / (high - low) if high > low else 0.5
            bar = bars[min(int(min(max(place, 0.0), 1.0) * len(bars)), len(bars) - 1)]
            line.append(bar, style=above if positive else below)
        yield line


def _numbers(values: Values) -> list[str]:
    finite = values[np.isfinite(values)]
    ends = [finite.min(), finite.max()] if len(finite) else [math.nan] * 2
    return [f"{value:.3g}" for value in (values[-1], *ends)]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
