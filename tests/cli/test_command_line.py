"""The command as people use it. What trains, trains for real, at smoke size."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from emo_hf import cli, registry, run_folder
from emo_hf.dashboards import read_signals
from emo_hf.lab.recipe import baselines
from tests import ROOT
from tests.lab import made_up_runs

pytestmark = pytest.mark.slow

NEEDS_PEFT = pytest.mark.skipif(not find_spec("peft"), reason="peft is not installed")


def emo_hf(*args: str, cwd: Path) -> subprocess.CompletedProcess:
    """Runs the command from `cwd` in a process of its own, on a terminal 100 columns wide."""
    command = [sys.executable, "-m", "emo_hf", *args]
    env = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_quickstart_at_smoke_size(tmp_path):
    recipe = str(ROOT / "recipes/quickstart.yaml")
    done = emo_hf("run", recipe, "--size", "smoke", "--seeds", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    place = tmp_path / "runs/quickstart/smoke"
    arms = ["emofree", "emosens", "emoairy", "emocats", "adamw"]
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("│")]
    table = [run_configs for run_configs in rows if run_configs[1] in arms]
    assert [run_configs[1] for run_configs in table] == arms
    assert "Results: runs/quickstart/smoke" in done.stdout
    for arm, run_configs in zip(arms, table, strict=True):
        folder = place / arm / "seed0"
        result = json.loads((folder / "summary.json").read_text())
        assert (result["steps"], result["train_examples"], result["test_examples"]) == (8, 128, 64)
        assert run_configs[5] == f"{result['accuracy']:.3f}"
        assert 0 < result["step_size_min"] <= result["step_size_median"] <= result["step_size_max"]
        history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        assert history[0] == {"step": 0, "total_steps": 8}
        steps = {row["step"]: row["learning_rate"] for row in history if "learning_rate" in row}
        assert list(steps) == list(range(1, 9))
        if arm != "adamw":
            signals = read_signals(folder / "emo_signals.jsonl")
            assert {row["step"]: row["emo/lr"] for row in signals} == steps
    again = emo_hf("run", recipe, "--size", "smoke", "--seeds", "0", cwd=tmp_path)
    assert again.returncode == 0
    assert "5 of 5 runs were finished before." in again.stdout
    assert [line.split() for line in again.stdout.splitlines() if line.split() in table] == table
    assert "[1/5]" in done.stdout
    assert "[1/5]" not in again.stdout


def test_trec_at_smoke_size(trec_folder, tmp_path):
    recipe = str(ROOT / "recipes/trec/gpt2-emosens.yaml")
    args = ("--size", "smoke", "--data-dir", str(trec_folder), "--seeds", "3", "--runs-dir", "out")
    done = emo_hf("run", recipe, *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out/trec-gpt2-emosens/smoke/emosens/seed3/summary.json").read_text())
    assert (result["train_examples"], result["test_examples"], result["seed"]) == (128, 64, 3)
    assert result["optimizer"] == "emosens-3.9"
    assert 0 <= result["accuracy"] <= 1


def test_failed_runs_are_listed(stand_in, recipe, write, tmp_path, capsys):
    stand_in('sys.exit("OutOfMemoryError: [bold] no room" if "adamw" in str(folder) else "")')
    code = cli.main(["run", write(recipe), "--size", "smoke", "--arms", "adamw", "--runs-dir", str(tmp_path / "runs")])
    out = capsys.readouterr().out
    assert code == 1
    assert re.search(r"\[1/2\] adamw seed 0: failed after \d+ s: OutOfMemoryError: \[bold\] no room", out)
    assert "failed: adamw seed 0: OutOfMemoryError: [bold] no room" in out
    assert "failed: adamw seed 1" in out
    assert str(tmp_path / "runs/tiny/smoke/adamw/seed1/log.txt") in out


def test_each_summary_is_read_once(trec_folder, tmp_path, monkeypatch, capsys):
    runs, read, parse = tmp_path / "runs", [], run_folder.parse_summary
    place = made_up_runs.write(runs, made_up_runs.recipe(), data_dir=trec_folder)
    monkeypatch.setattr(run_folder, "parse_summary", lambda text, path: read.append(path) or parse(text, path))
    assert cli.main(["run", str(place / "recipe.yaml"), "--data-dir", str(trec_folder), "--runs-dir", str(runs)]) == 0
    assert "6 of 6 runs were finished before." in capsys.readouterr().out
    assert sorted(read) == sorted(place.glob("*/seed*/summary.json"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "nowhere.yaml"], "No recipe 'nowhere.yaml'"),
        (["run", "{recipe}", "--size", "paper"], "tiny has no size 'paper', only smoke, small."),
        (["run", "{recipe}", "--arms", "emosesn"], "Did you mean 'emosens'?"),
        (["run", "{recipe}", "--data-dir", "."], "leave out --data-dir"),
        (["run", "{trec}", "--data-dir", "nowhere"], "nowhere is no folder"),
        (["run", "{trec}", "--data-dir", "{data}"], "The model openai-community/gpt2 at revision 607a30d"),
        pytest.param(
            ["run", "{lora}", "--data-dir", "{data}"], "stories260K.bin is missing: expected", marks=NEEDS_PEFT
        ),
        pytest.param(
            ["run", "{memory}", "--size", "smoke"],
            "stories260K of karpathy/tinyllamas at revision 0bd21da",
            marks=NEEDS_PEFT,
        ),
        (["run", "{recipe}"], "The optimizer lion is no_such_package.Lion, which is not installed"),
        (["show", "emosesn"], "No optimizer is called 'emosesn'. Did you mean 'emosens'"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    recipe, write, data_folder, tmp_path, monkeypatch, capsys, args, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(baselines.ALIASES, "lion", baselines.Alias("no_such_package", "Lion", "x"))
    shutil.rmtree(data_folder / "stories260k")
    recipe["arms"]["lion"] = {"optim": "lion", "lr": 1e-4, "tuning": "untuned"}
    shipped = {"trec": "trec/gpt2-emosens", "lora": "lora/stories", "memory": "memory/lora"}
    known = {name: str(ROOT / f"recipes/{path}.yaml") for name, path in shipped.items()}
    known |= {"recipe": write(recipe), "data": str(data_folder)}
    assert cli.main([arg.format(**known) for arg in args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("emo-hf: ")
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["walk"],
        ["run"],
        ["run", "x", "--seeds", "-1"],
        ["run", "x", "--seeds", "1.5"],
        ["run", "x", "--jobs", "0"],
    ],
)
def test_usage(args, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(args)
    assert stop.value.code == 2
    assert "usage: emo-hf" in capsys.readouterr().err


def test_unwritable_runs_folder_is_exit_code_1(recipe, write, tmp_path, capsys):
    (tmp_path / "runs").write_text("a file")
    assert cli.main(["run", write(recipe), "--runs-dir", str(tmp_path / "runs")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("emo-hf: ")
    assert "Traceback" not in error


def test_ctrl_c(stand_in, recipe, write, tmp_path):
    stand_in("print(os.getpid(), flush=True); time.sleep(600)")
    code = f"""if True:
        import sys
        from emo_hf import cli
        from emo_hf.lab.run import runner
        runner.WORKER = "stand_in"
        sys.exit(cli.main(["run", {write(recipe)!r}, "--runs-dir", {str(tmp_path / "runs")!r}]))
    """
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "runs/tiny/small/emosens/seed0/log.txt"
    for _ in range(1200):  # two minutes, for a machine under load
        if log.exists() and log.read_text().endswith("\n"):
            break
        time.sleep(0.1)
    worker = int(log.read_text())
    parent.send_signal(signal.SIGINT)
    _, error = parent.communicate(timeout=30)
    assert parent.returncode == 130
    assert error.startswith("Interrupted. Finished runs are kept")
    assert "Traceback" not in error
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


@pytest.mark.parametrize("width", [80, 200])
def test_ls_and_show_fit_the_terminal(width, monkeypatch, capsys):
    def lines(*args):
        assert cli.main([*args]) == 0
        said = capsys.readouterr().out.splitlines()
        assert max(map(len, said)) <= width
        assert "\u2026" not in "".join(said)
        return said

    monkeypatch.setenv("COLUMNS", str(width))
    listed = lines("ls")
    for row in registry.specs():
        assert len([line for line in listed if {row.key, row.source} < {*line.split()}]) == 1
    row = registry.find("emosens")
    shown = "\n".join(lines("show", "emosens"))
    assert row.key in shown
    assert all(re.search(rf"\b{name} = ", shown) for name in row.options)
    assert shown.count("│ * ") == len(row.quirks)
