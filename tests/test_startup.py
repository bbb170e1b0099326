"""Pythons that a command starts know the names, by a sitecustomize on their path."""

import os
import subprocess
import sys

import pytest

from emo_hf import startup
from tests import ROOT

ASK = "import sys; print('emo_hf' in sys.modules, 'transformers' in sys.modules, 'hidden' in sys.modules)"


def python(*arguments, path, **environment):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), **environment}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def test_a_python_with_the_folder_on_its_path_imports_emo_hf_and_nothing_large():
    assert python("-c", ASK, path=[startup.FOLDER, str(ROOT)]) == ["True", "False", "False"]
    assert python("-c", ASK, path=[str(ROOT)]) == ["False", "False", "False"]


def test_a_sitecustomize_that_is_hidden_runs_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['hidden'] = sys")
    assert python("-c", ASK, path=[startup.FOLDER, str(tmp_path), str(ROOT)]) == ["True", "False", "True"]


def test_a_python_without_the_package_starts_as_well(tmp_path):
    code = "import sys; sys.modules['emo_hf'] = None"  # what an environment without it comes to
    (tmp_path / "usercustomize.py").write_text("")
    (tmp_path / "run.py").write_text(f"{code}\nimport runpy\nrunpy.run_path({startup.FOLDER + '/sitecustomize.py'!r})")
    assert python(str(tmp_path / "run.py"), path=[str(ROOT)]) == []


def test_what_the_path_has_to_be(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["a", startup.FOLDER, "b"]))
    assert startup.python_path().split(os.pathsep) == [startup.FOLDER, "a", "b"]
    assert python("-m", "emo_hf.startup", path=["a", str(ROOT)]) == [os.pathsep.join([startup.FOLDER, "a", str(ROOT)])]


@pytest.mark.slow
def test_launch_reaches_a_command_and_its_children(tmp_path):
    command = tmp_path / "train-it"
    child = "from transformers import TrainingArguments as A; print(A('out', optim='emosens', report_to=[]).optim)"
    command.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)\nprint(sys.argv[1:])\n"
    )
    command.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    told = python("-m", "emo_hf.launch", "train-it", "--fast", path=[str(ROOT)], PATH=path)
    assert told[-2:] == ["OptimizerNames.emosens", "['--fast']"]
