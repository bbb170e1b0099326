"""A loop written with accelerate is fed and recorded, without a line or with one."""

import copy
import json
import pickle

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import GradientState
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
)
from transformers import get_linear_schedule_with_warmup

import emo_hf
from emo_hf import EmoPulse, EmoSens, LoopRecord, registry
from emo_hf.errors import EmoError, MissingLossError
from emo_hf.hf import registration
from emo_hf.hf.rates import tell_schedule

BATCHES = 6


@pytest.fixture(autouse=True)
def forget_other_accelerators():
    GradientState._reset_state()
    yield
    registration.install_patches()
    GradientState._reset_state()


def prepare(accelerator, way="emosens"):
    """Returns what a script prepares: model, optimizer, data, schedule; and who hears the loss."""
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 2)
    data = torch.utils.data.TensorDataset(torch.randn(4 * BATCHES, 8), torch.randint(0, 2, (4 * BATCHES,)))
    if way == "emosens":
        listener = optimizer = EmoSens(model.parameters())
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        listener = schedule = EmoPulse(optimizer)
    return *accelerator.prepare(model, optimizer, torch.utils.data.DataLoader(data, batch_size=4), schedule), listener


def train(accelerator, model, optimizer, data, schedule, listener):
    """The loop of accelerate's examples. Returns the objective of every step, and what was heard."""
    objectives, heard, micro = [], [], 0.0
    for features, labels in data:
        with accelerator.accumulate(model):
            loss = cross_entropy(model(features), labels)
            micro += loss.item() / accelerator.gradient_accumulation_steps
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            objectives.append(micro)
            heard.append(listener.signals().loss)
            micro = 0.0
    return objectives, heard


