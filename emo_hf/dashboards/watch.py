"""A live view of a training in the terminal, read from its files: it works from another terminal, and afterwards.

Each metric is a line of bars over the whole training, from its least to its greatest value (a share from 0 to 1), on a
logarithmic axis where it is declared so. Two colours tell the signs. A high terminal has higher bars.
"""

import math
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from math import inf
from operator import itemgetter
from pathlib import Path

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.padding import Padding
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
HIGHEST = 8  # lines of a metric
APART = 4  # lines of a metric from which the last is left free
NAME = 18  # characters of a metric's name


def watch(path: Path, console: Console, once: bool = False) -> None:
    """Shows the run at `path` until q or Ctrl-C; the newest one if several are at or below it.

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
        with (
            _keys() as keys,
            Live(View(follower, live=True), console=console, screen=True, auto_refresh=False) as live,
        ):
            live.refresh()
            while not _leaves(keys):
                follower.poll()
                live.refresh()
    except KeyboardInterrupt:
        pass
    console.print(View(follower))  # what was seen last stays in the terminal


@contextmanager
def _keys() -> Iterator[int | None]:
    """Gives what keys are read from, each as it is pressed; None where that cannot be."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        yield None
        return
    if not sys.stdin.isatty():
        yield None
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield terminal
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _leaves(keys: int | None) -> bool:
    """Waits for `PERIOD`; returns at once and True when q is pressed, or the terminal is gone."""
    if keys is None:
        time.sleep(PERIOD)
        return False
    end = time.monotonic() + PERIOD
    while select.select([keys], [], [], max(end - time.monotonic(), 0))[0]:
        if os.read(keys, 1) in (b"q", b"Q", b""):
            return True
    return False


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
        anew = not self._read or newest.parent != self.run.path or any(self._was_replaced(file) for file in files)
        if anew:
            self.run, self._read = described(newest.parent), {}
        elif told != self._told:  # they say what an optimizer has found, and why a training stopped, once it is known
            now = described(newest.parent)
            self.run.found, self.run.stopped = now.found, now.stopped
        for file in files:
            _, start = self._read.get(file, (0, 0))
            block = joined(read_blocks(file, named, start))
            self._read[file] = file.stat().st_ino, max(start, block.end)
            self.run.take(block)
        for series in self.run.series.values() if anew else ():
            series.reserve()

    def _was_replaced(self, file: Path) -> bool:
        """A resumed training cuts its record by putting a shorter file in its place."""
        now = file.stat()
        number, end = self._read.get(file, (now.st_ino, 0))
        return now.st_ino != number or now.st_size < end


class View:
    """One look at a run, as wide as the terminal; `live`, as high, too, and no line is wrapped."""

    def __init__(self, follower: Follower, live: bool = False) -> None:
        self._follower = follower
        self._live = live

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        run, width = self._follower.run, options.max_width
        height = options.max_height if self._live else None
        yield Text(_cut(self._heading(width), width), style="bold")
        if not run.series:
            yield Text(f"Waiting for the first step in {self._follower.path} ...")
            return
        said = [(MARKS[kind] + text, STYLES[kind]) for text, kind in diagnose(run, RECENT)]
        diagnosis, *others = [Text(_cut(text, width) if height else text, style) for text, style in said]
        yield diagnosis
        keys = [key for key in (*SHOWN[:2], *of_sets(run.series), *SHOWN[2:]) if key in run.series]
        heights = _heights(height - len(said) - 2, len(keys)) if height else [1] * len(keys)
        table = Table(box=None, padding=(0, 1), expand=True)
        table.add_column("", no_wrap=True)
        table.add_column(f"to step {run.steps:,}{'; q leaves' if height else ''}", ratio=1, no_wrap=True)
        for name in ("now", "least", "greatest"):
            table.add_column(name, justify="right", no_wrap=True)
        for key, rows in zip(keys, heights, strict=False):
            values, apart = run.series[key].y, rows >= APART
            bars = Sparkline(values, find(key), rows - apart)
            table.add_row(_cut(find(key).name, NAME), Padding(bars, (0, 0, int(apart), 0)), *_numbers(values))
        yield table
        yield from others

    def _heading(self, width: int) -> str:
        """Returns what the run is and how far, by as many facts as fit into a line."""
        run = self._follower.run
        facts = {"optimizer": run.optimizer, **self._progress()}
        facts["found"] = "" if run.found is None else f"found {run.found:.2g}"
        for unimportant in ("", "speed", "optimizer"):
            facts.pop(unimportant, None)
            progress = "".join(f" | {fact}" for fact in facts.values() if fact)
            if len(run.name + progress) <= width:
                return run.name + progress
        room = max(width - len(progress), len("...") + 1)
        return f"...{run.name[3 - room :]}{progress}"  # the end of a name tells more

    def _progress(self) -> dict[str, str]:
        run, total = self._follower.run, self._follower.run.total_steps
        if not run.series:
            return {}
        facts = {"step": f"step {run.steps:,}" + (f" of {total:,}" if total else "")}
        seconds = run.series.get("emo/step_seconds", Series()).y[-RECENT:]
        quiet = time.time() - self._follower.written
        if RunFolder(run.path).is_finished or (total and run.steps >= total):
            facts["state"] = "finished"
        elif run.stopped:
            facts["state"] = "stopped"
        elif quiet > QUIET:
            facts["state"] = f"nothing new for {_duration(quiet)}"
        elif len(seconds):
            facts["speed"] = f"{np.median(seconds):.3g} s per step"
            if total:
                facts["left"] = f"{_duration(float(np.mean(seconds)) * (total - run.steps))} left"
        return facts


def _heights(lines: int, metrics: int) -> list[int]:
    """Returns how many lines each metric gets of those that there are; what is left over goes to the first ones."""
    height, more = divmod(max(lines, 1), metrics)
    return [min(height + (place < more), HIGHEST) for place in range(metrics) if height or place < more]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 3, 0)]}..."


class Sparkline:
    """Values as bars, as wide as there is room; x stands for values that are not finite.

    Args:
        values: one for each step.
        metric: what they are of.
        height: of the greatest bar, in lines.
    """

    def __init__(self, values: Values, metric: Metric, height: int = 1) -> None:
        self._values = np.asarray(values)
        self._metric = metric
        self._height = height

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
        places = (heights - low) / (high - low) if high > low else heights * 0 + 0.5
        levels = len(bars) * self._height
        filled = 1 + np.clip(np.nan_to_num(places) * levels, 0, levels - 1).astype(int)
        filled[~np.isfinite(places)] = 0
        above, below = ("green", "red") if self._metric.key in MARGINS else ("cyan", "magenta")
        styles = np.where(filled == 0, "bold red", np.where(signs, above, below))
        for bottom in range(levels - len(bars), -1, -len(bars)):
            shown = [f" {bars}"[level] for level in np.clip(filled - bottom, 0, len(bars))]
            if bottom == 0:
                shown = ["x" if level == 0 else bar for level, bar in zip(filled, shown, strict=True)]
            line = Text()
            for style, of_style in groupby(zip(styles, shown, strict=True), key=itemgetter(0)):
                line.append("".join(bar for _, bar in of_style), style=str(style))
            yield line


def _numbers(values: Values) -> list[str]:
    finite = values[np.isfinite(values)]
    ends = [finite.min(), finite.max()] if len(finite) else [math.nan] * 2
    return [f"{value:.3g}" for value in (values[-1], *ends)]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
