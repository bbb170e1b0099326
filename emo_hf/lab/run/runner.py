"""Trains runs, several at once if wanted, each in a process (or several) and a folder of its own:

    RUNS/<recipe>/<size>/<arm>/seed<k>/    config.yaml env.json emo_signals.jsonl history.jsonl log.txt summary.json

A folder with a summary and the same configuration is finished and skipped. Any other folder found there (a run that
broke off, or one of another configuration) is moved aside, never overwritten; `emo_hf.lab.run.checkpoints` can go on
with one that broke off. An interrupt or the death of this process costs the runs that are under way, no more.

A run is locked while it is under way, and from its end until all are done. So several emo-hf may be at work on one
recipe: each takes what nobody else has, and waits for the rest.
"""

import functools
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from emo_hf.dashboards.jsonl import read_new, write_whole
from emo_hf.errors import RecipeError
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.run import checkpoints, processes
from emo_hf.run_folder import RunFolder

logger = logging.getLogger(__name__)

WORKER = "emo_hf.lab.run.worker"  # the module that trains a run_config
POLL = 0.2  # seconds between two looks at the runs
BLOCK = 4096  # bytes; a disk with fewer free is full


@dataclass(frozen=True, slots=True)
class Settings:
    """How run_configs are run; nothing here is to change a result.

    Attributes:
        report_to: "none", "wandb" or "trackio".
        jobs: how many runs at once.
        save_every: steps between two checkpoints of a run; None saves none.
        resume: a broken run goes on from its newest checkpoint, if it has one.
    """

    report_to: str = "none"
    jobs: int = 1
    save_every: int | None = None
    resume: bool = False

    @property
    def threads(self) -> int | None:
        """How many threads of torch each run gets; None leaves it to torch, and to the user's OMP_NUM_THREADS."""
        if self.jobs == 1 or "OMP_NUM_THREADS" in os.environ:
            return None
        return max(1, torch.get_num_threads() // self.jobs)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: finished, or with an error in one line. `skipped` means that it was finished before."""

    run_config: RunConfig
    folder: RunFolder
    skipped: bool = False
    error: str | None = None
    seconds: float = 0.0  # from its start to its end, as a clock on the wall sees it

    @functools.cached_property
    def summary(self) -> dict[str, Any] | None:
        """The result, read once; None if the run failed."""
        return None if self.error else self.folder.read_summary()


@dataclass
class ActiveRun:
    """A run under way, as far as its history is written."""

    run_config: RunConfig
    folder: RunFolder
    lock: FileLock
    started: float = field(default_factory=time.monotonic)
    worker: Any = None  # as `processes.start` returns it
    step: int = 0
    total: int = 0  # 0 while unknown
    last: dict[str, Any] = field(default_factory=dict)  # the newest value of everything that Trainer logs
    _read: int = 0

    def poll(self) -> None:
        """Takes in what was logged since the last look."""
        if not self.folder.history.exists():
            return
        rows, self._read = read_new(self.folder.history, self._read)
        for row in rows:
            self.step, self.total = row["step"], row.get("total_steps", self.total)
            self.last |= row


@dataclass
class Progress:
    """Where all runs stand: `outcomes` by the place of their run_config, in the order in which they ended."""

    run_configs: list[RunConfig]
    jobs: int
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    running: dict[int, ActiveRun] = field(default_factory=dict)


Watch = Callable[[Progress], None]  # told where all runs stand, at every look


def run(run_configs: list[RunConfig], runs: Path, settings: Settings, watch: Watch) -> list[Outcome]:
    """Trains what is not finished; a run that fails does not stop the others. Returns the outcomes in the given order.

    Args:
        run_configs: of one recipe and one size.
        runs: the folder of all runs.
        settings: how.
        watch: see `Watch`.
    """
    place = runs / run_configs[0].recipe / run_configs[0].size
    place.mkdir(parents=True, exist_ok=True)
    scheduler = _Scheduler(place, settings, Progress(run_configs, settings.jobs))
    try:
        while scheduler.goes_on():
            watch(scheduler.progress)
        watch(scheduler.progress)
    finally:
        scheduler.close()
    return [scheduler.progress.outcomes[number] for number in range(len(run_configs))]


class _Scheduler:
    """The run_configs that wait and the runs under way."""

    def __init__(self, place: Path, settings: Settings, progress: Progress) -> None:
        self.place = place
        self.settings = settings
        self.progress = progress
        self._waiting = list(range(len(progress.run_configs)))
        self._finished: list[FileLock] = []  # held to the end: nobody may move the results aside before
        self._told: set[int] = set()

    def goes_on(self) -> bool:
        """Starts what there is room for, looks at what is under way; returns whether anything is left."""
        possible = [number for number in self._waiting if self._is_possible(number)]
        if not (possible or self.progress.running):  # runs that replay each other: they will fail, and say why
            possible = self._waiting[:1]
        for number in possible:
            if len(self.progress.running) == self.settings.jobs:
                break
            self._waiting.remove(number)
            self._take(number)
        if not (self.progress.running or self._waiting):
            return False
        time.sleep(POLL)
        for number, run in list(self.progress.running.items()):
            code = run.worker.poll()
            run.poll()
            if code is not None:
                del self.progress.running[number]
                self.progress.outcomes[number] = self._ended(run, code)
        return True

    def _is_possible(self, number: int) -> bool:
        """Whether the run that a run_config replays, if it does, is not among those that are still to end."""
        run_config = self.progress.run_configs[number]
        if not run_config.arm.replay:
            return True
        key = (run_config.arm.replay.of, run_config.replayed_seed)
        left = (other for at, other in enumerate(self.progress.run_configs) if at not in self.progress.outcomes)
        return key not in {(other.name, other.seed) for other in left}

    def _take(self, number: int) -> None:
        """Skips a run_config that is finished, starts one that is free, puts back one that another emo-hf is at."""
        run_config = self.progress.run_configs[number]
        folder = RunFolder.in_comparison(self.place, run_config.name, run_config.seed)
        if _is_finished(run_config, folder):
            self.progress.outcomes[number] = Outcome(run_config, folder, skipped=True)
            return
        lock = FileLock(self.place / ".locks" / f"{run_config.name}-seed{run_config.seed}")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if folder.config.exists() and not _is_of(run_config, folder):
                error = "another emo-hf is at work on another configuration of it: wait, or give another --runs-dir"
                self.progress.outcomes[number] = Outcome(run_config, folder, error=error)
                return
            if number not in self._told:
                self._told.add(number)
                logger.warning("Another emo-hf is at work in %s: waiting for its result.", folder)
            self._waiting.append(number)
            return
        if _is_finished(run_config, folder):  # while the lock was on its way
            lock.release()
            self._waiting.insert(0, number)
            return
        self.progress.running[number] = run = ActiveRun(run_config, folder, lock)
        self._start(run)

    def _start(self, run: ActiveRun) -> None:
        run_config, folder = run.run_config, run.folder
        arguments = [str(folder), "--report-to", self.settings.report_to]
        if self.settings.threads and not run_config.processes:
            arguments += ["--threads", str(self.settings.threads)]
        if self.settings.save_every:
            arguments += ["--save-every", str(self.settings.save_every)]
        if checkpoint := self._checkpoint(run):
            checkpoints.rewind(folder, checkpoint)
            arguments += ["--checkpoint", str(checkpoint)]
        else:
            if folder.path.exists():
                _move_aside(folder, _is_of(run_config, folder))
            folder.path.mkdir(parents=True)
            config = run_config.model_dump(mode="json", exclude_none=True)
            write_whole(folder.config, yaml.safe_dump(config, sort_keys=False).encode())
        run.worker = processes.start(
            WORKER, arguments, folder.log, processes=run_config.processes, offline=not run_config.needs_hub
        )
        run.started = time.monotonic()  # the first one waits until the libraries are loaded

    def _checkpoint(self, run: ActiveRun) -> Path | None:
        """Returns what a broken run goes on from, if it may: a checkpoint of the very same configuration."""
        if not self.settings.resume or not _is_of(run.run_config, run.folder):
            return None
        return checkpoints.newest(run.run_config, run.folder)

    def _ended(self, run: ActiveRun, code: int) -> Outcome:
        processes.end([run.worker])
        seconds = time.monotonic() - run.started
        if run.folder.is_finished:
            self._finished.append(run.lock)
            checkpoints.remove(run.folder)
            return Outcome(run.run_config, run.folder, seconds=seconds)
        run.lock.release()
        error = processes.explain(code, run.folder.read_log())
        if shutil.disk_usage(run.folder.path).free < BLOCK:  # then the log lacks its end, which says why
            error += f" (no space is left on the disk of {run.folder})"
        return Outcome(run.run_config, run.folder, error=error, seconds=seconds)

    def close(self) -> None:
        """Ends what is under way."""
        runs = self.progress.running.values()
        processes.end([run.worker for run in runs if run.worker])
        for lock in (*self._finished, *(run.lock for run in runs)):
            lock.release()


def _is_finished(run_config: RunConfig, folder: RunFolder) -> bool:
    return folder.is_finished and _is_of(run_config, folder)


def _is_of(run_config: RunConfig, folder: RunFolder) -> bool:
    """Whether the run in `folder` has this very configuration, in whatever words an earlier version wrote it."""
    try:
        return loading.run_config(folder.config) == run_config
    except RecipeError:  # there is none, or it is of a schema that is no longer read
        return False


def _move_aside(folder: RunFolder, same_config: bool) -> None:
    number = 1
    while (aside := folder.path.with_name(f"{folder.path.name}.aside-{number}")).exists():
        number += 1
    folder.path.rename(aside)
    why = "did not finish" if same_config else "has another configuration"
    logger.warning("The run in %s %s: moved to %s.", folder, why, aside.name)
