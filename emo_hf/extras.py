"""What the extras bring beyond torch, transformers and accelerate, and what is said where it is missing.

    with needing("A picture"):
        import matplotlib.figure

    MissingExtraError: A picture needs matplotlib: pip install "emo-hf[recipes]"

A test compares the table with the extras that are declared.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from emo_hf.errors import MissingExtraError

EXTRAS = {  # extra -> the modules that it is for
    "recipes": (
        "PIL",
        "datasets",
        "evaluate",
        "filelock",
        "gguf",
        "huggingface_hub",
        "jinja2",
        "markupsafe",
        "markdown_it",
        "matplotlib",
        "numpy",
        "pandas",
        "pyarrow",
        "pydantic",
        "rich",
        "safetensors",
        "scipy",
        "shtab",
        "tokenizers",
        "yaml",
    ),
    "wandb": ("wandb", "wandb_workspaces"),
    "integrations": ("lightning", "peft"),
}


@contextmanager
def needing(what: str) -> Iterator[None]:
    """Says of `what` which extra to install, if a package is missing inside. Any other failed import stays as it is.

    Raises:
        MissingExtraError: a package of an extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
        if extra is None:
            raise
        raise MissingExtraError(f'{what} needs {module}: pip install "emo-hf[{extra}]"') from error