@pytest.mark.parametrize("way", ["emosens", "emopulse"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loop_is_fed_without_a_line(accumulation, way):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    objectives, heard = train(accelerator, *prepare(accelerator, way))
    assert len(heard) == BATCHES // accumulation
    assert heard == pytest.approx(objectives, abs=1e-6)


def linear(optimizer):
    return get_linear_schedule_with_warmup(optimizer, 2, 8)


def chained(optimizer):
    parts = [ConstantLR(optimizer, 0.5, 3), LinearLR(optimizer, 1.0, 0.1, 4)]
    return SequentialLR(optimizer, parts, milestones=[3])


class FromItsLast(LRScheduler):
    """Asks itself for its last rate."""

    def get_lr(self):
        return [lr * 0.9 for lr in self.get_last_lr()] if self.last_epoch > 0 else self.base_lrs


SCHEDULES = {
    "from its last": FromItsLast,
    "linear": linear,
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, 8),
    "a chain": chained,
    "a product": lambda optimizer: ChainedScheduler([ConstantLR(optimizer, 0.5, 3), ExponentialLR(optimizer, 0.9)]),
    "a plateau": lambda optimizer: ReduceLROnPlateau(optimizer, patience=0),
}


def two_groups():
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    return EmoSens([{"params": weights[:1], "lr": 0.5}, {"params": weights[1:], "lr": 0.1}]), weights


def step(optimizer, weights, schedule):
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step(loss=1.0)
    schedule.step(*([1.0] if isinstance(schedule, ReduceLROnPlateau) else []))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_prepared_schedule_tells_the_rate_of_every_group_and_computes_as_before(name):
    (told, told_weights), (plain, plain_weights) = two_groups(), two_groups()
    schedule, reference = SCHEDULES[name](told), SCHEDULES[name](plain)
    kind = type(schedule)
    Accelerator(cpu=True).prepare(told, schedule)
    assert isinstance(schedule, kind)
    assert schedule.get_last_lr() == [0.0, 0.0]  # no step yet
    for _ in range(8):
        step(told, told_weights, schedule)
        step(plain, plain_weights, reference)
        assert schedule.get_last_lr() == [group["effective_lr"] for group in plain.param_groups]
        assert [group["lr"] for group in told.param_groups] == [group["lr"] for group in plain.param_groups]
        assert reference.get_last_lr() == [group["lr"] for group in plain.param_groups]
    assert str(schedule.state_dict()) == str(reference.state_dict()) or name in ("a chain", "a product")  # of objects
    tell_schedule(schedule)
    assert type(schedule) is kind
    assert schedule.get_last_lr() == reference.get_last_lr()


def test_a_schedule_of_another_optimizer_is_left_alone():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    schedule = ConstantLR(optimizer, 0.5)
    Accelerator(cpu=True).prepare(optimizer, schedule, two_groups()[0])
    assert type(schedule) is ConstantLR
    assert schedule.get_last_lr() == [0.05]


@pytest.mark.parametrize("way", [copy.deepcopy, lambda schedule: pickle.loads(pickle.dumps(schedule))])
def test_a_schedule_that_tells_the_rate_can_be_copied_and_told_again(way):
    optimizer, _ = two_groups()
    schedule = CosineAnnealingLR(optimizer, 8)
    accelerator = Accelerator(cpu=True)
    _, prepared = accelerator.prepare(optimizer, schedule)
    again = way(schedule)
    assert type(again) is CosineAnnealingLR
    assert again.state_dict() == schedule.state_dict()
    accelerator.prepare(again.optimizer, again)
    assert again.get_last_lr() == prepared.get_last_lr() == [0.0, 0.0]


def test_a_learning_rate_of_adamw_is_warned_of_once(caplog):
    accelerator = Accelerator(cpu=True)
    weight = torch.nn.Parameter(torch.ones(1))
    accelerator.prepare(EmoSens([weight], lr=0.01), registry.build("emonavi", [weight], lr=1e-4))
    assert caplog.text == ""
    optimizer = EmoSens([weight], lr=5e-5)
    accelerator.prepare(optimizer)
    accelerator.prepare(torch.nn.Linear(1, 1))
    assert caplog.text.count("multiplier for emosens-3.9: 5e-05 means a step of about 5e-09") == 1


def test_attach_feeds_what_was_prepared_before():
    registration.remove_patches()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    parts = prepare(accelerator)
    with pytest.raises(MissingLossError, match=r"attach\(accelerator\)"):
        train(accelerator, *parts)
    emo_hf.attach(accelerator)
    emo_hf.attach(accelerator)
    objectives, heard = train(accelerator, *parts)
    assert heard == pytest.approx(objectives, abs=1e-6)


def test_other_optimizers_are_left_alone():
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    accelerator.prepare(optimizer)
    assert "backward" not in vars(accelerator)
    with pytest.raises(EmoError, match="has prepared no emo optimizer"):
        emo_hf.attach(accelerator)
    with pytest.raises(EmoError, match="found no emo optimizer"):
        LoopRecord(accelerator, "nowhere")


@pytest.mark.parametrize("told", ["closure", "loss"])
def test_the_loss_of_the_last_micro_batch_that_a_step_is_told_does_not_count(told):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer, data, _, listener = prepare(accelerator)
    losses = []
    for features, labels in data:
        with accelerator.accumulate(model):
            loss = cross_entropy(model(features), labels)
            losses.append(loss.item())
            accelerator.backward(loss)
            optimizer.step(**{told: (lambda loss=loss: loss) if told == "closure" else loss})
            optimizer.zero_grad()
    assert listener.signals().loss == pytest.approx(sum(losses[-2:]) / 2, abs=1e-6)
    assert listener.steps == BATCHES // 2


@pytest.mark.parametrize("way", ["emosens", "emopulse"])
def test_a_record_has_every_step(way, tmp_path):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    parts = prepare(accelerator, way)
    with LoopRecord(accelerator, tmp_path, total_steps=3) as record:
        objectives, _ = train(accelerator, *parts)
    record.close()
    rows = [json.loads(line) for line in (tmp_path / "emo_signals.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["emo/loss"] for row in rows] == pytest.approx(objectives, abs=1e-6)
    train(accelerator, *parts)  # recorded no more
    assert len((tmp_path / "emo_signals.jsonl").read_text().splitlines()) == 3


def test_a_record_goes_on_from_a_step(tmp_path):
    accelerator = Accelerator(cpu=True)
    parts = prepare(accelerator)
    with LoopRecord(accelerator, tmp_path, total_steps=10):
        train(accelerator, *parts)
    with LoopRecord(accelerator, tmp_path, total_steps=10, start_step=4):
        train(accelerator, *parts)
    rows = [json.loads(line) for line in (tmp_path / "emo_signals.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 11))


def test_a_record_reaches_the_trackers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path / "board")
    accelerator.init_trackers("run")
    parts = prepare(accelerator)
    with LoopRecord(accelerator, tmp_path, total_steps=BATCHES):
        objectives, _ = train(accelerator, *parts)
    accelerator.end_training()
    events = EventAccumulator(str(tmp_path / "board" / "run"))
    events.Reload()
    assert [event.value for event in events.Scalars("emo/loss")] == pytest.approx(objectives, abs=1e-6)


def test_what_emofree_found_in_a_loop_is_logged_once_and_on_record(tmp_path, caplog):
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    model, optimizer = accelerator.prepare(model := torch.nn.Linear(8, 2), emo_hf.EmoFree(model.parameters()))
    features, labels = torch.randn(64, 8), torch.randint(0, 2, (64,))
    with LoopRecord(accelerator, tmp_path, total_steps=30):
        for _ in range(30):
            accelerator.backward(cross_entropy(model(features), labels))
            optimizer.step()
            optimizer.zero_grad()
    found = optimizer.optimizer.found
    first, *said = caplog.messages
    assert first == "emofree 1.0: multiplier 1.0, step size to be found within about 22 steps"
    assert said == [f"Step {found.steps}: emofree-1.0 {found}"]
    assert json.loads((tmp_path / "emo_run.json").read_text())["emo_found_lr"] == found.size
