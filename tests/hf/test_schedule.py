"""``lr_scheduler_type="emopulse"``: accepted wherever transformers takes the name, fed in every way in, recorded."""

import copy
import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import GradientState
from transformers import HfArgumentParser, Trainer, TrainerCallback, TrainingArguments, optimization
from transformers.trainer_utils import SchedulerType

import emo_hf.hf
from emo_hf import EmoPulse
from emo_hf.errors import MissingLossError, OptionError, RegistrationError
from emo_hf.hf import EmotionCallback, EmoTrainer, LossFeed, attach, registration
from emo_hf.hf import callback as hf_callback
from emo_hf.hf.feed import find_listener
from emo_hf.scheduler import find_pulse
from tests.hf.tiny_gpt2 import Meter, make_data

EMOPULSE = {"optim": "adamw_torch", "lr_scheduler_type": "emopulse", "learning_rate": 1e-3}
every_way = pytest.mark.parametrize("way", ["wrap", "mixin", "attach", "callback"])


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def build(way, make_trainer, trainer=None, **options):
    """A Trainer with emoPulse in one of the four ways in; only the first has the wrap of create_optimizer."""
    if way != "wrap":
        registration.remove_patches()
    parts = dict(trainer or {})
    if way == "callback":
        parts["callbacks"] = [*parts.get("callbacks", []), EmotionCallback()]
    built = make_trainer(EmoTrainer if way == "mixin" else Trainer, parts, **{**EMOPULSE, **options})
    if way == "attach":
        attach(built)
    return built


def steps_of(trainer):
    return [log for log in trainer.state.log_history if "loss" in log]


def weights(trainer):
    return [param.detach().clone() for param in trainer.model.parameters()]


# -- the name ---------------------------------------------------------------------------------------------------------


def test_name_is_a_member_and_registering_again_changes_nothing():
    members = list(SchedulerType)
    emo_hf.hf.register()
    assert list(SchedulerType) == members
    assert SchedulerType("emopulse") in members
    assert isinstance(SchedulerType("emopulse"), SchedulerType)


def test_name_survives(make_args, tmp_path):
    args = make_args(**EMOPULSE)
    assert args.lr_scheduler_type is SchedulerType("emopulse")
    assert type(args.to_dict()["lr_scheduler_type"]) is str
    assert json.loads(args.to_json_string())["lr_scheduler_type"] == "emopulse"
    for copied in (
        dataclasses.replace(args, seed=7),
        copy.deepcopy(args),
        pickle.loads(pickle.dumps(args)),
        TrainingArguments(str(tmp_path), lr_scheduler_type=args.to_dict()["lr_scheduler_type"]),
        TrainingArguments(str(tmp_path)).set_lr_scheduler(name="emopulse"),
    ):
        assert copied.lr_scheduler_type == "emopulse"


def test_argument_parser_accepts_the_name(tmp_path):
    parser = HfArgumentParser(TrainingArguments)
    (args,) = parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path), "--lr_scheduler_type", "emopulse"])
    assert args.lr_scheduler_type is SchedulerType("emopulse")
    (args,) = parser.parse_dict({"output_dir": str(tmp_path), "lr_scheduler_type": "emopulse"})
    assert args.lr_scheduler_type is SchedulerType("emopulse")


def test_pickles_load_where_emo_hf_is_not_installed(make_args, tmp_path, run_python):
    torch.save(make_args(**EMOPULSE), tmp_path / "training_args.bin")
    (tmp_path / "read.py").write_text(
        "import sys\n"
        "sys.modules['emo_hf'] = None\n"  # import emo_hf raises ImportError
        "import torch\n"
        "args = torch.load('training_args.bin', weights_only=False)\n"
        "assert type(args.lr_scheduler_type) is str, args.lr_scheduler_type\n"
        "assert args.to_dict()['lr_scheduler_type'] == 'emopulse'\n"
    )
    run_python("read.py")


def test_pickled_arguments_train_again(make_trainer, read_signals):
    trainer = build("wrap", make_trainer, max_steps=2)
    trainer.args = pickle.loads(pickle.dumps(trainer.args))
    assert type(trainer.args.lr_scheduler_type) is str
    trainer.train()
    assert len(read_signals(trainer.args.output_dir)) == 2


