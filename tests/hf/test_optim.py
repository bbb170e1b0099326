"""``optim="emosens"`` is accepted wherever transformers takes a name, and its options arrive."""

import copy
import dataclasses
import json
import logging
import pickle
from dataclasses import dataclass, field

import pytest
import torch
from transformers import HfArgumentParser, Trainer, TrainingArguments, training_args
from transformers.training_args import OptimizerNames

import emo_hf.hf
from emo_hf import registry
from emo_hf.errors import OptionError, RegistrationError, UnknownOptimizerError
from emo_hf.hf import optim, registration

NAMES = [*registry.families(), *(spec.key for spec in registry.specs())]


def build(trainer: Trainer) -> torch.optim.Optimizer:
    return trainer.create_optimizer()


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_name_builds_its_spec(name, make_trainer):
    trainer = make_trainer(optim=name)
    optimizer = build(trainer)
    assert optimizer.spec is registry.find(name)
    assert type(optimizer) is registry.optimizer_class(name)
    rate = optimizer.spec.trainer_lr or optimizer.spec.options["lr"]
    assert optimizer.options == optimizer.spec.options | {"lr": rate}
    assert all(group["weight_decay"] == 0.0 for group in optimizer.param_groups if "weight_decay" in group)


def test_registering_again_changes_nothing():
    members, handler = list(OptimizerNames), Trainer.get_optimizer_cls_and_kwargs
    emo_hf.hf.register()
    assert list(OptimizerNames) == members
    assert Trainer.get_optimizer_cls_and_kwargs is handler
    assert len(set(OptimizerNames)) == len(members)
    assert isinstance(OptimizerNames("emosens"), OptimizerNames)


def test_moved_private_names_fail_loudly(monkeypatch):
    monkeypatch.setattr(training_args, "OptimizerNames", type("OptimizerNames", (str,), {}))
    with pytest.raises(RegistrationError, match=r"Trainer\(optimizer_cls_and_kwargs="):
        registration.add_optim_names()


def test_environment_leaves_the_names_out(monkeypatch):
    monkeypatch.setattr(registration, "add_members", lambda *_: pytest.fail("registered"))
    monkeypatch.setenv("EMO_HF_REGISTER", "0")
    emo_hf.hf.register()


def test_alternative_that_the_registration_error_names_works(make_trainer, read_signals):
    pair = (registry.optimizer_class("emosens"), {"stopcoef": 0.1})
    trainer = make_trainer(optim="adamw_torch", trainer={"optimizer_cls_and_kwargs": pair}, max_steps=2)
    trainer.train()
    assert len(read_signals(trainer.args.output_dir)) == 2


# -- survival of the string ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["emosens", "emosens-3.9"])
def test_string_survives(name, make_args, tmp_path):
    args = make_args(optim=name)
    assert args.optim == name
    assert args.optim is OptimizerNames(name)
    assert args.to_dict()["optim"] == name
    assert type(args.to_dict()["optim"]) is str
    assert json.loads(args.to_json_string())["optim"] == name
    assert name in repr(args)
    assert str(args.to_sanitized_dict()["optim"]) in (name, f"OptimizerNames.{name}")
    for copied in (
        dataclasses.replace(args, seed=7),
        copy.deepcopy(args),
        pickle.loads(pickle.dumps(args)),
        TrainingArguments(**{"output_dir": str(tmp_path), "optim": args.to_dict()["optim"]}),
        TrainingArguments(str(tmp_path)).set_optimizer(name=name),
    ):
        assert copied.optim == name
        assert optim.class_and_kwargs(copied)[0] is registry.optimizer_class(name)


@pytest.mark.parametrize("how", ["command line", "dict", "json", "yaml"])
def test_argument_parser_accepts_the_names(how, tmp_path):
    parser, values = HfArgumentParser(TrainingArguments), {"output_dir": str(tmp_path), "optim": "emosens-3.9"}
    if how == "command line":
        (args,) = parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path), "--optim", "emosens-3.9"])
    elif how == "dict":
        (args,) = parser.parse_dict(values)
    else:
        path = tmp_path / f"args.{how}"
        path.write_text(json.dumps(values))  # JSON is YAML
        (args,) = parser.parse_json_file(str(path)) if how == "json" else parser.parse_yaml_file(str(path))
    assert args.optim is OptimizerNames("emosens-3.9")


