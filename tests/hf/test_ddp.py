"""DDP on two gloo ranks: one loss, one emotion, the same weights; saved and resumed bit for bit."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from emo_hf import registry
from tests.hf import ddp_ranks
from tests.hf.two_processes import on_two_ranks
from tests.optimizer_contract import same

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def torchrun(folder: Path, *names: str, timeout: float = 240) -> subprocess.CompletedProcess:
    """Runs functions of ddp_ranks.py in `folder`, on two ranks."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "emo_hf.launch"]
    path = os.pathsep.join(filter(None, (str(HERE.parents[1]), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, *launch, str(HERE / "ddp_ranks.py"), *names],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def read(folder: Path, name: str) -> list[Any]:
    return [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def under_torchrun(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Any]]:
    folder = tmp_path_factory.mktemp("torchrun")
    result = torchrun(folder, "objective", "families", "unreduced")
    assert result.returncode == 0, result.stderr
    return functools.partial(read, folder)


def test_every_rank_gets_the_objective(under_torchrun):
    first, second = under_torchrun("objective")
    assert first["local"] != second["local"]  # they do see different batches
    assert len(first["truth"]) == 12  # 10 micro-batches an epoch: groups of 4, 4, 2
    assert first["fed"] == first["truth"]
    assert second["fed"] == second["truth"] == first["truth"]
    assert first["rates"] == second["rates"]
    assert len(first["rates"]) == 12


@pytest.mark.parametrize("spec", ddp_ranks.distinct_rows(), ids=lambda spec: spec.key)
def test_ranks_have_the_same_weights_after_50_steps(spec, under_torchrun):
    first, second = (rank[spec.key] for rank in under_torchrun("families"))
    assert len(first["fed"]) == ddp_ranks.LONG
    assert first["fed"] == second["fed"]
    assert same(first["weights"], second["weights"])
    assert not same(first["weights"], dict(ddp_ranks.make_model().named_parameters()))


def test_without_the_reduction_the_weights_part(under_torchrun):
    first, second = under_torchrun("unreduced")
    assert first["fed"] != second["fed"]
    assert not same(first["weights"], second["weights"])


def test_only_the_first_rank_writes(under_torchrun):
    (folder,) = under_torchrun.args
    (record,) = (folder / "objective").glob("emo_signals*.jsonl")
    assert len(record.read_text().splitlines()) == 12


def test_the_reduction_overlaps_the_backward_pass(tmp_path):
    """Issued before backward, ahead of all gradient buckets of both ranks, and waited for only in step()."""
    for events in on_two_ranks(ddp_ranks.order, tmp_path, "order"):
        step = ["backward", "end of backward", "all_reduce", "backward", "bucket", "end of backward", "wait"]
        assert events == 2 * step


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("resume")
    return folder, on_two_ranks(resume_and_refuse, folder)


def resume_and_refuse() -> tuple[dict[str, Any], str]:
    return ddp_ranks.resume("resume"), ddp_ranks.refusal("resume")


@pytest.mark.parametrize("spec", registry.specs(), ids=lambda spec: spec.key)
def test_resume_is_bit_exact_on_both_ranks(spec, resumed):
    folder, ranks = resumed
    for found, _ in ranks:
        straight, again = found[spec.key]
        assert same(straight, again)
        assert same(straight, ranks[0][0][spec.key][0])
    file = folder / "resume" / spec.key / f"checkpoint-{ddp_ranks.HALF}" / "optimizer.pt"
    saved = torch.load(file, weights_only=True)
    assert saved["param_groups"][0]["optimizer"] == spec.key


def test_a_checkpoint_of_another_version_is_refused_on_both_ranks(resumed):
    for _, message in resumed[1]:
        assert "is of emosens-3.9, this optimizer is emosens-3.7." in message


def test_a_rank_that_raises_ends_the_run_and_leaves_a_whole_checkpoint(tmp_path):
    result = torchrun(tmp_path, "failure", timeout=60)
    assert result.returncode != 0
    assert "rank 1 has had enough" in result.stderr
    folders = sorted((tmp_path / "failure").glob("checkpoint-*"))
    assert folders[-1].name == "checkpoint-6"
    args = ddp_ranks.make_args(str(tmp_path / "failure"), max_steps=8)
    trainer = ddp_ranks.Trainer(ddp_ranks.make_model(), args, train_dataset=ddp_ranks.make_data())
    ddp_ranks.Meter(trainer)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 8
