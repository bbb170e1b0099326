"""The processes that train one run: how they start, and why they ended.

    one process, own model and data    forked from a server that has loaded torch and transformers
    one process, something of the hub  a new interpreter, as the server keeps off the network
    several processes                  torchrun, which finds a free port for them

A new interpreter takes about 5 s of CPU time to load the libraries. The small comparisons on record train for 11 s per
run on average, so without the server they would take 40 % longer.

Each process calls `main(arguments)` of a module and writes its output into a log file. It has a session of its own, so
ctrl-C only reaches the process that started it, and ends with that one. Only rank 0 writes the run's files, but an emo
optimizer with `local_sgd_steps` adds ``rank1/emo_signals.jsonl`` and so on.
"""

import contextlib
import importlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path

PRELOAD = ["emo_hf.lab.run.worker", "emo_hf.lab.run.preload"]
OFFLINE = {"HF_HUB_OFFLINE": "1"}  # otherwise each library may try the network, and wait
# What the server's libraries read when they are loaded: no threads and no CUDA, as neither survives a fork.
SERVER = {
    **OFFLINE,
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
FORKS = sys.platform == "linux"  # elsewhere system libraries may not survive a fork
LOST = 255  # what multiprocessing says of a process whose server is gone
PATIENCE = 5  # seconds between the request to end and the kill
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
# torchrun's own lines, with a path seen from the current folder:
# E1121 09:50:00 47 .venv/.../torch/distributed/elastic/multiprocessing/api.py:9] failed (exitcode: 1) ...
_REPORT = re.compile(r"^[EW]\d{4} .*torch/distributed/elastic/multiprocessing/api\.py", re.MULTILINE)
_EXIT = re.compile(r"failed \(exitcode: (-?\d+)\)")
_RANK = re.compile(r"^\[rank\d+\]: ")  # torch's mark on the lines of a traceback


def start(
    module: str, arguments: Sequence[str], log: Path, processes: int | None = None, offline: bool = True
) -> "Worker":
    """Starts what trains a run. If the system gives no process, the log says so, and what is returned has failed.

    Args:
        module: the name of a module whose `main(arguments)` trains.
        arguments: of `main`.
        log: a file; the output is appended to it.
        processes: how many, under torchrun; None is one.
        offline: nothing comes from the hub, so no library asks it.
    """
    environment = {**os.environ, **(OFFLINE if offline else {})}
    with log.open("ab") as file:
        try:
            if FORKS and offline and not processes:
                return Forked(module, arguments, environment, log)
            return subprocess.Popen(
                command(module, arguments, processes),
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except (EOFError, OSError) as error:  # EOFError: the server was killed
            reason = str(error) or "the process that it is forked from was killed"
            file.write(f"no process could be started: {reason} (out of memory?)\n".encode())
            return NotStarted()


def command(module: str, arguments: Sequence[str], processes: int | None) -> list[str]:
    """Returns the command that runs `module` in one process, or in several."""
    several = (*TORCHRUN, str(processes)) if processes else ()
    return [sys.executable, *several, "-m", module, *arguments]


class Forked:
    """A process forked from the server, with the part of `subprocess.Popen` that is needed."""

    def __init__(self, module: str, arguments: Sequence[str], environment: dict[str, str], log: Path) -> None:
        start_server()
        # no daemon: it may have worker processes of its own
        self._process = multiprocessing.get_context("forkserver").Process(
            target=_run, args=(module, list(arguments), environment, str(log)), name=module, daemon=False
        )
        self._process.start()
        self.pid = self._process.pid or 0

    def poll(self) -> int | None:
        code = self._process.exitcode
        if code != LOST:
            return code
        # its server was killed: nobody tells how it ends, and it could still write into a folder that is used again
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(self.pid) == self.pid:  # no other process that got the number since
                os.killpg(self.pid, signal.SIGKILL)
        return -signal.SIGKILL

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return code


class NotStarted:
    """Stands for a process that there is none of."""

    pid = 0

    def poll(self) -> int:
        return 1

    def terminate(self) -> None:
        pass

    kill = terminate

    def wait(self, timeout: float | None = None) -> int:
        return self.poll()


Worker = subprocess.Popen[bytes] | Forked | NotStarted


def start_server() -> None:
    """Starts the process that all of multiprocessing's method "forkserver" are forked from, unless it runs."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
    with _as_server():
        forkserver.ensure_running()


@contextlib.contextmanager
def _as_server() -> Iterator[None]:
    """Within it, a new process inherits `SERVER` and no standard output, as some libraries print on import."""
    before, output = dict(os.environ), os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.environ.update(SERVER)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(output, 1)
        os.close(output)
        os.close(nowhere)
        for name in SERVER:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


def _run(module: str, arguments: list[str], environment: dict[str, str], log: str) -> None:
    """The life of a forked process, with the caller's `environment` instead of the server's."""
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    importlib.import_module(module).main(arguments)


def end(workers: Sequence[Worker]) -> None:
    """Ends the workers that are still alive, and waits until they are gone."""
    alive = [worker for worker in workers if worker.poll() is None]
    for worker in alive:
        worker.terminate()
    for worker in alive:
        try:
            worker.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
    for worker in workers:
        if isinstance(worker, subprocess.Popen) and worker.stdin:
            worker.stdin.close()


def end_with_parent() -> None:
    """Ends this process as soon as the one that started it is gone."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent:
            parent.join()
        else:
            os.read(0, 1)  # not sys.stdin, whose lock would be held when the interpreter ends
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def rank() -> int:
    """Returns the rank of this process, 0 if it is the only one."""
    return int(os.environ.get("RANK", "0"))


def explain(code: int, log: str) -> str:
    """Returns one line on why a run ended without a summary.

    Args:
        code: the exit code of what was started.
        log: everything it has written.
    """
    if report := _REPORT.search(log):  # what the first process that failed has said stands before it
        worker = _EXIT.search(log)
        code, log = int(worker[1]) if worker else code, log[: report.start()]
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = [line for line in log.splitlines() if line.strip()]
    return _RANK.sub("", lines[-1]) if lines else f"exit code {code} without a message"
