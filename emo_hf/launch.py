"""Runs a training script that does not import emo_hf with our ``optim`` names registered.

    python -m emo_hf.launch script.py --optim emosens ...
    python -m emo_hf.launch -m package.module --optim emosens ...
    torchrun --nproc-per-node 2 -m emo_hf.launch script.py --optim emosens ...

An argument parser built before the names exist rejects them, so they are registered before the script starts. The
script sees itself as ``__main__``, with its own ``sys.argv`` and its folder on ``sys.path``.
"""

import argparse
import os
import runpy
import sys

import emo_hf  # noqa: F401  registers the names


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emo_hf.launch",
        usage="%(prog)s (script.py | -m module) [arguments ...]",
        description="Runs a training script with the emo optimizer names registered in transformers.",
        add_help=False,
    )
    argv = sys.argv[1:]
    if argv[:1] in (["-h"], ["--help"]):
        parser.print_help()
        return
    if not argv or argv == ["-m"]:
        parser.error("nothing to run")
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    elif not os.path.exists(argv[0]):
        parser.error(f"no such file: {argv[0]}")
    else:
        sys.argv = argv
        sys.path[0] = os.path.dirname(os.path.abspath(argv[0]))
        runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
