"""`EmoTrainingArguments`: every parser fills it, every copy keeps it, and what it holds reaches the optimizer."""

import copy
import dataclasses
import json
import pickle
from dataclasses import dataclass, field
from typing import get_args, get_type_hints

import pytest
import torch
import yaml
from transformers import HfArgumentParser, Trainer, TrainingArguments

from emo_hf import EmoArgumentsMixin, EmotionCallback, EmoTrainingArguments, registry
from emo_hf.errors import OptionError, UnknownOptimizerError
from emo_hf.hf import optim
from emo_hf.hf import trainer as hf_trainer
from emo_hf.hf.arguments import callback_options
from emo_hf.hf.optim import EMO_FIELDS, class_and_kwargs
from emo_hf.spec import CHOICES
from tests import ROOT
from tests.hf.tiny_gpt2 import make_data, make_model

OPTIONS = {
    "optim": "emocats",
    "emo_version": "3.8",
    "emo_use_shadow": True,
    "emo_stopcoef": 0.25,
    "emo_branch": "quieter",
    "emo_on_nonfinite_loss": "skip",
    "emo_stop": "save",
    "emo_stop_patience": 3,
}


@pytest.fixture
def make_emo_args(tmp_path):
    def make(kind=EmoTrainingArguments, **options):
        return kind(output_dir=str(tmp_path), use_cpu=True, report_to=[], **options)

    return make


def assert_holds(args, expected):
    for name, value in expected.items():
        assert getattr(args, name) == value
        assert name == "optim" or type(getattr(args, name)) is type(value)


# -- the fields ------------------------------------------------------------------------------------------------------


def test_defaults_that_differ_are_listed(make_emo_args):
    parent = {each.name: each.default for each in dataclasses.fields(TrainingArguments)}
    differing = {
        each.name: (each.default, parent[each.name])
        for each in dataclasses.fields(EmoTrainingArguments)
        if each.name in parent and each.default != parent[each.name]
    }
    adamw = parent["optim"]  # transformers takes the fused one from torch 2.8 on
    assert adamw in ("adamw_torch", "adamw_torch_fused")
    assert differing == {"optim": ("emosens", adamw), "lr_scheduler_type": ("constant", "linear")}
    for name, (ours, theirs) in differing.items():
        line = next(line for line in EmoArgumentsMixin.__doc__.splitlines() if line.strip().startswith(f"{name} "))
        assert f'"{ours}" instead of ' in line
        assert f'"{theirs}"' in line


def test_every_option_is_typed_and_documented():
    table, types = (ROOT / "docs" / "arguments.md").read_text(encoding="utf-8"), get_type_hints(EmoTrainingArguments)
    added = {each.name: each for each in dataclasses.fields(EmoTrainingArguments) if each.name.startswith("emo_")}
    assert {*added} == {*EMO_FIELDS, "emo_stop", "emo_stop_patience"}
    for name, each in added.items():
        assert f"{name}: " in EmoArgumentsMixin.__doc__
        assert f"\n| `{name}` | " in table
        assert each.metadata["help"].endswith(".")
        assert "%" not in each.metadata["help"]  # argparse would format it
    for name, choices in CHOICES.items():
        if f"emo_{name}" in added:
            (literal, none) = get_args(types[f"emo_{name}"])
            assert (get_args(literal), none) == (choices, type(None))


def test_untouched_they_build_the_newest_emosens(make_emo_args):
    args = make_emo_args()
    assert class_and_kwargs(args) == (registry.optimizer_class("emosens"), {"version": "3.9", "lr": 1.0})
    assert callback_options(args) == {}


def test_options_reach_the_optimizer(make_emo_args):
    options = {name: value for name, value in OPTIONS.items() if "stop_" not in name and name != "emo_stop"}
    args = make_emo_args(**options, optim_args="fftmode=true", learning_rate=0.5)
    trainer = Trainer(make_model(), args, train_dataset=make_data())
    optimizer = trainer.create_optimizer()
    assert optimizer.spec.key == "emocats-3.8"
    chosen = {"use_shadow": True, "stopcoef": 0.25, "branch": "quieter", "on_nonfinite_loss": "skip", "lr": 0.5}
    assert optimizer.options == {**optimizer.spec.options, **chosen, "fftmode": True}


def test_false_is_given_and_none_is_not(make_emo_args):
    assert class_and_kwargs(make_emo_args(emo_use_shadow=False))[1]["use_shadow"] is False
    assert "use_shadow" not in class_and_kwargs(make_emo_args())[1]


