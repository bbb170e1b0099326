"""DeepSpeed ZeRO 1 and 2 on two gloo ranks: element-wise optimizers train and resume, the others are refused."""

import copy
import importlib
import os
import warnings
from typing import Any

import pytest
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from transformers import Trainer, TrainerCallback, TrainingArguments

from emo_hf import registry
from emo_hf.errors import EmoError
from emo_hf.hf.feed import find_optimizer
from tests.hf.tiny_gpt2 import make_data, make_model
from tests.hf.two_processes import forget_accelerate, on_two_ranks
from tests.optimizer_contract import same

pytestmark = pytest.mark.slow

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")

STEPS, HALF = 20, 10
# One of every elementwise update rule, and one whose shadow begins late
TAKEN = ("emosens-3.9", "emosens-2.0", "emosens-3.7.0", "emoairy-3.9", "emocats-3.9", "emocats-2.0", "emonavi-1.0")
REFUSED = (
    "emofact-1.0",
    "emofact-3.1",
    "emoairy-2.0",
    "emoneco-3.0",
    "emozeal-3.0",
    "emoclan-3.0",
    "emofree",
    "emotion",
    "emovoid",
)


def make_trainer(stage: int, optim: str, alone: bool = False, **options: Any) -> Trainer:
    """A Trainer under DeepSpeed whose accelerate knows both ranks, as it does on GPUs.

    On a CPU it believes each of them to be alone and gives both the same data, unless the state is set by hand. With
    `alone` it is left in that belief, and each rank gets data of its own.
    """
    forget_accelerate()
    if not alone:
        PartialState(cpu=True)
        PartialState._shared_state["distributed_type"] = DistributedType.DEEPSPEED
    data = make_data()[int(os.environ["RANK"]) :: 2] if alone else make_data()
    zero = {
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }
    defaults = {
        "output_dir": f"{optim}-{stage}", "optim": optim, "lr_scheduler_type": "constant", "max_steps": STEPS,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "max_grad_norm": 0.0, "report_to": [],
        "logging_strategy": "no", "save_strategy": "no", "disable_tqdm": True, "dataloader_pin_memory": False,
        "deepspeed": zero, "accelerator_config": {"use_configured_state": not alone},
    }  # fmt: skip
    model = make_model()
    del model.truth  # DeepSpeed 0.19 cannot broadcast a 0-d parameter
    return Trainer(model, TrainingArguments(**{**defaults, **options}), train_dataset=data)


class Watch(TrainerCallback):
    """Notes what every step was fed, and the dimensions of what it changed."""

    def __init__(self) -> None:
        self.fed: dict[int, float] = {}
        self.dimensions: set[int] = set()

    def on_train_begin(self, *_: Any, optimizer: Any = None, **kwargs: Any) -> None:
        self.optimizer = find_optimizer(optimizer)
        self.optimizer.register_step_post_hook(self._after_step)

    def _after_step(self, *_: Any) -> None:
        self.fed[self.optimizer._state.steps] = (
            self.optimizer.signals().loss
        )  # ZeRO steps once for each parameter group
        self.dimensions.update(p.dim() for group in self.optimizer.param_groups for p in group["params"])


def train(trainer: Trainer, checkpoint: str | None = None) -> dict[str, Any]:
    """Returns what was fed, the losses of this rank by step, the weights, and the emotion."""
    local, watch, compute_loss = [], Watch(), trainer.compute_loss
    trainer.compute_loss = lambda *a, **k: (loss := compute_loss(*a, **k), local.append(loss.item()))[0]
    trainer.add_callback(watch)
    trainer.train(resume_from_checkpoint=checkpoint)
    return {
        "local": [sum(local[i : i + 2]) for i in range(0, len(local), 2)],
        "fed": list(watch.fed.values()),
        "weights": {name: p.detach().clone() for name, p in trainer.model.named_parameters()},
        "emotion": copy.deepcopy(watch.optimizer.param_groups[0]["emo"]),
        "dimensions": watch.dimensions,
    }