def test_pickles_load_where_emo_hf_is_not_installed(make_trainer, tmp_path, run_python):
    trainer = make_trainer(optim="emosens", optim_args="stopcoef=0.1")
    trainer.save_model(str(tmp_path / "model"))
    (tmp_path / "args.pickle").write_bytes(pickle.dumps(trainer.args))
    (tmp_path / "read.py").write_text(
        "import sys\n"
        "sys.modules['emo_hf'] = None\n"  # import emo_hf raises ImportError
        "import json, pickle, torch\n"
        "saved = torch.load('model/training_args.bin', weights_only=False)\n"
        "for args in (pickle.load(open('args.pickle', 'rb')), saved):\n"
        "    assert type(args.optim) is str and args.optim_args == 'stopcoef=0.1', args.optim\n"
        "    assert json.loads(args.to_json_string())['optim'] == args.to_dict()['optim'] == 'emosens'\n"
    )
    run_python("read.py")


def test_pickled_arguments_train_again(make_trainer, read_signals):
    trainer = make_trainer(max_steps=1)
    trainer.args = pickle.loads(pickle.dumps(trainer.args))
    assert type(trainer.args.optim) is str
    trainer.train()
    assert len(read_signals(trainer.args.output_dir)) == 1


# -- optim_args ------------------------------------------------------------------------------------------------------


def test_optim_args_arrive_with_the_types_of_the_row(make_args):
    text = "stopcoef=0.1, use_shadow=True, branch=quieter, beta1=0.8, lr=2, on_nonfinite_loss=skip"
    _, kwargs = optim.class_and_kwargs(make_args(optim_args=text))
    assert kwargs == {
        "version": "3.9",
        "stopcoef": 0.1,
        "use_shadow": True,
        "branch": "quieter",
        "betas": (0.8, 0.995),
        "lr": 2.0,
        "on_nonfinite_loss": "skip",
    }
    assert type(kwargs["lr"]) is float
    assert type(kwargs["use_shadow"]) is bool


def test_optim_args_reach_the_optimizer(make_trainer):
    optimizer = build(make_trainer(optim_args="stopcoef=0.1,use_shadow=true,version=3.8"))
    assert optimizer.spec.key == "emosens-3.8"
    assert optimizer.options["stopcoef"] == 0.1
    assert optimizer.options["use_shadow"] is True


def test_every_pair_of_a_row_is_spelled_by_its_parts(make_args):
    _, kwargs = optim.class_and_kwargs(make_args(optim="emoclan", optim_args="lynx_beta2=0.5"))
    assert kwargs["lynx_betas"] == (0.9, 0.5)
    assert "betas" not in kwargs


def test_options_that_are_changed_later_are_checked_when_the_optimizer_is_built(make_args):
    args = make_args()
    args.optim_args = "stopcof=0.1"
    with pytest.raises(OptionError, match="no option 'stopcof'"):
        Trainer.get_optimizer_cls_and_kwargs(args)


def test_unknown_version(make_args):
    with pytest.raises(UnknownOptimizerError, match=r"3\.9"):
        optim.class_and_kwargs(make_args(optim_args="version=4.2"))


def test_pinned_name_against_another_version(make_args):
    with pytest.raises(OptionError, match="contradict"):
        optim.class_and_kwargs(make_args(optim="emosens-3.9", optim_args="version=3.8"))
    assert optim.class_and_kwargs(make_args(optim="emosens-3.9", optim_args="version=3.9"))[1]["version"] == "3.9"


# -- Trainer's defaults ----------------------------------------------------------------------------------------------


@dataclass
class FineTuning(TrainingArguments):
    """A class with defaults of its own, as TRL's configurations have."""

    learning_rate: float = field(default=2e-5)
    adam_beta2: float = field(default=0.95)


def test_untouched_defaults_are_not_the_users(make_args):
    _, kwargs = optim.class_and_kwargs(make_args())
    assert kwargs == {"version": "3.9", "lr": 1.0}


def test_set_fields_win_over_the_row(make_args):
    args = make_args(learning_rate=0.5, adam_beta2=0.9, adam_epsilon=1e-6)
    _, kwargs = optim.class_and_kwargs(args)
    assert kwargs == {"version": "3.9", "lr": 0.5, "betas": (0.9, 0.9), "eps": 1e-6}


def test_optim_args_win_over_fields(make_args):
    _, kwargs = optim.class_and_kwargs(make_args(learning_rate=0.5, adam_beta2=0.9, optim_args="lr=0.25,beta2=0.8"))
    assert kwargs == {"version": "3.9", "lr": 0.25, "betas": (0.9, 0.8)}


