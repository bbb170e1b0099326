"""Prints what ``PYTHONPATH`` has to be: ``python -m emo_hf.startup``."""

import sys

from emo_hf.startup import python_path

if __name__ == "__main__":
    sys.stdout.write(python_path() + "\n")
