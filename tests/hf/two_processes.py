"""Runs a function on two forked ranks of a gloo process group; forking saves both of them the imports."""

import os
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from torch.multiprocessing import start_processes


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def forget_accelerate() -> None:
    """Drops what accelerate knows of the processes; a forked one inherits that it is alone."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def ignore_known_warnings() -> None:
    """Leaves out what the test process leaves out by marks, which a forked rank does not know."""
    warnings.filterwarnings("ignore", message=".*shrinks the weights", category=UserWarning)


def _run(rank: int, function: Callable, folder: Path, port: int, environment: dict[str, str], args: tuple) -> None:
    os.environ.update(
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo", **environment,
    )  # fmt: skip
    os.chdir(folder)
    forget_accelerate()
    ignore_known_warnings()
    try:
        torch.save(function(*args), folder / f"rank-{rank}.pt")
    except BaseException:
        (folder / f"rank-{rank}.txt").write_text(traceback.format_exc())
        raise
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def on_two_ranks(function: Callable, folder: Path, *args: Any, timeout: float = 240, **environment: str) -> list[Any]:
    """Returns what ``function(*args)`` returned on rank 0 and on rank 1, called in `folder`.

    Args:
        function: Returns what `torch.save` can write.
        folder: Working directory, a new one for each call.
        timeout: Seconds after which both ranks are killed.
        **environment: Variables of the ranks.

    Raises:
        AssertionError: A rank failed, or both took too long.
    """
    ranks = start_processes(
        _run, (function, folder, free_port(), environment, args), nprocs=2, join=False, start_method="fork"
    )
    end, failure = time.monotonic() + timeout, None
    try:
        while not ranks.join(timeout=max(0.0, end - time.monotonic())):
            assert time.monotonic() < end, f"no result after {timeout} s"
    except Exception as error:
        failure = error
    finally:
        for process in ranks.processes:
            process.kill()
            process.join()
    errors = "\n".join(path.read_text() for path in sorted(folder.glob("rank-*.txt")))
    assert failure is None, f"{failure}\n{errors}"
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in (0, 1)]