def test_moved_private_names_fail_loudly(monkeypatch):
    monkeypatch.delattr(optimization, "TYPE_TO_SCHEDULER_FUNCTION")
    with pytest.raises(RegistrationError, match=r"EmoPulse\(optimizer\)"):
        registration.add_schedule()


@pytest.mark.parametrize("kwargs", [{"branch": "quieter", "stopcoef": 2.0}, '{"branch": "quieter", "stopcoef": 2.0}'])
def test_options_arrive(kwargs, make_trainer):
    trainer = build("wrap", make_trainer, lr_scheduler_kwargs=kwargs, warmup_steps=3, max_steps=4)
    trainer.train()
    pulse = find_pulse(trainer.lr_scheduler)
    assert (pulse._mechanism.branch, pulse._mechanism.stopcoef, pulse.warmup_steps) == ("quieter", 2.0, 3)
    logs = steps_of(trainer)
    assert [log["emo/lr"] / log["emo/pulse"] for log in logs] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert pulse.base_lrs == [1e-3, 1e-3]  # with weight decay and without


@pytest.mark.parametrize("kwargs", [{"branch": "loud"}, {"num_cycles": 2}])
def test_bad_options(kwargs, make_trainer):
    with pytest.raises((OptionError, TypeError), match=r"rounding, quieter, long|num_cycles"):
        build("wrap", make_trainer, lr_scheduler_kwargs=kwargs, max_steps=1).train()


@every_way
def test_emo_optimizer_under_emopulse_is_an_error(way, make_trainer):
    with pytest.raises(OptionError, match=r"(optim='emosens'|emosens-3\.9).*lr_scheduler_type='constant'"):
        build(way, make_trainer, optim="emosens", learning_rate=1.0, max_steps=1).train()


# -- the loss ---------------------------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd"])
def test_fed_loss_is_the_objective(way, optim, make_trainer, read_signals):
    options = {"optim": optim, "gradient_accumulation_steps": 4, "num_train_epochs": 2}  # groups of 4, 4, 2
    trainer = build(way, make_trainer, **options)
    measured = Meter(trainer)
    trainer.train()
    assert len(set(measured.truth)) == 6
    assert measured.fed == measured.truth
    rows, logs = read_signals(trainer.args.output_dir), steps_of(trainer)
    assert [row["emo/loss"] for row in rows] == measured.truth
    assert [row["emo/lr"] for row in rows] == [log["learning_rate"] for log in logs]
    assert [log["emo/lr"] for log in logs] == [log["learning_rate"] for log in logs]
    assert len({row["emo/lr"] for row in rows}) == 6
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert sum(isinstance(each, EmotionCallback) for each in trainer.callback_handler.callbacks) == 1


def test_combined_ways_count_a_loss_once_and_it_can_train_again(make_trainer):
    trainer = make_trainer(EmoTrainer, {"callbacks": [EmotionCallback()]}, **EMOPULSE, num_train_epochs=1)
    attach(trainer)
    measured, backward = Meter(trainer), Accelerator.backward
    for _ in range(2):  # the second time with a new scheduler over the same optimizer
        trainer.train()
        assert Accelerator.backward is backward
        assert "backward" not in vars(trainer.accelerator)
        assert LossFeed.installed_on(find_pulse(trainer.lr_scheduler)) is None
    assert measured.fed == measured.truth
    assert len(measured.truth) == 20
    assert [log["learning_rate"] for log in steps_of(trainer)] == [log["emo/lr"] for log in steps_of(trainer)]


def test_interrupted_training_leaves_nothing_in_the_next(make_trainer):
    trainer = build("wrap", make_trainer, gradient_accumulation_steps=4, max_steps=3)
    measured, compute_loss, calls = Meter(trainer), trainer.compute_loss, []

    def interrupt(*args, **kwargs):
        calls.append(None)
        if len(calls) == 7:  # within the second step
            raise KeyboardInterrupt
        return compute_loss(*args, **kwargs)

    trainer.compute_loss = interrupt
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.model.zero_grad()
    trainer.train()
    assert measured.fed == measured.truth
    assert len(measured.fed) == 1 + 3


