"""Trains runs, several at once if wanted, each in a process (or several) and a folder of its own:

    RUNS/<recipe>/<size>/<arm>/seed<k>/    the files of `emo_hf.run_folder`

A finished run of the same configuration is skipped. Any other folder in its place (of a run that broke off, or of
another configuration) is moved aside, never overwritten; `emo_hf.lab.run.checkpoints` can go on with a broken run. If
this process is interrupted or dies, only the runs under way are lost.

A run is locked from its start until all runs have ended. So several emo-hf can work on one recipe: each takes what no
other has, and waits for the rest.
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

WORKER = "emo_hf.lab.run.worker"  # the module that trains a run
POLL = 0.2  # seconds between two polls of the runs
BLOCK = 4096  # bytes; a disk with fewer free bytes is full


@dataclass(frozen=True, slots=True)
class Settings:
    """How runs are trained. Nothing here changes a result.

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
        """The threads of torch for each run. None leaves it to torch, and to the user's OMP_NUM_THREADS."""
        if self.jobs == 1 or "OMP_NUM_THREADS" in os.environ:
            return None
        return max(1, torch.get_num_threads() // self.jobs)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: finished, or with an error in one line. A skipped run was finished before."""

    run_config: RunConfig
    folder: RunFolder
    skipped: bool = False
    error: str | None = None
    wall_seconds: float = 0.0  # from the start of the process to its end

    @property
    def seconds(self) -> float:
        """Of the training, as in every table; of a failed run, wall-clock time."""
        summary = self.summary or {}
        return float(summary.get("seconds") or self.wall_seconds)

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
    trains_since: float | None = None
    worker: processes.Worker | None = None
    step: int = 0
    total: int = 0  # 0 while unknown
    last: dict[str, Any] = field(default_factory=dict)  # the newest value of everything that Trainer logs
    _read: int = 0

    def poll(self) -> int | None:
        """Reads what was logged since the last call. Returns the exit code, None while the run is under way."""
        code = self.worker.poll() if self.worker else None
        if self.folder.history.exists():
            rows, self._read = read_new(self.folder.history, self._read)
            if rows and self.trains_since is None:
                self.trains_since = time.monotonic()
            for row in rows:
                self.step, self.total = row["step"], row.get("total_steps", self.total)
                self.last |= row
        return code


@dataclass
class Progress:
    """The state of all runs: `outcomes` by the place of their run_config, in the order in which they ended."""

    run_configs: list[RunConfig]
    jobs: int
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    running: dict[int, ActiveRun] = field(default_factory=dict)


Watch = Callable[[Progress], None]  # called at every poll


def run(run_configs: list[RunConfig], runs: Path, settings: Settings, watch: Watch) -> list[Outcome]:
    """Trains what is not finished. A failed run does not stop the others. Returns the outcomes in the given order.

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
    """Starts waiting runs and watches those under way."""

    def __init__(self, place: Path, settings: Settings, progress: Progress) -> None:
        self.place = place
        self.settings = settings
        self.progress = progress
        self._waiting = list(range(len(progress.run_configs)))
        self._finished: list[FileLock] = []  # held to the end, so that nobody moves the results aside before
        self._told: set[int] = set()

    def goes_on(self) -> bool:
        """Starts runs if there is room, and polls those under way. Returns whether any are left."""
        running = self.progress.running
        possible = [number for number in self._waiting if self._is_possible(number)]
        if not (possible or running):  # runs that replay each other: they will fail, and say why
            possible = self._waiting[:1]
        for number in possible:
            if len(running) == self.settings.jobs:
                break
            self._waiting.remove(number)
            self._take(number)
        if not (running or self._waiting):
            return False
        time.sleep(POLL)
        for number, run in list(running.items()):
            if (code := run.poll()) is not None:
                del running[number]
                self.progress.outcomes[number] = self._ended(run, code)
        return True

    def _is_possible(self, number: int) -> bool:
        """Whether a run replays no other run that has not ended yet."""
        run_config = self.progress.run_configs[number]
        if not run_config.arm.replay:
            return True
        replayed = (run_config.arm.replay.of, run_config.replayed_seed)
        return all(
            place in self.progress.outcomes or (other.name, other.seed) != replayed
            for place, other in enumerate(self.progress.run_configs)
        )

    def _take(self, number: int) -> None:
        """Skips a finished run, starts a free one, and puts back one that another emo-hf is working on."""
        run_config, outcomes = self.progress.run_configs[number], self.progress.outcomes
        folder = RunFolder.in_comparison(self.place, run_config.name, run_config.seed)
        if is_finished(run_config, folder):
            outcomes[number] = Outcome(run_config, folder, skipped=True)
            return
        lock = FileLock(self.place / ".locks" / f"{run_config.name}-seed{run_config.seed}")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if folder.config.exists() and not has_configuration(run_config, folder):
                error = "another emo-hf is at work on another configuration of it: wait, or give another --runs-dir"
                outcomes[number] = Outcome(run_config, folder, error=error)
                return
            if number not in self._told:
                self._told.add(number)
                logger.warning("Another emo-hf is at work in %s: waiting for its result.", folder)
            self._waiting.append(number)
            return
        if is_finished(run_config, folder):  # since it was looked at before the lock
            lock.release()
            self._waiting.insert(0, number)
            return
        self.progress.running[number] = run = ActiveRun(run_config, folder, lock)
        self._start(run)

    def _start(self, run: ActiveRun) -> None:
        run_config, folder, settings = run.run_config, run.folder, self.settings
        arguments = [str(folder), "--report-to", settings.report_to]
        if settings.threads and not run_config.processes:
            arguments += ["--threads", str(settings.threads)]
        if settings.save_every:
            arguments += ["--save-every", str(settings.save_every)]
        is_same = has_configuration(run_config, folder)
        checkpoint = checkpoints.newest(run_config, folder) if settings.resume and is_same else None
        if checkpoint:
            checkpoints.rewind(folder, checkpoint)
            arguments += ["--checkpoint", str(checkpoint)]
        else:
            if folder.path.exists():
                _move_aside(folder, "did not finish" if is_same else "has another configuration")
            folder.path.mkdir(parents=True)
            config = run_config.model_dump(mode="json", exclude_none=True)
            write_whole(folder.config, yaml.safe_dump(config, sort_keys=False).encode())
        run.worker = processes.start(
            WORKER, arguments, folder.log, processes=run_config.processes, offline=not run_config.needs_hub
        )
        run.started = time.monotonic()  # the first one waits until the libraries are loaded

    def _ended(self, run: ActiveRun, code: int) -> Outcome:
        if run.worker:
            processes.end([run.worker])
        seconds = time.monotonic() - run.started
        if run.folder.is_finished:
            self._finished.append(run.lock)
            checkpoints.remove(run.folder)
            return Outcome(run.run_config, run.folder, wall_seconds=seconds)
        run.lock.release()
        error = processes.explain(code, run.folder.read_log())
        if shutil.disk_usage(run.folder.path).free < BLOCK:  # then the log lacks its end, which says why
            error += f" (no space is left on the disk of {run.folder})"
        return Outcome(run.run_config, run.folder, error=error, wall_seconds=seconds)

    def close(self) -> None:
        """Ends what is under way."""
        runs = self.progress.running.values()
        processes.end([run.worker for run in runs if run.worker])
        for lock in (*self._finished, *(run.lock for run in runs)):
            lock.release()


def is_finished(run_config: RunConfig, folder: RunFolder) -> bool:
    return folder.is_finished and has_configuration(run_config, folder)


def has_configuration(run_config: RunConfig, folder: RunFolder) -> bool:
    """Whether the run in `folder` has this configuration, also in the words of an earlier version."""
    try:
        return loading.run_config(folder.config) == run_config
    except RecipeError:  # there is none, or its schema is no longer read
        return False


def _move_aside(folder: RunFolder, why: str) -> None:
    number = 1
    while (aside := folder.path.with_name(f"{folder.path.name}.aside-{number}")).exists():
        number += 1
    folder.path.rename(aside)
    logger.warning("The run in %s %s: moved to %s.", folder, why, aside.name)
