"""Executes the quickstart, in a folder of its own; an error in a cell is an error here.

python -m scripts.execute_notebook           the file stays as it is
python -m scripts.execute_notebook --keep    the file gets the outputs
"""

import argparse
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


def execute(path: Path) -> nbformat.NotebookNode:
    """Returns the notebook with its outputs, without times and versions, which differ between any two runs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, record_timing=False, timeout=600, resources={"metadata": {"path": folder}})
        client.execute()
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.execute_notebook", description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="write the outputs into the file")
    keep = parser.parse_args(argv).keep
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # fastest for so small a model
    notebook = execute(NOTEBOOK)
    if keep:
        nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