def test_scheduler_passed_to_a_plain_trainer_is_fed(make_trainer, read_signals):
    trainer = make_trainer(optim="adamw_torch", max_steps=2)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=1e-3)
    trainer.lr_scheduler = EmoPulse(trainer.optimizer)
    measured = Meter(trainer)
    trainer.train()
    assert measured.fed == measured.truth
    assert len(read_signals(trainer.args.output_dir)) == 2


def test_prepared_by_accelerate_it_counts_optimizer_steps():
    GradientState._reset_state()  # what Trainers of other tests have set is shared by all Accelerators
    accelerator, model = Accelerator(cpu=True, gradient_accumulation_steps=2), torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, EmoPulse(optimizer, warmup_steps=4))
    pulse = find_listener(optimizer, scheduler)
    assert pulse is scheduler.scheduler
    LossFeed.install(accelerator, pulse)
    losses, rates = [], []
    for value in (1.0, 3.0, 2.0, 2.0, 2.0, 2.0):
        with accelerator.accumulate(model):
            accelerator.backward(model(torch.ones(1)).sum() * 0 + value)
            optimizer.step()
            for _ in range(3):  # as accelerate does in a training of three processes
                scheduler.step()
            optimizer.zero_grad()
        losses.append(pulse.signals() and pulse.signals().loss)
        rates.append(optimizer.param_groups[0]["lr"] / pulse.signals().pulse if pulse.signals() else 0.25)
    assert losses == [None, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert rates == pytest.approx([1 / 4, 1 / 4, 1 / 4, 2 / 4, 2 / 4, 3 / 4])
    assert pulse.last_epoch == 9


def test_trainer_without_a_feed_is_an_error(make_trainer):
    registration.remove_patches()
    with pytest.raises(MissingLossError, match=r"EmoTrainer"):
        make_trainer(**EMOPULSE, max_steps=2).train()


def test_config_names_the_pulse(make_trainer, monkeypatch):
    configs = []

    class Recorder(hf_callback.Recorder):
        def __init__(self, *args, **kwargs):
            configs.append(kwargs["config"])
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(hf_callback, "Recorder", Recorder)
    build("wrap", make_trainer, max_steps=1).train()
    (config,) = configs
    expected = {"emo_optimizer": "emopulse", "emo_version": "3.9", "seed": 42, "emo_drives": "AdamW", "emo_lr": 1e-3}
    assert expected.items() <= config.items()


# -- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["wrap", "callback"])
def test_resume_is_bit_exact(way, make_trainer, read_signals, tmp_path):
    def make(name, *callbacks):
        parts = {"callbacks": list(callbacks), "train_dataset": make_data(24)}  # step 10 lies within an epoch of 12
        saving = {"output_dir": str(tmp_path / name), "max_steps": 20, "save_strategy": "steps", "save_steps": 10}
        return build(way, make_trainer, parts, warmup_steps=12, **saving)

    straight = make("straight")
    straight.train()
    make("halves", StopAt(13)).train()  # three steps past the checkpoint are thrown away
    resumed = make("halves")
    resumed.train(resume_from_checkpoint=str(tmp_path / "halves" / "checkpoint-10"))

    assert all(torch.equal(one, other) for one, other in zip(weights(resumed), weights(straight), strict=True))
    ends = [Path(tmp_path) / name / "checkpoint-20" / "scheduler.pt" for name in ("straight", "halves")]
    states = [torch.load(end, weights_only=True) for end in ends]
    assert states[0] == states[1]
    assert states[0]["scheduler"] == "emopulse-3.9"
    rows, halves = (read_signals(tmp_path / name) for name in ("straight", "halves"))
    assert [row["step"] for row in halves] == list(range(1, 21))
    assert [(row["emo/lr"], row["emo/loss"]) for row in halves] == [(row["emo/lr"], row["emo/loss"]) for row in rows]
    assert resumed.state.log_history[:-1] == straight.state.log_history[:-1]  # the last line has the run time


def test_resume_under_another_schedule_is_an_error(make_trainer, tmp_path):
    saving = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    make_trainer(optim="adamw_torch", lr_scheduler_type="linear", **saving).train()
    trainer = build("wrap", make_trainer, **saving)
    with pytest.raises(emo_hf.EmoError, match="of another scheduler"):
        trainer.train(resume_from_checkpoint=str(Path(trainer.args.output_dir) / "checkpoint-2"))
