"""The processes that train one run: one, or several under torchrun, which finds a free port for them.

torchrun's workers inherit its standard input, so each of them ends with the one that started the run. Only rank 0
writes the run's files; an emo optimizer with `local_sgd_steps` adds ``rank1/emo_signals.jsonl`` and so on.
"""

import os
import re
import signal
import sys

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
# torchrun's own lines, with the path as it is seen from the current folder:
# E1121 09:50:00 47 .venv/.../torch/distributed/elastic/multiprocessing/api.py:9] failed (exitcode: 1) ...
_REPORT = re.compile(r"^[EW]\d{4} .*torch/distributed/elastic/multiprocessing/api\.py", re.MULTILINE)
_EXIT = re.compile(r"failed \(exitcode: (-?\d+)\)")
_RANK = re.compile(r"^\[rank\d+\]: ")  # torch's mark on the lines of a traceback


def command(child: tuple[str, ...], processes: int | None) -> list[str]:
    """Returns the command that runs ``child``, arguments of the Python interpreter, in so many processes."""
    return [sys.executable, *(TORCHRUN if processes else ()), *([str(processes)] if processes else ()), *child]


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
