"""The fed loss is the objective in every setting of Trainer that changes how a loss is computed or differentiated."""

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import Trainer, TrainerCallback

from emo_hf.hf import EmotionCallback, registration
from emo_hf.hf.feed import find_optimizer
from tests.hf.loss_functions import IgnoresCount, Stream, UsesCount, batch_mean
from tests.hf.tiny_gpt2 import Meter

CHECKPOINTING = (
    "activation_checkpointing" if Version(transformers.__version__) >= Version("5.20") else "gradient_checkpointing"
)


def train(trainer, steps):
    """Trains and returns the meter, whose fed and true losses are equal in each of `steps` different steps."""
    measured = Meter(trainer)
    trainer.train()
    assert len(set(measured.truth)) == len(measured.truth) == steps
    assert measured.fed == measured.truth
    return measured


# name: Trainer class, options, optimizer steps; 10 micro-batches an epoch make groups of 4, 4 and 2
SETTINGS = {
    "compute_loss that uses num_items_in_batch": (UsesCount, {"num_train_epochs": 2}, 6),
    "compute_loss that ignores num_items_in_batch": (IgnoresCount, {"num_train_epochs": 2}, 6),
    "compute_loss_func that ignores it": (Trainer, {"trainer": {"compute_loss_func": batch_mean}, "max_steps": 6}, 6),
    "max_steps within an epoch": (Trainer, {"max_steps": 2}, 2),
    "max_steps within the third epoch": (Trainer, {"max_steps": 7}, 7),
    "epoch and a half": (Trainer, {"num_train_epochs": 1.5}, 5),
    "half an epoch": (Trainer, {"num_train_epochs": 0.5}, 2),
    "dropped last batch": (Trainer, {"per_device_train_batch_size": 3, "dataloader_drop_last": True}, 6),
    "IterableDataset": (Trainer, {"trainer": {"train_dataset": Stream()}, "max_steps": 5}, 5),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.filterwarnings("ignore:.*makes no use of num_items_in_batch")
def test_fed_loss_is_the_objective(setting, make_trainer, read_signals):
    kind, options, steps = SETTINGS[setting]
    trainer = make_trainer(kind, gradient_accumulation_steps=4, **options)
    measured = train(trainer, steps)
    logs = [log for log in trainer.state.log_history if "loss" in log]
    rows = read_signals(trainer.args.output_dir)
    assert [row["emo/loss"] for row in rows] == [log["emo/loss"] for log in logs] == measured.truth


@pytest.mark.parametrize("reentrant", [True, False], ids=lambda value: f"use_reentrant={value}")
@pytest.mark.filterwarnings("ignore:.*makes no use of num_items_in_batch")
def test_fed_loss_is_the_objective_with_activation_checkpointing(reentrant, make_trainer):
    options = {CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": reentrant}}
    trainer = make_trainer(gradient_accumulation_steps=4, max_steps=3, **options)
    runs = []
    trainer.model.transformer.h[0].ln_1.register_forward_pre_hook(lambda *_: runs.append(1))
    train(trainer, 3)
    assert len(runs) == 2 * 10  # every layer runs once more in the backward pass


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning", "ignore:The .grad attribute:UserWarning")
@pytest.mark.filterwarnings("ignore:.*makes no use of num_items_in_batch")
def test_fed_loss_is_the_objective_of_a_compiled_model(make_trainer):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    options = {"torch_compile": True, "torch_compile_backend": "aot_eager"}  # the default needs a C++ compiler
    train(make_trainer(gradient_accumulation_steps=4, max_steps=2, **options), 2)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


class Replicas(torch.nn.DataParallel):
    """DataParallel on two devices, one after the other: each gets half of the batch, their losses come as a vector."""

    def forward(self, **inputs):
        halves = [{name: tensor.chunk(2)[i] for name, tensor in inputs.items()} for i in (0, 1)]
        outputs = [self.module(**half) for half in halves]
        self.losses = torch.stack([output.loss.reshape(()) for output in outputs])
        return {"loss": self.losses}


@pytest.mark.parametrize("average", [True, False], ids=lambda value: f"average_tokens_across_devices={value}")
@pytest.mark.filterwarnings("ignore:.*makes no use of num_items_in_batch")
def test_fed_loss_is_the_objective_under_data_parallel(average, make_trainer, monkeypatch):
    monkeypatch.setattr(torch.nn, "DataParallel", Replicas)
    trainer = make_trainer(gradient_accumulation_steps=4, max_steps=3, average_tokens_across_devices=average)
    trainer.args._n_gpu = 2
    train(trainer, 3)
    assert trainer.model_wrapped.losses.shape == (2,)
    assert len(set(trainer.model_wrapped.losses.tolist())) == 2


class Watch(TrainerCallback):
    """Notes at the end of every step whether it was skipped, and the emotion."""

    def __init__(self):
        self.skipped, self.emotions = [], []

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        self.skipped.append(optimizer.step_was_skipped)
        self.emotions.append(repr(find_optimizer(optimizer).param_groups[0]["emo"]))  # it holds NaNs


@pytest.mark.parametrize("way", ["wrap", "callback"])
def test_fp16_feeds_the_unscaled_loss_and_a_skipped_step_leaves_no_trace(way, make_trainer, read_signals):
    if way == "callback":
        registration.remove_patches()
    watch = Watch()
    callbacks = [watch, EmotionCallback()] if way == "callback" else [watch]
    options = {"fp16": True, "gradient_accumulation_steps": 4, "max_steps": 14}
    trainer = make_trainer(trainer={"callbacks": callbacks}, **options)
    # accelerate turns fp16 off on a CPU; torch has both parts of it there. The scale is too large for fp16 at first,
    # and again whenever it has doubled.
    trainer.accelerator.native_amp = True
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22, growth_interval=3)
    dtypes = set()
    trainer.model.transformer.h[0].mlp.register_forward_hook(lambda *args: dtypes.add(args[-1].dtype))
    measured = Meter(trainer)
    trainer.train()
    assert dtypes == {torch.float16}

    taken = [step for step, skipped in enumerate(watch.skipped, start=1) if not skipped]
    assert watch.skipped[0]
    assert any(watch.skipped[taken[0] :])  # and one in the middle
    assert len(measured.truth) == len(taken)
    assert measured.fed == measured.truth
    assert find_optimizer(trainer.optimizer).steps == len(taken)
    before = watch.emotions[0]
    for emotion, skipped in zip(watch.emotions, watch.skipped, strict=True):
        assert (emotion == before) is skipped
        before = emotion

    rows = {row["step"]: row["emo/loss"] for row in read_signals(trainer.args.output_dir)}
    assert rows == dict(zip(taken, measured.truth, strict=True))
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["step"] for log in logs] == list(range(1, 15))
    assert all(log["learning_rate"] == log.get("emo/lr", 0.0) for log in logs)  # that of the last step taken
