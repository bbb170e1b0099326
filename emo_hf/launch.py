"""Runs a training script that does not import emo_hf with our ``optim`` names registered.

    python -m emo_hf.launch script.py --optim emosens ...
    python -m emo_hf.launch -m package.module --optim emosens ...
    python -m emo_hf.launch trl sft --optim emosens ...                                     any command on the PATH
    torchrun --nproc-per-node 2 -m emo_hf.launch script.py --optim emosens ...

An argument parser built before the names exist rejects them, so they are registered before the script starts. The
script sees itself as ``__main__``, with its own ``sys.argv`` and its folder on ``sys.path``. Commands, and whatever
Pythons they start in turn, know the names by `emo_hf.startup`.
"""

import argparse
import os
import runpy
import shutil
import sys

import emo_hf  # noqa: F401  registers the names
from emo_hf.startup import python_path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emo_hf.launch",
        usage="%(prog)s (script.py | -m module | command) [arguments ...]",
        description="Runs a training script with the emo optimizer names registered in transformers.",
        add_help=False,
    )
    argv = sys.argv[1:]
    if argv[:1] in (["-h"], ["--help"]):
        parser.print_help()
        return
    if not argv or argv == ["-m"]:
        parser.error("nothing to run")
    os.environ["PYTHONPATH"] = python_path()
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    elif os.path.exists(argv[0]):
        sys.argv = argv
        sys.path[0] = os.path.dirname(os.path.abspath(argv[0]))
        runpy.run_path(argv[0], run_name="__main__")
    elif command := shutil.which(argv[0]) or shutil.which(argv[0], path=os.path.dirname(sys.executable)):
        os.execv(command, [command, *argv[1:]])
    else:
        parser.error(f"no such file or command: {argv[0]}")


if __name__ == "__main__":
    main()
