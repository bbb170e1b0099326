"""What `emo-hf run` shows: a table on a terminal, or one line for every run that has ended."""

import statistics
import time
from collections import Counter
from collections.abc import Iterator

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from emo_hf.lab.run.runner import Outcome, Progress


def table(progress: Progress) -> Group:
    """Returns a bar for all runs, and tables of the runs under way and of the arms."""
    return Group(_together(progress), _under_way(progress), _arms(progress))


def _together(progress: Progress) -> Table:
    total, ended = len(progress.run_configs), len(progress.outcomes)
    grid = Table.grid(padding=(0, 1))
    left = remaining(progress)
    time_left = f"about {duration(left)} left" if left is not None and ended < total else ""
    grid.add_row("runs", ProgressBar(total, ended, width=30), f"{ended}/{total}", time_left)
    return grid


def _under_way(progress: Progress) -> Table:
    shown = Table(box=None, padding=(0, 1))
    shown.add_column("under way")
    shown.add_column("")
    for name in ("step", "loss", progress.run_configs[0].task.metric, "time"):
        shown.add_column(name, justify="right")
    for run in progress.running.values():
        steps = f"{run.step}/{run.total}" if run.total else "starting"
        shown.add_row(
            f"{run.run_config.name} seed {run.run_config.seed}",
            ProgressBar(run.total or 1, run.step, width=20),
            steps,
            _number(run.last.get("loss")),
            _number(run.last.get(f"eval_{run.run_config.task.metric}")),
            duration(time.monotonic() - run.trains_since) if run.trains_since else "",
        )
    return shown


def _arms(progress: Progress) -> Table:
    total = Counter(run_config.name for run_config in progress.run_configs)
    ended = progress.outcomes.values()
    failed = Counter(outcome.run_config.name for outcome in ended if outcome.error)
    finished = Counter(outcome.run_config.name for outcome in ended if not outcome.error)
    shown = Table(box=None, padding=(0, 1))
    metric = progress.run_configs[0].task.metric
    shown.add_column("arm")
    for name in ("finished", "failed", "seeds", metric):
        shown.add_column(name, justify="right")
    for arm, seeds in total.items():
        bad = Text(str(failed[arm]), style="bold red") if failed[arm] else "0"
        found = [
            outcome.summary.get(metric) for outcome in ended if outcome.run_config.name == arm and outcome.summary
        ]
        shown.add_row(
            arm, str(finished[arm]), bad, str(seeds), _mean(found), style="green" if finished[arm] == seeds else ""
        )
    return shown


def remaining(progress: Progress) -> float | None:
    """Returns an estimate of the seconds until all runs have ended, None before the first one has."""
    times = [outcome.wall_seconds for outcome in progress.outcomes.values() if not (outcome.skipped or outcome.error)]
    if not times:
        return None
    mean = sum(times) / len(times)
    waiting = len(progress.run_configs) - len(progress.outcomes) - len(progress.running)
    left = [mean * (1 - run.step / run.total) if run.total else mean for run in progress.running.values()]
    longest = max(left, default=0.0) if not waiting else 0.0
    return max((mean * waiting + sum(left)) / progress.jobs, longest)


class News:
    """Gives one line for each run that has ended since the last call."""

    def __init__(self) -> None:
        self._told = 0

    def lines(self, progress: Progress) -> Iterator[str]:
        ended = list(progress.outcomes.values())
        for number, outcome in enumerate(ended[self._told :], start=self._told + 1):
            if not outcome.skipped:
                yield f"[{number}/{len(progress.run_configs)}] {_line(outcome)}"
        self._told = len(ended)


def _line(outcome: Outcome) -> str:
    run_config = outcome.run_config
    name = f"{run_config.name} seed {run_config.seed}"
    if outcome.error:
        return f"{name}: failed after {duration(outcome.seconds)}: {outcome.error}"
    result = (outcome.summary or {}).get(run_config.task.metric)
    return f"{name}: {run_config.task.metric} {_number(result)}, {duration(outcome.seconds)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _mean(values: list[float | None]) -> str:
    """Returns mean and standard deviation; a value that is not finite has no place in them."""
    if not values:
        return "-"
    finite = [value for value in values if value is not None]
    if len(finite) < len(values):
        return "not finite"
    spread = f" ± {statistics.stdev(finite):.2g}" if len(finite) > 1 else ""
    return f"{statistics.fmean(finite):.3g}{spread}"


def duration(seconds: float) -> str:
    """Returns a time in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
