"""Two gloo ranks without synchronisation: own loss, own emotion, and weights that meet at their time."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from emo_hf.errors import CheckpointError, OptionError
from emo_hf.hf import EmoTrainer, local_sgd
from tests.hf.tiny_gpt2 import OLD, Meter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What both ranks wrote in all trainings of the script."""
    here, folder = Path(__file__).parent, tmp_path_factory.mktemp("local")
    path = os.pathsep.join(filter(None, (str(here.parents[1]), os.environ.get("PYTHONPATH"))))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [sys.executable, *launch, str(here / "local_sgd_script.py")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def ranks(folder):
    return lambda name: [torch.load(folder / f"{name}-{rank}.pt") for rank in (0, 1)]


def equal_at(event: str, first: dict, second: dict) -> list[int]:
    """Returns the steps at which both ranks had bitwise the same weights."""
    assert first[event].keys() == second[event].keys()
    return [step for step, weights in first[event].items() if torch.equal(weights, second[event][step])]


@pytest.mark.parametrize(("name", "steps"), [("straight", 12), ("pulse", 8)])
def test_each_rank_is_fed_its_own_objective(ranks, name, steps):
    first, second = ranks(name)
    assert len(first["truth"]) == len(second["truth"]) == steps
    assert first["fed"] == first["truth"]  # with accumulation, and an incomplete last group
    assert second["fed"] == second["truth"]
    assert not set(first["truth"]) & set(second["truth"])  # the gradients of the ranks never met


def test_loss_is_the_mean_over_the_own_tokens(ranks):
    first, second = ranks("pulse")  # batches of one sequence of 8 tokens, some of them masked
    assert len(first["tokens"]) == len(second["tokens"]) == 8
    assert max(*first["tokens"], *second["tokens"]) <= 8
    assert first["tokens"] != second["tokens"]


def test_emotions_differ_and_each_is_recorded(ranks, folder, read_signals):
    first, second = ranks("straight")
    assert first["state"] != second["state"]
    for place, rank in ((folder / "straight", first), (folder / "straight/rank1", second)):
        rows = read_signals(place)
        assert [row["emo/loss"] for row in rows] == rank["fed"]
        assert [row["emo/lr"] for row in rows] == rank["lr"]
    assert first["lr"] != second["lr"]
    state = json.loads((folder / "straight/trainer_state.json").read_text())
    assert [log["emo/loss"] for log in state["log_history"] if "emo/loss" in log] == first["fed"]
    assert not (folder / "straight/rank1/trainer_state.json").exists()


def test_weights_are_equal_when_averaged_and_at_no_other_time(ranks):
    first, second = ranks("straight")
    assert list(first["step"]) == list(range(1, 13))
    assert equal_at("step", first, second) == [5, 10]
    assert equal_at("begin", first, second) == [0]
    assert equal_at("evaluate", first, second) == ([8] if OLD else [8, 12])  # only transformers 5 evaluates at the end
    assert equal_at("save", first, second) == [6, 12]
    assert equal_at("end", first, second) == [12]
    assert equal_at("early end", first, second) == [12]


def test_what_is_evaluated_and_saved_is_the_mean_of_the_ranks(ranks, folder):
    first, second = ranks("straight")
    for event, step in (("save", 6), ("evaluate", 8), ("save", 12), ("end", 12)):
        mean = (first["step"][step] + second["step"][step]) / 2
        assert torch.equal(first[event][step], mean)
    saved = load_file(folder / "straight/checkpoint-6/model.safetensors")
    assert torch.equal(torch.sort(torch.cat([w.flatten() for w in saved.values()]))[0], first["save"][6].sort()[0])


@pytest.mark.parametrize(("name", "step"), [("straight", 6), ("pulse", 4)])
def test_resume_is_bit_exact_on_every_rank(ranks, name, step):
    resumed_name = {"straight": "resumed", "pulse": "pulse-resumed"}[name]
    for straight, resumed in zip(ranks(name), ranks(resumed_name), strict=True):
        assert resumed["fed"] == straight["fed"][step:]
        assert resumed["lr"][step:] == straight["lr"][step:]  # what was logged before is rank 0's
        assert resumed["state"] == straight["state"]
        assert list(resumed["step"]) == list(straight["step"])[step:]
        for k, weights in resumed["step"].items():
            assert torch.equal(weights, straight["step"][k])


def test_every_rank_goes_on_from_the_one_state_of_a_synchronous_checkpoint(ranks):
    first, second = ranks("from-synchronous")
    assert list(first["step"]) == [3, 4]
    assert equal_at("step", first, second) == [4]


def test_best_model_is_loaded_on_every_rank(ranks, folder):
    first, second = ranks("best")
    assert equal_at("end", first, second) == [5]
    best = load_file(Path(folder, json.loads((folder / "best.json").read_text()), "model.safetensors"))
    saved = torch.cat([weights.flatten() for weights in best.values()]).sort()[0]
    assert torch.equal(saved, first["end"][5].sort()[0])
    assert torch.equal(first["end"][5], first["save"][2])
    assert not torch.equal(first["end"][5], first["save"][5])


def test_training_after_an_interrupted_one_starts_from_the_mean(ranks):
    broken = ranks("broken")
    assert equal_at("step", *broken) == []
    first, second = ranks("again")  # 3 steps with K = 5
    assert torch.equal(first["begin"][0], (broken[0]["step"][2] + broken[1]["step"][2]) / 2)
    assert equal_at("begin", first, second) == [0]
    assert equal_at("step", first, second) == []  # so gradients are still each rank's own
    assert equal_at("end", first, second) == equal_at("early end", first, second) == [3]
    assert first["fed"] == first["truth"]


def test_averaging_each_step_is_synchronous_gradient_descent(ranks):
    first, second = ranks("sgd-local")
    synchronous, _ = ranks("sgd-synchronous")
    assert equal_at("step", first, second) == [1, 2, 3, 4]
    for step, weights in synchronous["step"].items():
        torch.testing.assert_close(first["step"][step], weights, rtol=0, atol=1e-6)
    assert not torch.allclose(synchronous["step"][1], synchronous["step"][4], rtol=0, atol=1e-3)


def test_one_process_has_nothing_to_average(make_trainer, caplog):
    with caplog.at_level(logging.WARNING, logger=local_sgd.__name__):
        trainer = make_trainer(lambda **parts: EmoTrainer(**parts, local_sgd_steps=4), max_steps=3)
    assert "local_sgd_steps=4 has no effect: one process has nothing to average" in caplog.text
    meter = Meter(trainer)
    trainer.train()
    assert meter.fed == meter.truth
    assert len(meter.fed) == 3


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, "8"])
def test_steps_must_be_a_positive_integer(make_trainer, steps):
    with pytest.raises(OptionError, match=rf"local_sgd_steps={steps!r}: expected the number of optimizer steps"):
        make_trainer(lambda **parts: EmoTrainer(**parts, local_sgd_steps=steps))


