"""Python runs this when it starts, where this folder is on ``PYTHONPATH``; see `emo_hf.startup`."""

import contextlib
import os
import runpy
import sys

with contextlib.suppress(ImportError):  # a Python of another environment
    import emo_hf  # noqa: F401  registers the names

_here = os.path.dirname(os.path.abspath(__file__))
_hidden = (os.path.join(folder, "sitecustomize.py") for folder in sys.path if os.path.abspath(folder) != _here)
if _next := next(filter(os.path.exists, _hidden), None):
    runpy.run_path(_next)
