"""FSDP on two gloo ranks: the same steps as without sharding, saved and restored in every layout, bit for bit.

On a CPU accelerate turns FSDP silently into DDP, so these tests shard the model themselves and check that they did.
"""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Shard
from transformers import Trainer, TrainingArguments

from emo_hf import registry
from emo_hf.errors import EmoError
from emo_hf.hf.feed import find_optimizer
from emo_hf.spec import OptimizerSpec
from tests.hf.tiny_gpt2 import OLD, make_data, make_model
from tests.hf.two_processes import on_two_ranks
from tests.optimizer_contract import build, same

pytestmark = pytest.mark.slow

# Every zone of every scalar: 0 to -0.7, 0.9 and -1 in 3.0, 0.4 and -0.97 from 3.1 on
LOSSES = (2.0, 1.6, 2.2, 1.9, 1.5, 3.5, 2.2, 1.8, 2.0, 1.9, 0.2, 20.0)
HALF = len(LOSSES) // 2
LAYOUTS = ("sharded, nested", "sharded, flattened", "full")
DISTINCT = list({(row.update, row.geometry, row.shadow.late): row for row in registry.specs()}.values())
CPU_HAS_EVENTS = hasattr(torch.cpu.Stream, "record_event")  # FSDP2 waits for them
THROUGH_TRAINER = ("emonavi-1.0", "emofact-3.0", "emovoid-3.9")


