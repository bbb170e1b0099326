"""A step hears one finite number, on several ranks their mean."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from emo_hf import EmoPulse, registry
from emo_hf.errors import NonFiniteLossError, OptionError
from emo_hf.loss import hear
from tests.hf.two_processes import on_two_ranks

NUMBERS = (
    2.5,
    np.float32(2.5),
    np.float64(2.5),
    np.array(2.5),
    np.array([2.5]),
    torch.tensor(2.5),
    torch.tensor([2.5]),
)


@pytest.mark.parametrize("loss", NUMBERS, ids=lambda loss: f"{type(loss).__name__} {getattr(loss, 'shape', '')}")
def test_whatever_is_one_number_is_heard(loss):
    assert hear(loss, "step()", "mean", []) == 2.5


@pytest.mark.parametrize("loss", [torch.ones(2), np.ones((1, 3)), torch.ones(0)], ids=lambda loss: str(loss.shape))
def test_several_numbers_are_refused(loss):
    with pytest.raises(OptionError, match=r"got a loss of shape .*, expected one number"):
        hear(loss, "step()", "mean", [])


@pytest.mark.parametrize("loss", [float("nan"), torch.tensor(float("inf"))])
def test_what_is_not_finite_is_refused(loss):
    with pytest.raises(NonFiniteLossError, match=r"step\(\) got a loss of (nan|inf)\."):
        hear(loss, "step()", "mean", [])


def test_emopulse_refuses_an_unknown_way_over_the_ranks():
    with pytest.raises(OptionError, match="expected one of mean, own"):
        EmoPulse(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0), loss_over_ranks="sum")


def train(driven: bool, over_ranks: str) -> tuple[list[float], float, list[float]]:
    """A loop with torch's DDP, as everybody writes it. Returns losses, the last one heard, and the weights."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 4))
    if driven:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        listener = EmoPulse(optimizer, loss_over_ranks=over_ranks)
    else:
        listener = optimizer = registry.build("emosens", model.parameters(), loss_over_ranks=over_ranks)
    generator, losses = torch.Generator().manual_seed(dist.get_rank()), []
    for _ in range(40):
        loss = model(torch.randn(16, 8, generator=generator)).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        listener.observe(loss)
        optimizer.step()
    return losses, listener.signals().loss, torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()


@pytest.mark.parametrize("driven", [False, True], ids=["emosens", "emopulse"])
@pytest.mark.parametrize("over_ranks", ["mean", "own"])
def test_replicas_stay_equal_by_the_mean_of_their_losses(tmp_path: Path, over_ranks: str, driven: bool):
    (ours, heard, weights), (theirs, other_heard, other_weights) = on_two_ranks(train, tmp_path, driven, over_ranks)
    if over_ranks == "mean":
        assert heard == other_heard == (ours[-1] + theirs[-1]) / 2
        assert weights == other_weights
    else:
        assert (heard, other_heard) == (ours[-1], theirs[-1])
        assert weights != other_weights
