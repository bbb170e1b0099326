"""Trainer on a GPU: the optimizer hears what was differentiated, in every precision, compiled, and over NCCL."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from emo_hf import registry
from emo_hf.optimizer import EmoOptimizer
from tests import ROOT
from tests.hf import nccl_ranks
from tests.hf.tiny_gpt2 import Meter, make_data
from tests.optimizer_contract import same

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated:DeprecationWarning"),  # torch.compile's own imports
]
SETTINGS = {
    "float32": {},
    "accumulation": {"gradient_accumulation_steps": 4},
    "bf16": {"bf16": True},
    "bf16, accumulation": {"bf16": True, "gradient_accumulation_steps": 4},
    "fp16": {"fp16": True},
    "fp16, accumulation": {"fp16": True, "gradient_accumulation_steps": 4},
    "clipping": {"max_grad_norm": 0.1},
    "torch_compile": {"torch_compile": True},
    "torch_compile, CUDA graphs": {"torch_compile": True, "torch_compile_mode": "reduce-overhead"},
}
ON_CPU = ("float32", "accumulation", "bf16", "bf16, accumulation", "clipping")


@pytest.fixture
def make(make_trainer, device, monkeypatch):
    """Trainers on the device, and on one alone: of several they would make a DataParallel."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def make(**options):
        return make_trainer(use_cpu=device == "cpu", **options)

    return make


@pytest.mark.parametrize(
    ("setting", "optim"),
    [*((setting, "emosens") for setting in SETTINGS), *((setting, "emofree") for setting in ("accumulation", "fp16"))],
)
@pytest.mark.filterwarnings("ignore")  # of compilers
def test_fed_loss_is_the_objective(setting, optim, make, device, read_signals):
    if device == "cpu" and setting not in ON_CPU:
        pytest.skip("of CUDA alone")
    trainer = make(max_steps=8, optim=optim, trainer={"train_dataset": make_data(80)}, **SETTINGS[setting])
    before = {name: p.detach().clone().to(device) for name, p in trainer.model.named_parameters()}
    meter = Meter(trainer)
    trainer.train()
    assert len(meter.fed) >= (6 if "fp16" in setting else 8)  # a scaler tries scales that are too large
    if setting != "clipping":  # of which the meter is a part
        assert meter.fed == pytest.approx(meter.truth, rel=1e-5)
    assert len(set(meter.fed)) == len(meter.fed)
    assert all(p.device.type == device and torch.isfinite(p).all() for p in trainer.model.parameters())
    assert not same(before, {name: p.detach() for name, p in trainer.model.named_parameters()})
    assert [row["emo/loss"] for row in read_signals(trainer.args.output_dir)] == meter.fed


def test_no_step_of_a_trainer_waits(make, device):
    if device == "cpu":
        pytest.skip("of CUDA alone")
    steps = []

    def begin(optimizer, *_):
        steps.append(type(optimizer))
        torch.cuda.set_sync_debug_mode(
            "error" if isinstance(optimizer, EmoOptimizer) and len(steps) > 3 else "default"
        )

    hooks = [
        register_optimizer_step_pre_hook(begin),
        register_optimizer_step_post_hook(lambda *_: torch.cuda.set_sync_debug_mode("default")),
    ]
    try:
        make(max_steps=8).train()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        for hook in hooks:
            hook.remove()
    assert len(steps) == 8


def test_training_goes_on_from_a_checkpoint(make, read_signals, device):
    options = {"max_steps": 12, "save_strategy": "steps", "save_steps": 6, "lr_scheduler_type": "linear"}
    straight = make(**options)
    straight.train()
    rows = read_signals(straight.args.output_dir)
    resumed = make(**options)
    resumed.train(resume_from_checkpoint=str(Path(straight.args.output_dir) / "checkpoint-6"))
    again = read_signals(resumed.args.output_dir)
    assert [row["step"] for row in again] == [row["step"] for row in rows] == list(range(1, 13))
    for name in ("emo/loss", "emo/scalar", "emo/lr"):  # atomic additions in the backward pass are not exact
        assert [row[name] for row in again] == pytest.approx([row[name] for row in rows], rel=1e-3, abs=1e-5)
    for param, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(param, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optim", ["emosens", "emovoid", "emofree"])
def test_the_model_in_a_cuda_graph_trains_as_it_does_without(optim, device):
    if device == "cpu":
        pytest.skip("of CUDA alone")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(10, 16, 8, generator=generator).cuda()
    targets = inputs.sum(-1, keepdim=True).sin()

    def train(captured):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)).cuda()
        optimizer = registry.build(optim, model.parameters())
        x, y = inputs[0].clone(), targets[0].clone()

        def backward():
            loss = (model(x) - y).square().mean()
            loss.backward()
            return loss.detach()

        graph = torch.cuda.CUDAGraph()
        if captured:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    optimizer.zero_grad()
                    backward()
            torch.cuda.current_stream().wait_stream(side)
            optimizer.zero_grad()
            with torch.cuda.graph(graph):
                loss = backward()
        losses = []
        for one, other in zip(inputs, targets, strict=True):
            x.copy_(one)
            y.copy_(other)
            if captured:
                graph.replay()
            else:
                optimizer.zero_grad()
                loss = backward()
            optimizer.step(loss=loss)
            losses.append(optimizer.signals().loss)
        return losses, [param.detach() for param in model.parameters()]

    (losses, params), (expected, others) = train(True), train(False)
    assert losses == pytest.approx(expected, rel=1e-4)
    for param, other in zip(params, others, strict=True):
        torch.testing.assert_close(param, other, rtol=1e-4, atol=1e-5)


def test_all_gpus_over_nccl_hear_one_loss_and_hold_the_same_weights(tmp_path, device):
    ranks = torch.cuda.device_count() if device == "cuda" else 2
    names = ["emosens", "emofree"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    done = subprocess.run(
        [sys.executable, *launch, nccl_ranks.__file__, str(tmp_path), device, *names],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for name in names:
        found = [torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(ranks)]
        assert {each["backend"] for each in found} == {"nccl" if device == "cuda" else "gloo"}
        assert all(math.isfinite(loss) for loss in found[0]["fed"])
        assert len(found[0]["fed"]) == nccl_ranks.STEPS
        assert found[0]["fed"] == pytest.approx(found[0]["truth"], rel=1e-5)
        for each in found[1:]:
            assert each["fed"] == found[0]["fed"]
            assert same(each["weights"], found[0]["weights"])
