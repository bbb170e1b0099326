"""Two gloo ranks: one loss, one emotion, the same weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks saw, with and without the reduction of the loss over them."""
    here = Path(__file__).parent
    folder = tmp_path_factory.mktemp("ddp")
    options = {
        "output_dir": "out", "optim": "emosens", "lr_scheduler_type": "constant", "use_cpu": "true",
        "per_device_train_batch_size": "1", "gradient_accumulation_steps": "4", "num_train_epochs": "4",
        "max_grad_norm": "0", "logging_steps": "1", "save_strategy": "no", "report_to": "none",
        "disable_tqdm": "true", "dataloader_pin_memory": "false", "ddp_find_unused_parameters": "false",
    }  # fmt: skip
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "emo_hf.launch"]
    path = os.pathsep.join(filter(None, (str(here.parents[1]), os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, *launch, str(here / "ddp_script.py"), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return folder, {
        name: [torch.load(folder / f"{name}-{rank}.pt") for rank in (0, 1)] for name in ("reduced", "unreduced")
    }


def test_every_rank_gets_the_objective(ranks):
    first, second = ranks[1]["reduced"]
    assert first["local"] != second["local"]  # they do see different batches
    assert len(first["truth"]) == 12  # 10 micro-batches an epoch: groups of 4, 4, 2
    assert first["fed"] == first["truth"]
    assert second["fed"] == second["truth"] == first["truth"]


def test_ranks_have_the_same_weights(ranks):
    first, second = ranks[1]["reduced"]
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert [log["learning_rate"] for log in first["logs"]] == [log["learning_rate"] for log in second["logs"]]


def test_without_the_reduction_the_weights_part(ranks):
    first, second = ranks[1]["unreduced"]
    assert first["fed"] != second["fed"]
    assert not all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])


def test_only_the_first_rank_writes(ranks):
    records = list((ranks[0] / "out").glob("emo_signals*.jsonl"))
    assert len(records) == 2  # one per training, each with one row per step
    assert all(len(path.read_text().splitlines()) == 12 for path in records)