@pytest.mark.parametrize(("stop", "expected"), [("log", {}), ("stop", {"on_ready": "stop", "patience": 4})])
def test_stop_options_reach_the_callback(stop, expected, make_emo_args, monkeypatch):
    given = []

    class Fake(EmotionCallback):
        def __init__(self, **options):
            given.append(options)
            super().__init__()

    monkeypatch.setattr(hf_trainer, "EmotionCallback", Fake)
    patience = 4 if expected else 1
    args = make_emo_args(emo_stop=stop, emo_stop_patience=patience)
    for way in (Trainer, hf_trainer.EmoTrainer):
        way(make_model(), args, train_dataset=make_data()).create_optimizer()
    assert given == [expected] * 2


def test_plain_arguments_hold_no_options_of_the_callback(make_args):
    assert callback_options(make_args()) == {}


# -- errors, before there is a model ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"emo_stopcoef": 0.1, "optim_args": "stopcoef=0.1"}, r"emo_stopcoef=0.1 and optim_args='stopcoef=0.1' set"),
        ({"emo_version": "3.8", "optim_args": "version=3.8"}, r"emo_version='3.8' and optim_args"),
        (
            {"optim": "emonavi-3.1", "emo_stopcoef": 0.1, "emo_branch": "long"},
            r"emo_stopcoef=0.1, emo_branch='long': emonavi-3.1 has no such option. Its options: beta1, ",
        ),
        ({"emo_version": "2.0", "emo_branch": "long"}, r"emo_branch='long': emosens-2.0 has no such option"),
        ({"emo_branch": "loud"}, r"emosens-3.9: branch: got 'loud', expected one of rounding, quieter, long"),
        ({"emo_stopcoef": "0.1"}, r"stopcoef: got '0.1', expected a number >= 0"),
        ({"emo_on_nonfinite_loss": "ignore"}, r"got 'ignore', expected one of auto, raise, skip"),
        ({"emo_use_shadow": "yes"}, r"use_shadow: got 'yes', expected true or false"),
        *[({"optim_args": text}, f"got '{text}', expected name=value") for text in ("foo", "stopcoef=", "=1", "a:1")],
        (
            {"optim_args": "stopcof=1"},
            r"3.9 has no option 'stopcof'. Did you mean 'stopcoef'.*beta1, beta2, branch, compensation, eps, ",
        ),
        ({"optim_args": "learning_rate=1"}, r"no option 'learning_rate'. Did you mean 'lr'\?"),
        ({"optim_args": "betas=0.9"}, r"no option 'betas'. Did you mean 'beta"),
        ({"optim_args": "use_shadow=yes"}, r"use_shadow=yes, expected true or false"),
        ({"optim_args": "stopcoef=much"}, r"stopcoef=much, expected a value like 0.04"),
        ({"optim_args": "weight_decay=0.1"}, r"use TrainingArguments.weight_decay"),
        ({"optim": "emosens-3.9", "emo_version": "3.8"}, r"optim='emosens-3.9' and version 3.8 contradict"),
        ({"optim": "adamw_torch", "emo_branch": "long"}, r"emo_branch='long': no effect with optim='adamw_torch'"),
        ({"learning_rate": "1e-1"}, r"lr: got '1e-1', expected a multiplier > 0"),
        ({"learning_rate": -1.0}, r"lr: got -1.0"),
        ({"learning_rate": 0.0}, r"lr: got 0.0"),
        ({"adam_beta1": 1.5}, r"betas: got \(1.5, 0.995\), expected two in \[0, 1\)"),
        ({"lr_scheduler_type": "emopulse"}, r"lr_scheduler_type='emopulse', but it sets its own step size"),
        ({"emo_stop": "halt"}, r"emo_stop: got 'halt', expected one of log, save, stop"),
        ({"emo_stop_patience": 0}, r"emo_stop_patience: got 0, expected a number of steps >= 1"),
        ({"emo_stop_patience": 1.5}, r"emo_stop_patience: got 1.5"),
    ],
)
def test_errors_come_with_the_arguments(options, message, make_emo_args):
    with pytest.raises(OptionError, match=message):
        make_emo_args(**options)
    if not any(name.startswith("emo_") for name in options):
        with pytest.raises(OptionError, match=message):
            make_emo_args(TrainingArguments, **{"optim": "emosens", **options})


def test_unknown_version(make_emo_args):
    with pytest.raises(UnknownOptimizerError, match=r"emosens has no version '4\.2'"):
        make_emo_args(emo_version="4.2")


