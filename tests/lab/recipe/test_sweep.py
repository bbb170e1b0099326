"""A recipe as a W&B sweep: what an agent makes of it is run as it runs it, without a server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps import utils

from emo_hf import cli
from tests import ROOT

pytestmark = pytest.mark.slow


def started_by_agent(sweep: dict, **chosen) -> list[str]:
    """The command that W&B's agent makes of a sweep and the values that it was given."""
    values = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}})
    values |= {"env": ["/usr/bin/env"], "program": [sweep["program"]]}
    parts = utils.create_sweep_command(sweep["command"])
    return [word for part in parts for word in (values[part[2:-1]] if part.startswith("${") else [part])]


def records(folder: Path) -> list[dict]:
    """All that an offline run of W&B wrote."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def sweep(recipe, write, tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    assert cli.main(["sweep", write(recipe), "--size", "smoke", "-o", str(file)]) == 0
    assert capsys.readouterr().out == f"Written: {file}\n"
    return file


def test_grid(sweep, recipe, write, tmp_path, capsys):
    content = yaml.safe_load(sweep.read_text())
    assert content["method"] == "grid"
    assert content["parameters"] == {"arm": {"values": ["emosens", "adamw"]}, "seed": {"values": [0, 1]}}
    assert cli.main(["sweep", str(tmp_path / "recipe.yaml"), "--size", "smoke"]) == 0
    assert capsys.readouterr().out == sweep.read_text()
    sweep.write_text("mine")
    assert cli.main(["sweep", str(tmp_path / "recipe.yaml"), "-o", str(sweep)]) == 1
    assert "exists already: nothing was written" in capsys.readouterr().err
    assert sweep.read_text() == "mine"


def test_a_full_disk_does_not_block_the_next_try(recipe, write, tmp_path, capsys, full_disk):
    args = ["sweep", write(recipe), "-o", str(tmp_path / "sweep.yaml")]
    with full_disk():
        assert cli.main(args) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert f"No space left on device: '{tmp_path / 'sweep.yaml'}'" in error
    assert not list(tmp_path.glob("sweep.yaml*"))
    assert cli.main(args) == 0


def test_what_an_agent_starts(sweep, tmp_path):
    content = yaml.safe_load(sweep.read_text())
    env, program, *arguments = started_by_agent(content, arm="adamw", seed=7)
    assert (env, program) == ("/usr/bin/env", "emo-hf")
    assert arguments[-2:] == ["--arm=adamw", "--seed=7"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_RUN_ID": "from-agent", "WANDB_SWEEP_ID": "s1"}
    done = subprocess.run(
        [sys.executable, "-m", "emo_hf", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs/tiny/smoke/adamw/seed7/summary.json").exists()

    (file,) = Path(os.environ["WANDB_DIR"]).rglob("*.wandb")
    written = records(file.parent)
    run = next(record["run"] for record in written if record["type"] == "run")
    assert (run["run_id"], run["sweep_id"]) == ("from-agent", "s1")
    assert (run["run_group"], run["job_type"]) == ("tiny/smoke/adamw", "train")
    assert set(run["tags"]) == {"tiny", "smoke", "adamw_torch"}
    config = dict(run["config"])
    for record in written:
        config |= record["config"]["update"] if record["type"] == "config" else {}
    assert (config["recipe"], config["size"], config["arm"], config["seed"]) == ("tiny", "smoke", "adamw", 7)
    exits = [record["exit"]["exit_code"] for record in written if record["type"] == "exit"]
    assert exits == [0]  # finished, not crashed


def test_what_no_agent_can_run(tmp_path, recipe, write, capsys):
    recipe["arms"]["again"] = {**recipe["arms"]["emosens"], "replay": {"of": "emosens"}}
    path = write(recipe)
    assert cli.main(["sweep", path]) == 2
    assert "again: needs what another run has written" in capsys.readouterr().err
    assert cli.main(["sweep", path, "--arms", "emosens", "adamw"]) == 0
    assert cli.main(["sweep", str(ROOT / "recipes/functions/rosenbrock.yaml")]) == 2
    assert "descends a function" in capsys.readouterr().err