def ranks() -> dict[Any, Any]:
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DeepSpeed's own
        # Its compiled all-reduce for CPUs takes minutes to build and serves inference only
        importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None
        found: dict[Any, Any] = {}
        for stage in (1, 2):
            for optim in TAKEN if stage == 2 else TAKEN[:1]:
                saving = {"save_strategy": "steps", "save_steps": HALF}
                straight = train(make_trainer(stage, optim, **saving))
                found[stage, optim] = straight, train(make_trainer(stage, optim), f"{optim}-{stage}/checkpoint-{HALF}")
            for optim in REFUSED if stage == 2 else REFUSED[:1]:
                trainer = make_trainer(stage, optim, max_steps=1)
                before = copy.deepcopy(list(trainer.model.parameters()))
                try:
                    trainer.train()
                    found[stage, optim] = "trained"
                except EmoError as error:
                    unchanged = same([p.data for p in before], [p.data for p in trainer.model.parameters()])
                    found[stage, optim] = f"{error} {unchanged}"
        found["alone"] = train(make_trainer(2, "emosens", alone=True, output_dir=f"alone-{os.environ['RANK']}"))
        found["moments"] = message_of(make_trainer(2, "emosens", optim_args="moments=log", max_steps=1))
        return found


def message_of(trainer: Trainer) -> str:
    try:
        trainer.train()
    except EmoError as error:
        return str(error)
    return "trained"


@pytest.fixture(scope="module")
def under_zero(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    return on_two_ranks(ranks, tmp_path_factory.mktemp("deepspeed"), DS_ACCELERATOR="cpu", DS_BUILD_OPS="0")


taken = pytest.mark.parametrize(("stage", "optim"), [(1, TAKEN[0]), *((2, optim) for optim in TAKEN)])
refused = pytest.mark.parametrize(("stage", "optim"), [(1, REFUSED[0]), *((2, optim) for optim in REFUSED)])


@taken
def test_every_rank_gets_the_objective(stage, optim, under_zero):
    first, second = (rank[stage, optim][0] for rank in under_zero)
    assert first["local"] != second["local"]  # they do see different batches
    assert first["dimensions"] == {1}  # and ZeRO has taken the parameters over
    assert len(first["fed"]) == STEPS
    assert first["fed"] == second["fed"]
    mean = [(a + b) / 2 for a, b in zip(first["local"], second["local"], strict=True)]
    assert first["fed"] == pytest.approx(mean, rel=1e-6)


def test_ranks_agree_where_accelerate_believes_each_to_be_alone(under_zero):
    first, second = (rank["alone"] for rank in under_zero)
    mean = [(a + b) / 2 for a, b in zip(first["local"], second["local"], strict=True)]
    assert first["fed"] == second["fed"] == pytest.approx(mean, rel=1e-6)
    assert first["local"] != second["local"]
    assert same(first["weights"], second["weights"])
    assert same(first["emotion"], second["emotion"])


@taken
def test_ranks_have_the_same_weights_and_emotion(stage, optim, under_zero):
    first, second = (rank[stage, optim][0] for rank in under_zero)
    assert same(first["weights"], second["weights"])
    assert same(first["emotion"], second["emotion"])


@taken
def test_resume_is_bit_exact(stage, optim, under_zero):
    for rank in under_zero:
        straight, resumed = rank[stage, optim]
        assert resumed["fed"] == straight["fed"][HALF:]
        assert same(resumed["weights"], straight["weights"])
        assert same(resumed["emotion"], straight["emotion"])


@refused
def test_zero_is_refused_where_it_would_be_silently_wrong(stage, optim, under_zero):
    for rank in under_zero:
        message = rank[stage, optim]
        assert message.startswith(f"{registry.find(optim).key} needs every parameter whole")
        assert message.endswith("True")  # nothing was changed


def test_moments_of_the_gradient_are_refused(under_zero):
    assert all("moments='off'" in rank["moments"] for rank in under_zero)


def test_the_lists_hold_every_update_rule():
    rules = {(row.update, row.geometry, row.elementwise) for row in registry.specs()}
    listed = {key: registry.find(key) for key in (*TAKEN, *REFUSED)}
    assert {(row.update, row.geometry, row.elementwise) for row in listed.values()} == rules
    assert {key for key, row in listed.items() if row.elementwise} == set(TAKEN)