def test_defaults_are_those_of_the_class_of_the_arguments(tmp_path):
    untouched = FineTuning(output_dir=str(tmp_path), optim="emosens", use_cpu=True)
    assert optim.class_and_kwargs(untouched)[1] == {"version": "3.9", "lr": 1.0}
    # 5e-5 is TrainingArguments' default, not this class's: it was set.
    chosen = FineTuning(output_dir=str(tmp_path), optim="emosens", use_cpu=True, learning_rate=5e-5, adam_beta2=0.999)
    assert optim.class_and_kwargs(chosen)[1] == {"version": "3.9", "lr": 5e-5, "betas": (0.9, 0.999)}


@pytest.mark.parametrize(("name", "rate"), [("emonavi", 6e-5), ("emofact", 1e-4), ("emolynx-3.1", 1e-3)])
def test_a_learning_rate_that_the_author_advises_wins_over_the_constructors(make_args, name, rate):
    assert optim.class_and_kwargs(make_args(optim=name))[1]["lr"] == rate


class Generated(TrainingArguments):
    def __init__(self, learning_rate=1e-4, adam_beta2=0.999, **options):
        super().__init__(learning_rate=learning_rate, adam_beta2=adam_beta2, **options)


def test_a_default_of_a_generated_init_is_no_choice(tmp_path):
    untouched = Generated(output_dir=str(tmp_path), optim="emosens", use_cpu=True)
    assert optim.class_and_kwargs(untouched)[1] == {"version": "3.9", "lr": 1.0}
    chosen = Generated(output_dir=str(tmp_path), optim="emosens", use_cpu=True, learning_rate=5e-5)
    assert optim.class_and_kwargs(chosen)[1] == {"version": "3.9", "lr": 5e-5}


def test_learning_rate_of_adamw_is_warned_about(make_args, caplog):
    for options in (
        {"learning_rate": 2e-5},
        {"learning_rate": 0.01},  # recommended for full fine-tuning
        {"optim": "emonavi", "learning_rate": 2e-5},  # not a multiplier
    ):
        kind, kwargs = optim.class_and_kwargs(make_args(**options))
        kind([torch.nn.Parameter(torch.ones(()))], **kwargs)
    (line,) = caplog.messages
    assert "a multiplier for emosens-3.9: 2e-05 means a step of about 2e-09" in line


def test_linear_schedule_is_kept_and_said_once(make_trainer, caplog):
    optim._say_linear.cache_clear()
    trainers = [make_trainer(lr_scheduler_type="linear", max_steps=4) for _ in range(2)]
    for trainer in trainers:
        trainer.train()
    assert caplog.text.count("linear schedule") == 1
    logs = [log for log in trainers[0].state.log_history if "loss" in log]
    assert [log["emo/lr"] / log["emo/pulse"] for log in logs] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_constant_schedule_is_not_spoken_of(make_args, caplog):
    optim._say_linear.cache_clear()
    with caplog.at_level(logging.WARNING):
        optim.class_and_kwargs(make_args())
    assert caplog.text == ""


def test_field_without_a_counterpart_is_warned_about(make_args, caplog):
    _, kwargs = optim.class_and_kwargs(make_args(optim="emovoid", adam_beta1=0.5))
    assert kwargs == {"version": "3.9", "lr": 1.0}
    assert "adam_beta1=0.5 has no effect: emovoid-3.9" in caplog.text


def test_the_rate_is_among_the_arguments_for_groups_of_other_rates(make_args):
    _, kwargs = optim.class_and_kwargs(make_args())
    assert kwargs["lr"] == registry.find("emosens").options["lr"]


def test_arguments_load_with_weights_only_as_those_of_other_optimizers(make_args, tmp_path):
    # `str` is what a name is saved as; the import of emo_hf has allowed it
    assert str in torch.serialization.get_safe_globals()
    torch.save(OptimizerNames("emosens"), tmp_path / "name.bin")
    assert torch.load(tmp_path / "name.bin", weights_only=True) == "emosens"


def test_a_trainer_that_keeps_no_logs_trains_and_is_recorded(make_trainer, read_signals):
    class Silent(Trainer):
        def log(self, logs, *args, **kwargs):
            self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    trainer = make_trainer(Silent, max_steps=2, logging_steps=1)
    trainer.train()
    assert len(read_signals(trainer.args.output_dir)) == 2