def test_option_that_a_later_optimizer_lacks_is_an_error_when_it_is_built(make_emo_args):
    args = make_emo_args(emo_branch="long")
    args.optim = "emosens-2.0"  # as a hyperparameter search does
    with pytest.raises(OptionError, match=r"emo_branch='long': emosens-2.0 has no such option"):
        Trainer(make_model(), args, train_dataset=make_data()).create_optimizer()


def test_other_optimizers_and_emopulse_need_no_options(make_emo_args):
    args = make_emo_args(optim="adamw_torch", lr_scheduler_type="emopulse", emo_stop="stop")
    assert callback_options(args) == {"on_ready": "stop"}


# -- parsers ---------------------------------------------------------------------------------------------------------


def command_line(values):
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


@pytest.mark.parametrize("how", ["command line", "dict", "json", "yaml"])
def test_argument_parser_fills_every_option(how, tmp_path):
    parser, values = HfArgumentParser(EmoTrainingArguments), {"output_dir": str(tmp_path), **OPTIONS}
    if how == "command line":
        (args,) = parser.parse_args_into_dataclasses(command_line(values))
    elif how == "dict":
        (args,) = parser.parse_dict(values)
    else:
        path = tmp_path / f"args.{how}"
        path.write_text(json.dumps(values) if how == "json" else yaml.safe_dump(values))
        (args,) = parser.parse_json_file(str(path)) if how == "json" else parser.parse_yaml_file(str(path))
    assert_holds(args, OPTIONS)


def test_yaml_number_is_a_version(tmp_path):
    (tmp_path / "args.yaml").write_text(f"output_dir: {tmp_path}\nemo_version: 3.7\n")
    (args,) = HfArgumentParser(EmoTrainingArguments).parse_yaml_file(str(tmp_path / "args.yaml"))
    assert args.emo_version == "3.7"
    assert class_and_kwargs(args)[1]["version"] == "3.7"


def test_command_line_rejects_what_is_not_a_choice(tmp_path, capsys):
    parser = HfArgumentParser(EmoTrainingArguments)
    with pytest.raises(SystemExit):
        parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path), "--emo_branch", "loud"])
    assert "argument --emo_branch/--emo-branch: invalid choice: 'loud'" in capsys.readouterr().err


def test_help_shows_every_option(capsys):
    with pytest.raises(SystemExit):
        HfArgumentParser(EmoTrainingArguments).parse_args(["--help"])
    shown = capsys.readouterr().out
    assert all(f"--{name}" in shown for name in OPTIONS)


def test_trl_parser_merges_yaml_and_command_line(tmp_path):
    trl = pytest.importorskip("trl")
    values = {**OPTIONS, "output_dir": str(tmp_path), "emo_version": 3.8}  # the number that YAML makes of 3.8
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    parser = trl.TrlParser((EmoTrainingArguments,))
    line = ["--config", str(tmp_path / "config.yaml"), "--emo_stopcoef", "0.5", "--emo_use_shadow", "false"]
    (args,) = parser.parse_args_and_config(line)
    assert_holds(args, {**OPTIONS, "emo_stopcoef": 0.5, "emo_use_shadow": False})


# -- copies ----------------------------------------------------------------------------------------------------------


def through_file(args, folder):
    torch.save(args, folder / "training_args.bin")
    return torch.load(folder / "training_args.bin", weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [
        lambda args, _: dataclasses.replace(args, seed=7),
        lambda args, _: copy.deepcopy(args),
        lambda args, _: pickle.loads(pickle.dumps(args)),
        through_file,
        lambda args, folder: EmoTrainingArguments(str(folder), **{name: args.to_dict()[name] for name in OPTIONS}),
        lambda args, folder: EmoTrainingArguments(
            str(folder), **{name: json.loads(args.to_json_string())[name] for name in OPTIONS}
        ),
    ],
    ids=["replace", "deepcopy", "pickle", "training_args.bin", "to_dict", "to_json_string"],
)
def test_round_trip(copied, make_emo_args, tmp_path):
    args = make_emo_args(**OPTIONS)
    again = copied(args, tmp_path)
    assert_holds(again, OPTIONS)
    assert class_and_kwargs(again) == class_and_kwargs(args)
    assert {name: again.to_dict()[name] for name in OPTIONS} == OPTIONS


def test_tokens_stay_out_of_the_repr(make_emo_args):
    args = make_emo_args(hub_token="secret", emo_stopcoef=0.125)
    assert "secret" not in repr(args) + str(args)
    assert "emo_stopcoef=0.125" in repr(args)


