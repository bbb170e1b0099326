"""Two gloo ranks with seven labels and with one: ``average_tokens_across_devices`` on and off."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank saw."""
    folder = tmp_path_factory.mktemp("average_tokens")
    options = {
        "output_dir": "out", "optim": "emosens", "lr_scheduler_type": "constant", "use_cpu": "true",
        "per_device_train_batch_size": "1", "gradient_accumulation_steps": "4", "num_train_epochs": "1",
        "max_grad_norm": "0", "logging_steps": "1", "save_strategy": "no", "report_to": "none",
        "disable_tqdm": "true", "dataloader_pin_memory": "false", "ddp_find_unused_parameters": "false",
    }  # fmt: skip
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "emo_hf.launch"]
    path = os.pathsep.join(filter(None, (str(HERE.parents[1]), os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, *launch, str(HERE / "average_tokens_script.py"), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return [torch.load(folder / f"outcome-{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize(
    ("average", "objective"), [(True, "over all labels"), (False, "over the ranks")], ids=["on", "off"]
)
def test_fed_loss_is_the_objective_on_both_ranks(average, objective, ranks):
    first, second = (rank[average] for rank in ranks)
    assert len(first["truth"]) == 3
    assert first["fed"] == second["fed"] == first["truth"] == second["truth"]
    assert first["truth"] == pytest.approx(first[objective], rel=1e-5)
    # With unequal ranks the two objectives differ, ...
    assert first["over all labels"] != pytest.approx(first["over the ranks"], rel=1e-4)


def test_own_loss_of_a_rank_is_far_from_the_objective(ranks):
    # ... and with the switch on, what a rank computes from its share of the labels is neither.
    for rank, share in zip(ranks, (7 / 4, 1 / 4), strict=True):
        for own, truth in zip(rank[True]["own"], rank[True]["truth"], strict=True):
            assert own / truth == pytest.approx(share, rel=0.2)
