"""A folder for ``PYTHONPATH``: every Python that starts with it knows the names of emo_hf.

    PYTHONPATH="$(python -m emo_hf.startup)" trl sft --optim emosens ...

`emo_hf.launch` does this for what it starts. Python runs ``sitecustomize.py`` of the path when it starts; the one here
imports emo_hf, which is light, and then runs the one that it hides, if there is one.
"""

import os
from pathlib import Path

FOLDER = str(Path(__file__).parent)


def python_path() -> str:
    """Returns ``PYTHONPATH`` as it is, with the folder in front."""
    others = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place and place != FOLDER]
    return os.pathsep.join([FOLDER, *others])
