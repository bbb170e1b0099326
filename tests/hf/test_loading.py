"""Acting on modules once they have been executed: at once, later, never; in any order, and by several threads."""

import importlib
import importlib.util
import inspect
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emo_hf.hf import loading

FILES = {
    "__init__.py": "",
    "names.py": "NAMES = ['adamw']\n",
    "early.py": "from half_way import late\n",  # loads late, which needs early half-way
    "late.py": "import half_way.early\nfrom half_way.names import NAMES\nSEEN = list(NAMES)\n",
    "slow.py": "import time\ntime.sleep(0.2)\nNAMES = ['adamw']\n",
    "broken.py": "if BROKEN.pop():\n    raise RuntimeError('broken')\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package of modules that have not been loaded."""
    folder = tmp_path / "half_way"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(loading._finder.awaited)
    loading.forget()
    yield "half_way"
    loading.forget()
    loading.act_after(before)
    for name in [name for name in sys.modules if name.startswith("half_way")]:
        del sys.modules[name]


def add_to(name: str):
    def add():
        names = importlib.import_module(name).NAMES
        if "emosens" not in names:
            names.append("emosens")

    return add


def waiting() -> bool:
    return loading._finder in sys.meta_path


def test_a_loaded_module_is_acted_on_at_once(package):
    names = importlib.import_module("half_way.names")
    loading.act_after({"half_way.names": add_to("half_way.names")})
    assert names.NAMES == ["adamw", "emosens"]
    assert not waiting()


def test_another_one_after_it_was_executed(package):
    loading.act_after({"half_way.names": add_to("half_way.names")})
    assert waiting()
    assert "half_way" not in sys.modules
    names = importlib.import_module("half_way.names")
    assert names.NAMES == ["adamw", "emosens"]
    assert not waiting()


def test_before_a_module_that_imported_it_half_way_goes_on(package):
    done = []
    loading.act_after({"half_way.names": add_to("half_way.names"), "half_way.early": lambda: done.append("early")})
    early = importlib.import_module("half_way.early")
    assert early.late.SEEN == ["adamw", "emosens"]
    assert done == ["early"]
    assert not waiting()


def test_the_finder_waits_for_the_last_module(package):
    loading.act_after({"half_way.names": add_to("half_way.names"), "half_way.slow": add_to("half_way.slow")})
    importlib.import_module("half_way.names")
    assert waiting()
    importlib.import_module("half_way.slow")
    assert not waiting()


def test_the_module_keeps_its_own_loader_and_can_be_reloaded(package):
    loading.act_after({"half_way.names": add_to("half_way.names")})
    spec = importlib.util.find_spec("half_way.names")
    assert spec.loader.get_source("half_way.names") == FILES["names.py"]
    names = importlib.import_module("half_way.names")
    plain = type(importlib.import_module("half_way.slow").__loader__)
    assert type(names.__loader__) is type(names.__spec__.loader) is plain
    assert inspect.getsource(names) == FILES["names.py"]
    assert importlib.reload(names).NAMES == ["adamw"]  # as any change from outside
    loading.act_after({"half_way.names": add_to("half_way.names")})
    assert names.NAMES == ["adamw", "emosens"]


def test_a_package_that_is_not_installed_stays_not_found(package):
    loading.act_after({"gone.names": pytest.fail, "half_way.gone": pytest.fail})
    assert importlib.util.find_spec("gone") is None
    assert importlib.util.find_spec("half_way.gone") is None
    with pytest.raises(ModuleNotFoundError, match="gone"):
        importlib.import_module("gone.names")
    with pytest.raises(ModuleNotFoundError, match=r"half_way\.gone"):
        importlib.import_module("half_way.gone")


def test_a_module_that_fails_is_awaited_again(package, monkeypatch):
    monkeypatch.setattr("builtins.BROKEN", [False, True], raising=False)
    done = []
    loading.act_after({"half_way.broken": lambda: done.append(1)})
    with pytest.raises(RuntimeError, match="broken"):
        importlib.import_module("half_way.broken")
    assert not done
    importlib.import_module("half_way.broken")
    assert done == [1]


def test_what_an_action_raises_is_raised_by_the_import_every_time(package):
    def refuse():
        raise ImportError("moved")

    loading.act_after({"half_way.names": refuse})
    for _ in range(2):
        with pytest.raises(ImportError, match="moved"):
            importlib.import_module("half_way.names")
    assert waiting()


def test_forgotten_actions_never_run(package):
    loading.act_after({"half_way.names": pytest.fail})
    loading.forget()
    loading.forget()
    assert not waiting()
    assert importlib.import_module("half_way.names").NAMES == ["adamw"]


def test_no_thread_sees_the_module_without_the_action(package):
    """Eight threads import it; meanwhile another one asks for the action again."""
    loading.act_after({"half_way.slow": add_to("half_way.slow")})
    seen = []

    def look():
        seen.append(list(importlib.import_module("half_way.slow").NAMES))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    loading.act_after({"half_way.slow": add_to("half_way.slow")})
    for thread in threads:
        thread.join(timeout=60)
    assert seen == [["adamw", "emosens"]] * 8
    assert not waiting()


def test_two_threads_that_import_each_other_half_way_do_not_lock(tmp_path):
    """One imports emo_hf while the other imports what emo_hf waits for: Python's import locks sort it out."""
    code = """
import sys, threading
def first():
    import transformers.training_args
def second():
    import emo_hf
threads = [threading.Thread(target=each) for each in (first, second)]
for thread in threads: thread.start()
for thread in threads: thread.join()
from transformers import TrainingArguments
print(TrainingArguments("out", optim="emosens").optim.value)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert result.stdout.endswith("emosens\n"), result.stderr
