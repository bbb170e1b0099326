"""What emo_hf changes in transformers, accelerate and torch: these few things, and `unregister` takes them back."""

import enum
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from accelerate import Accelerator
from packaging.version import Version
from transformers import Trainer

import emo_hf
from emo_hf import registry
from emo_hf.hf import names, registration
from emo_hf.hf.feed import await_accelerator, stop_feeding

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SENTENCES = Path(emo_hf.__file__).parent / "lab" / "sources" / "data" / "sentences.tsv"
OLD = Version(transformers.__version__) < Version("5.2")  # no table of handlers: the getter is wrapped


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """One process for all of it: importing cannot be undone in this one."""
    result = subprocess.run(
        [sys.executable, str(HERE / "patches_script.py"), str(SENTENCES)],
        cwd=tmp_path_factory.mktemp("patches"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_only_these_attributes_of_classes_change(facts):
    getter = ["Trainer.get_optimizer_cls_and_kwargs"] if OLD else []
    of_trainer = ["Trainer.create_optimizer", *getter, "Trainer.train"]
    assert facts["changed_classes"] == ["Accelerator.prepare", *of_trainer, "TrainingArguments.__post_init__"]


def test_tables_only_grow(facts):
    added = {f"OptimizerNames.{name}" for name in registry.names()} | {"SchedulerType.emopulse"}
    maps = {
        f"{enumeration}.{table}"
        for enumeration in ("OptimizerNames", "SchedulerType")
        for table in ("_member_map_", "_member_names_", "_value2member_map_")
    }
    handlers = set() if OLD else {"handlers"}
    assert {*facts["changed_tables"]} == added | maps | handlers | {"schedulers"}
    assert facts["only_added"]


def test_every_other_optim_string_builds_the_same(facts):
    assert facts["optimizers"] == {}
    # The others need packages or devices that may not be here: then the same error before and after.
    assert {"adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"} <= {*facts["built"]}


def test_adamw_trains_the_same_and_gets_no_callback(facts):
    assert facts["same_training"]
    assert facts["same_after"]
    assert "EmotionCallback" not in facts["callbacks"]
    assert facts["trained"] == "EmotionCallback"  # which an emo optimizer gets


def test_registering_again_changes_nothing(facts):
    assert facts["again"] == []


def test_unregister_leaves_everything_as_it_was(facts):
    assert facts["unregistered"] == facts["unregistered_again"] == []
    assert facts["rejected"] == [True, True]
    assert "emosens" in facts["error"]


def test_it_can_be_registered_after_that(facts):
    assert facts["registered_again"] == []


def test_backward_is_wrapped_once_for_all_who_wait_and_given_back():
    backward = Accelerator.backward
    waiting = [registry.build("emosens", [torch.nn.Parameter(torch.ones(()))]) for _ in range(2)]
    try:
        await_accelerator(waiting[0])
        wrapped = Accelerator.backward
        await_accelerator(waiting[1])
        assert Accelerator.backward is wrapped is not backward
        stop_feeding(waiting[0])
        assert Accelerator.backward is wrapped
    finally:
        for optimizer in [*waiting, *waiting]:
            stop_feeding(optimizer)
    assert Accelerator.backward is backward


def test_getter_of_old_transformers_is_wrapped_once_and_given_back(make_args, monkeypatch):
    """What `register` does below transformers 5.2, in any version."""
    registration.unwrap_getter()
    original, adamw = vars(Trainer)["get_optimizer_cls_and_kwargs"], make_args(optim="adamw_torch")
    before = Trainer.get_optimizer_cls_and_kwargs(adamw)
    try:
        registration.wrap_getter(frozenset({"emosens"}))
        ours = Trainer.get_optimizer_cls_and_kwargs
        assert ours(adamw) == before
        assert ours(make_args(optim="emosens"))[0] is registry.optimizer_class("emosens")

        @functools.wraps(ours)
        def theirs(*args):
            return ours(*args)

        with monkeypatch.context() as context:
            context.setattr(Trainer, "get_optimizer_cls_and_kwargs", staticmethod(theirs))
            registration.wrap_getter(frozenset({"emosens"}))
            registration.unwrap_getter()
            assert Trainer.get_optimizer_cls_and_kwargs is theirs
        assert Trainer.get_optimizer_cls_and_kwargs is ours
        registration.wrap_getter(frozenset({"emosens"}))
        assert Trainer.get_optimizer_cls_and_kwargs is ours
    finally:
        registration.unwrap_getter()
    assert vars(Trainer)["get_optimizer_cls_and_kwargs"] is original
    registration.add_optimizers()


def test_members_of_others_stay():
    class Names(str, enum.Enum):
        ADAMW = "adamw"

    names.add_members(Names, ["emosens", "adamw"])
    names.remove_members(Names, ["emosens", "adamw", "gone"])
    assert Names.__members__ == {"ADAMW": Names.ADAMW}
    assert Names("adamw") is Names.ADAMW
    with pytest.raises(ValueError, match="emosens"):
        Names("emosens")