class Model(torch.nn.Module):
    """Parameters that divide evenly over two ranks and that do not, down to a single row; 1 to 3 dimensions."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = {
            "embedding": (7, 4),
            "weight": (6, 4),
            "bias": (6,),
            "cube": (3, 2, 3),
            "head": (6, 5),
            "row": (1, 5),
        }
        for name, shape in shapes.items():
            value = 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
            self.register_parameter(name, torch.nn.Parameter(value))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.embedding[ids] @ self.weight.T + self.bias)
        mixed = torch.tanh(torch.einsum("btij,ijk->btk", hidden.unflatten(-1, (3, 2)), self.cube))
        logits = torch.cat([mixed, mixed**2], -1) @ self.head + self.row
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten() % 5)


def batches() -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return (torch.randint(0, 7, (4, 3), generator=generator) for _ in LOSSES)


def run(model: torch.nn.Module, optimizer: Any, first: int = 0, last: int = len(LOSSES), rank: int | None = None):
    """Takes the steps from `first` to `last`, with the share of the data of `rank` or with all of it."""
    for t, ids in enumerate(batches()):
        if first <= t < last:
            model(ids if rank is None else ids[2 * rank : 2 * rank + 2]).backward()
            optimizer.step(loss=LOSSES[t])
            optimizer.zero_grad()


def whole(value: Any) -> Any:
    """`value` with every DTensor in it put together."""
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    return value.full_tensor() if isinstance(value, DTensor) else value


def everything(model: torch.nn.Module, optimizer: Any) -> list[Any]:
    states = [whole(optimizer.state[p]) for p in model.parameters()]
    return copy.deepcopy(
        [*map(whole, map(torch.Tensor.detach, model.parameters())), states, optimizer.param_groups[0]["emo"]]
    )


def sharded(row: Any, model: torch.nn.Module | None = None) -> tuple[torch.nn.Module, Any]:
    """A model under FSDP2, one weight sharded by columns, and the optimizer of `row` with its shadow."""
    model = copy.deepcopy(model) if model is not None else Model()
    by_column = lambda p: Shard(1) if p.shape == (6, 4) else None  # noqa: E731
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)), shard_placement_fn=by_column)
    assert all(isinstance(p, DTensor) for p in model.parameters())
    return model, build(row, model.parameters(), shadow=True)


# -- on the ranks ----------------------------------------------------------------------------------------------------


def help_old_torch() -> None:
    """Adds to this process what torch 2.6 lacks for FSDP2 on a CPU."""
    if CPU_HAS_EVENTS:
        return
    torch.cpu.Stream.record_event = torch.cpu.Stream.wait_event = lambda *_: None
    reduce_scatter = dist.reduce_scatter_tensor

    def averaging(output: torch.Tensor, input: torch.Tensor, op: Any, **options: Any) -> None:
        reduce_scatter(output, input, dist.ReduceOp.SUM, **options)
        if op == dist.ReduceOp.AVG:  # gloo takes it for a sum
            output /= dist.get_world_size()

    dist.reduce_scatter_tensor = averaging


def save_and_load(layout: str, model: torch.nn.Module, optimizer: Any, fresh: torch.nn.Module, resumed: Any) -> None:
    """Brings the state of `optimizer` over `model` into `resumed` over `fresh`, through files."""
    if layout == "full":
        state = get_optimizer_state_dict(
            model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
        )
        if dist.get_rank() == 0:
            torch.save(state, "full.pt")
            state = torch.load("full.pt", weights_only=True)
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_optimizer_state_dict(fresh, resumed, state, options=options)
        return
    options = StateDictOptions(flatten_optimizer_state_dict=layout == "sharded, flattened")
    dcp.save({"optimizer": get_optimizer_state_dict(model, optimizer, options=options)}, checkpoint_id=layout)
    state = {"optimizer": get_optimizer_state_dict(fresh, resumed, options=options)}
    dcp.load(state, checkpoint_id=layout)
    set_optimizer_state_dict(fresh, resumed, state["optimizer"], options=options)


def fsdp2() -> dict[str, Any]:
    """Returns for every row how far sharding moved the results, and which layouts of checkpoint continue exactly."""
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    help_old_torch()
    rank, found = dist.get_rank(), {}
    for row in registry.specs():
        plain = Model()
        reference = build(row, plain.parameters(), shadow=True)
        run(plain, reference)
        model, optimizer = sharded(row)
        run(model, optimizer, 0, HALF, rank)
        again = {}
        for layout in LAYOUTS if row in DISTINCT else LAYOUTS[:1]:
            fresh, resumed = sharded(row)
            for new, old in zip(fresh.parameters(), model.parameters(), strict=True):
                new.data.copy_(old.data)
            save_and_load(layout, model, optimizer, fresh, resumed)
            run(fresh, resumed, HALF, len(LOSSES), rank)
            again[layout] = everything(fresh, resumed)
        run(model, optimizer, HALF, len(LOSSES), rank)
        straight = everything(model, optimizer)
        found[row.key] = {
            "weights": straight,
            "unsharded": everything(plain, reference),
            "exact": {layout: same(end, straight) for layout, end in again.items()},
        }
    return found


def fsdp1() -> dict[str, Any]:
    """Returns for each update rule how far FSDP1 moved the weights and if a resumed run ended there, or why not."""
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    rank, found = dist.get_rank(), {}
    for row in DISTINCT:
        plain = Model()
        run(plain, build(row, plain.parameters(), shadow=True))
        for original in (False, True):
            wrap = {"device_id": torch.device("cpu"), "use_orig_params": original}
            model = FullyShardedDataParallel(Model(), **wrap)
            optimizer = build(row, model.parameters(), shadow=True)
            try:
                run(model, optimizer, 0, HALF, rank)
            except EmoError as error:
                found[row.key, original] = str(error)
                continue
            fresh = FullyShardedDataParallel(Model(), **wrap)
            resumed = build(row, fresh.parameters(), shadow=True)
            fresh.load_state_dict(copy.deepcopy(model.state_dict()))
            saved = FullyShardedDataParallel.optim_state_dict(model, optimizer)
            resumed.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(fresh, resumed, saved))
            run(model, optimizer, HALF, len(LOSSES), rank)
            run(fresh, resumed, HALF, len(LOSSES), rank)
            ends = copy.deepcopy([model.state_dict(), fresh.state_dict(), plain.state_dict()])
            found[row.key, original] = (difference(list(ends[0].values()), list(ends[2].values())), same(*ends[:2]))
    return found


def make_trainer(row: OptimizerSpec, **options: Any) -> Trainer:
    """A Trainer of the tiny model under FSDP2. Only on accelerators would ``TrainingArguments(fsdp=...)`` do it."""
    model = make_model()
    del model.truth  # FSDP cannot shard a 0-d parameter
    switch = {"optim_args": "use_shadow=true"} if "use_shadow" in row.options else {}
    args = TrainingArguments(
        row.key, optim=row.key, lr_scheduler_type="constant", max_steps=20, use_cpu=True, max_grad_norm=0.0,
        per_device_train_batch_size=2, report_to=[], logging_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False, **switch, **options,
    )  # fmt: skip
    trainer = Trainer(model, args, train_dataset=make_data())
    state = trainer.accelerator.state
    state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=["GPT2Block"],
        state_dict_type="SHARDED_STATE_DICT",
    )  # fmt: skip
    trainer.is_fsdp_enabled = True
    return trainer


def trained(trainer: Trainer, checkpoint: str | None = None) -> tuple[list[float], Any]:
    """Returns the losses of this rank, and all weights and states after the training."""
    local, compute_loss = [], trainer.compute_loss
    trainer.compute_loss = lambda *a, **k: (loss := compute_loss(*a, **k), local.append(loss.item()))[0]
    trainer.train(resume_from_checkpoint=checkpoint)
    assert all(isinstance(p, DTensor) for p in trainer.model.parameters())
    optimizer = find_optimizer(trainer.optimizer)
    return [*local, optimizer.signals().loss], everything(trainer.model, optimizer)


def trainers() -> dict[str, Any]:
    """Returns for some rows what two trainings over 20 steps ended with, one straight and one resumed at step 10."""
    warnings.simplefilter("ignore")
    found = {}
    for key in THROUGH_TRAINER:
        row = registry.find(key)
        straight = trained(make_trainer(row, save_strategy="steps", save_steps=10))
        found[key] = straight, trained(make_trainer(row, save_strategy="no"), f"{row.key}/checkpoint-10")
    return found


def difference(a: Any, b: Any) -> float:
    """The largest difference of two nested containers of tensors."""
    if isinstance(a, torch.Tensor):
        return 0.0 if torch.equal(a, b) else (a - b).abs().max().item()
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return max((difference(a[key], b[key]) for key in a), default=0.0)
    return max((difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0) if isinstance(a, list) else 0.0


# -- the tests -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def under_fsdp2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    first, second = on_two_ranks(fsdp2, tmp_path_factory.mktemp("fsdp2"))
    assert same(first, second)
    return first


@pytest.fixture(scope="module")
def under_fsdp1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return on_two_ranks(fsdp1, tmp_path_factory.mktemp("fsdp1"))[0]


def test_fsdp2_takes_the_steps_of_a_single_process(under_fsdp2):
    """Factored moments, norms of a tensor and of the whole model are those of the unsharded weights."""
    moved = {key: difference(found["weights"], found["unsharded"]) for key, found in under_fsdp2.items()}
    assert len(moved) == len(registry.specs())
    assert {key: value for key, value in moved.items() if value > 1e-12} == {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fsdp2_resumes_bit_for_bit(under_fsdp2, layout):
    exact = {key: found["exact"][layout] for key, found in under_fsdp2.items() if layout in found["exact"]}
    assert len(exact) == len(registry.specs() if layout == LAYOUTS[0] else DISTINCT)
    assert [key for key, value in exact.items() if not value] == []


def test_the_losses_reach_every_zone_of_the_scalar():
    params = [torch.nn.Parameter(torch.ones(2))]
    reached = {}
    for key in ("emoclan-3.0", "emonavi-3.6"):
        optimizer = build(registry.find(key), params)
        scalars = []
        for loss in LOSSES:
            optimizer.step(loss=loss)
            scalars.append(abs(optimizer.signals().scalar))
        reached[key] = scalars
    clan = reached["emoclan-3.0"]
    assert all(
        any(low < s <= high for s in clan) for low, high in ((0, 0.2), (0.2, 0.3), (0.3, 0.5), (0.5, 0.6), (0.6, 1))
    )
    assert max(reached["emonavi-3.6"]) > 0.625
    assert max(clan[:HALF]) > 0.6  # a shadow that begins late has begun before the checkpoint


@pytest.mark.skipif(not CPU_HAS_EVENTS, reason="this torch gathers weights twice on a CPU, which autograd refuses")
def test_trainer_under_fsdp2_feeds_the_mean_loss_and_resumes_bit_for_bit(tmp_path):
    first, second = on_two_ranks(trainers, tmp_path)
    for key in THROUGH_TRAINER:
        (losses, straight), (_, resumed) = first[key]
        other_losses, other = second[key][0]
        assert losses[:-1] != other_losses[:-1]  # they do see different batches
        assert losses[-1] == other_losses[-1] == pytest.approx((losses[-2] + other_losses[-2]) / 2, rel=1e-6)
        assert same(straight, other)
        if OLD:  # resumes with other batches after the first epoch, whatever the optimizer
            continue
        assert same(straight[:-1], resumed[:-1])
        assert list(straight[-1]) == pytest.approx(list(resumed[-1]), rel=0, abs=0, nan_ok=True)


def test_fsdp1_takes_the_elementwise_rows_and_resumes_bit_for_bit(under_fsdp1):
    taken = {key: found for key, found in under_fsdp1.items() if not isinstance(found, str)}
    assert {key for key, _ in taken} == {row.key for row in DISTINCT if row.elementwise}
    assert {key: found for key, found in taken.items() if found[0] > 1e-12} == {}
    # With use_orig_params=True torch itself gives optimizer states back rounded, also those of AdamW
    assert [key for (key, original), found in taken.items() if not (original or found[1])] == []


def test_fsdp1_is_refused_where_it_would_be_silently_wrong(under_fsdp1):
    refused = {key: found for key, found in under_fsdp1.items() if isinstance(found, str)}
    assert {key for key, _ in refused} == {row.key for row in DISTINCT if not row.elementwise}
    for (key, _), message in refused.items():
        assert message.startswith(f"{key} needs every parameter whole")
        assert "Use DDP or FSDP2" in message
