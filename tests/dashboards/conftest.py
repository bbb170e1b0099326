"""Signals made by hand, and W&B sessions that end with the test."""

import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import emo_hf
from emo_hf.dashboards.wandb import _tell
from emo_hf.signals import Signals

# Processes of their own import the dashboards alone, which need neither torch nor transformers: that saves seconds.
ALONE = f"""
import sys, types
sys.modules["emo_hf"] = types.ModuleType("emo_hf")
sys.modules["emo_hf"].__path__ = {emo_hf.__path__!r}
from emo_hf.dashboards import Recorder
from emo_hf.signals import Signals
signals = Signals(
    loss=1, ema_short=1, ema_medium=1, ema_long=1, ema_gap=0, scalar=0, trust=1, trust_abs=1, lr=1, ready=0
)
assert not sys.modules.keys() & {{"torch", "transformers", "wandb"}}
"""


@pytest.fixture
def make() -> Callable[..., Signals]:
    """Makes the signals of a step of version 3.9, with any of them replaced."""
    signals = Signals(
        loss=2.0,
        ema_short=2.1,
        ema_medium=2.2,
        ema_long=2.5,
        ema_gap=0.16,
        scalar=0.25,
        trust=0.75,
        trust_abs=0.75,
        lr=1e-4,
        pulse=2e-4,
        at_ceiling=0.0,
        at_floor=0.0,
        noise=0.3,
        distance=0.4,
        drift=0.1,
        snr=1.5,
        snr_now=1.25,
        stop_margin_snr=-0.2,
        stop_margin_loss=-2.0,
        ready=0.0,
    )
    return functools.partial(dataclasses.replace, signals)


@pytest.fixture
def alone() -> Callable[..., list[str]]:
    """Makes the command that runs a script on `Recorder` and ``signals`` in a process of its own."""
    return lambda script, *args: [sys.executable, "-c", ALONE + script, *map(str, args)]


@pytest.fixture
def session(own_home: None) -> Iterator[Any]:
    """wandb, with a session of its own: the settings are read once per session, here from the test's environment."""
    import wandb

    _tell.cache_clear()
    wandb.teardown()
    yield wandb
    wandb.finish()
    wandb.teardown()


@pytest.fixture
def read_wandb(session: Any) -> Callable[[Path], list[dict[str, Any]]]:
    """Ends the session and returns the records of the run in a folder: without the end they may not all be there."""

    def read(folder: Path) -> list[dict[str, Any]]:
        session.finish()
        session.teardown()
        return records_of(folder)

    return read


def records_of(folder: Path) -> list[dict[str, Any]]:
    """Returns the records of an offline W&B run that has ended."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def inspect() -> Callable[[Path], list[dict[str, Any]]]:
    """`records_of`, for a run of another process."""
    return records_of