@pytest.mark.parametrize(
    ("kind", "fsdp", "deepspeed"),
    [("FSDP", True, False), ("DEEPSPEED", False, True), ("MULTI_CPU", True, False), ("MEGATRON_LM", False, False)],
)
def test_sharded_models_are_refused(kind, fsdp, deepspeed):
    accelerator = SimpleNamespace(distributed_type=DistributedType(kind), num_processes=2)
    trainer = SimpleNamespace(accelerator=accelerator, is_fsdp_enabled=fsdp, is_deepspeed_enabled=deepspeed)
    with pytest.raises(OptionError, match=rf"local_sgd_steps=4 got {kind}; expected plain DDP"):
        local_sgd.install(trainer, 4)


def test_model_that_is_not_replicated_is_refused(make_args):
    averaging = local_sgd.Averaging(SimpleNamespace(model_wrapped=torch.nn.Linear(1, 1)), 4)
    with pytest.raises(
        OptionError, match=r"local_sgd_steps=4 got a Linear that is not wrapped in DDP; expected plain"
    ):
        averaging.on_train_begin(make_args(), TrainerState(), TrainerControl())


@pytest.mark.parametrize(("rank", "ranks_now"), [(1, 4), (2, 4)])
def test_checkpoint_of_another_number_of_ranks_is_refused(tmp_path, rank, ranks_now):
    """Of two ranks: now four, of which the second finds a state, but of another split, and the third finds none."""
    torch.save({"ranks": 2, "optimizer": {}, "scheduler": {}}, tmp_path / "optimizer_rank1.pt")
    args = SimpleNamespace(process_index=rank, world_size=ranks_now, device=torch.device("cpu"))
    averaging = local_sgd.Averaging(SimpleNamespace(args=args), 4)
    with pytest.raises(CheckpointError, match="each with an optimizer state of its own; now there are 4"):
        averaging.load_state(str(tmp_path))