# -- set_optimizer and the defaults of the class ---------------------------------------------------------------------


@dataclass
class FineTuning(TrainingArguments):
    """Other defaults than TrainingArguments, as TRL's configurations have."""

    learning_rate: float = field(default=2e-5)
    adam_beta2: float = field(default=0.95)


@dataclass
class EmoFineTuning(EmoArgumentsMixin, FineTuning):
    """The same with the options of the emotion."""


every_class = pytest.mark.parametrize("kind", [TrainingArguments, EmoTrainingArguments, EmoFineTuning])


@every_class
@pytest.mark.parametrize("name", ["emosens", "emonavi"])
def test_set_optimizer_without_a_learning_rate_leaves_it_to_the_row(name, kind, make_emo_args):
    args = make_emo_args(kind, learning_rate=0.5, adam_beta2=0.5, weight_decay=0.1).set_optimizer(name=name)
    spec = registry.find(name)
    assert class_and_kwargs(args) == (
        registry.optimizer_class(name),
        {"version": spec.version, "lr": spec.trainer_lr or spec.options["lr"]},
    )
    assert args.weight_decay == 0


@every_class
def test_what_set_optimizer_is_given_is_used(kind, make_emo_args):
    args = make_emo_args(kind).set_optimizer("emosens", 0.25, 0.1, 0.8, 0.9, 1e-6, "stopcoef=0.5")
    chosen = {"version": "3.9", "lr": 0.25, "betas": (0.8, 0.9), "eps": 1e-6, "stopcoef": 0.5}
    assert class_and_kwargs(args)[1] == chosen
    assert args.weight_decay == 0.1


def test_set_optimizer_keeps_the_emo_options_and_checks_them(make_emo_args):
    args = make_emo_args(emo_branch="long").set_optimizer(learning_rate=0.1)
    assert class_and_kwargs(args)[1] == {"version": "3.9", "branch": "long", "lr": 0.1}
    with pytest.raises(OptionError, match="emo_branch='long'"):
        args.set_optimizer("emosens-2.0")


def test_set_optimizer_of_a_plain_class_with_other_defaults_is_warned_about(make_emo_args, caplog):
    """Its 5e-5 cannot be told from a chosen one there."""
    kind, kwargs = class_and_kwargs(make_emo_args(FineTuning).set_optimizer("emosens"))
    assert kwargs["lr"] == 5e-5
    kind([torch.nn.Parameter(torch.ones(()))], **kwargs)
    assert "leave learning_rate unset, or give it to args.set_optimizer()" in caplog.text


def test_linear_is_spoken_of_only_where_it_may_be_a_default(make_emo_args, caplog):
    optim._say_linear.cache_clear()
    class_and_kwargs(make_emo_args(lr_scheduler_type="linear"))  # constant by default: linear was chosen
    assert caplog.text == ""
    class_and_kwargs(make_emo_args(TrainingArguments, optim="emosens"))
    assert "linear schedule" in caplog.text


# -- in other people's arguments -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")  # TRL's own default
def test_mixin_in_trl_arguments(tmp_path):
    trl = pytest.importorskip("trl")

    @dataclass(repr=False)
    class EmoSFTConfig(EmoArgumentsMixin, trl.SFTConfig):
        pass

    values = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, **OPTIONS}
    (args,) = HfArgumentParser(EmoSFTConfig).parse_args_into_dataclasses(command_line({**values, "max_length": 9}))
    assert_holds(args, {**OPTIONS, "max_length": 9, "learning_rate": trl.SFTConfig.learning_rate})
    assert args.lr_scheduler_type == "constant"
    assert class_and_kwargs(args)[1]["lr"] == 1.0  # SFTConfig's 2e-5 stands for the spec's own
    assert class_and_kwargs(args.set_optimizer("emosens"))[1]["lr"] == 1.0
    assert_holds(copy.deepcopy(args), {"emo_stopcoef": 0.25})


def test_training_through_the_arguments(make_emo_args, read_signals):
    args = make_emo_args(max_steps=2, logging_steps=1, save_strategy="no", disable_tqdm=True, emo_version="3.8")
    trainer = Trainer(make_model(), args, train_dataset=make_data())
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["learning_rate"] for log in logs] == [row["emo/lr"] for row in read_signals(args.output_dir)]
    assert {group["optimizer"] for group in trainer.optimizer.param_groups} == {"emosens-3.8"}
