"""Runs a function on two ranks of a gloo process group.

They are forked from the server that runs of recipes are forked from, which saves both of them the imports. The process
of the tests is not forked: by then it has threads, and a lock that one of them holds is never released in a child.
"""

import faulthandler
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

from emo_hf.lab.run.processes import start_server


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def forget_accelerate() -> None:
    """Drops what accelerate knows of the processes."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def _run(
    rank: int, function: Callable, folder: Path, environment: dict[str, str], args: tuple, patience: float
) -> None:
    os.environ.clear()
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.chdir(folder)
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(patience, file=(folder / f"rank-{rank}.txt").open("w"))
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*shrinks the weights", category=UserWarning)  # as the marks of tests
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
        function: One of a module's own, that returns what `torch.save` can write.
        folder: Working directory, a new one for each call.
        timeout: Seconds after which both ranks are killed; what each was doing is told.
        **environment: Variables of the ranks.

    Raises:
        AssertionError: A rank failed, or both took too long.
    """
    start_server()
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    ranks = start_processes(
        _run, (function, folder, {**os.environ, **group, **environment}, args, timeout - 5),
        nprocs=2, join=False, start_method="forkserver",
    )  # fmt: skip
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
