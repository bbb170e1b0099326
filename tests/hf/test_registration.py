"""The names are there whichever comes first, emo_hf or any part of transformers; and only what was asked for."""

import pytest

pytestmark = pytest.mark.slow

ARGUMENTS = """
from transformers import TrainingArguments
TrainingArguments("out", lr_scheduler_type="emopulse", report_to=[])
args = TrainingArguments("out", optim="emosens", report_to=[])
assert type(args.optim).__name__ == "OptimizerNames", args.optim
"""
TRAINER = """
import torch, sys
from transformers import Trainer, get_scheduler
from emo_hf.hf import loading, registration
cls, options = Trainer.get_optimizer_cls_and_kwargs(args)
assert cls.__name__ == "EmoSens", cls
assert Trainer.create_optimizer is registration.CREATE_OPTIMIZER.pair[0]
sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
assert type(get_scheduler("emopulse", sgd, 0, 10)).__name__ == "EmoPulse"
assert loading._finder not in sys.meta_path  # it had one job
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import emo_hf, importlib; importlib.reload(emo_hf)",
        "from emo_hf import EmoTrainer",
        "from transformers import TrainingArguments; import emo_hf",
        "from transformers import Trainer; import emo_hf",
        "import emo_hf; import transformers.trainer_callback",  # it imports training_args half-way
    ],
)
def test_names_are_there_in_any_order(imports, run_python):
    run_python("-c", "\n".join([imports, ARGUMENTS, TRAINER]))


def test_arguments_alone_load_no_trainer_and_a_reloaded_module_gets_the_names_again(run_python):
    code = """
import importlib
assert "emo_hf.hf.trainer" not in sys.modules
import transformers.trainer
from transformers import training_args
importlib.reload(training_args)
emo_hf.hf.register()
assert "emosens" in training_args.OptimizerNames.__members__
"""
    run_python("-c", "\n".join(["import emo_hf, sys", ARGUMENTS, code]))


WITHOUT = """
import emo_hf
{then}
import transformers.trainer as trainer
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames
names = {{*OptimizerNames.__members__, *SchedulerType.__members__, *map(str, TYPE_TO_SCHEDULER_FUNCTION)}}
print("emosens" in names, "emopulse" in names, trainer.Trainer.create_optimizer.__module__)
"""


@pytest.mark.parametrize(
    ("then", "switches", "found"),
    [
        ("emo_hf.hf.unregister()", {}, "False False transformers.trainer"),
        ("", {"EMO_HF_REGISTER": "0"}, "False False transformers.trainer"),
        ("", {"EMO_HF_PATCH": "0"}, "True True transformers.trainer"),
    ],
)
def test_what_is_switched_off_or_taken_back_never_comes(then, switches, found, run_python):
    code = WITHOUT.format(then=then) + (
        "import emo_hf.hf.registration as registration\n"
        "print(trainer.Trainer.create_optimizer in registration.CREATE_OPTIMIZER.pair[:1])"
    )
    *_, names, wrapped = run_python("-c", code, **switches).stdout.splitlines()
    assert names == found
    assert wrapped == str(not then and "EMO_HF_PATCH" not in switches)


def test_transformers_that_moved_its_names_refuses_at_its_own_import(tmp_path, run_python):
    """A transformers without OptimizerNames: the error comes where it is imported, and says what to do."""
    folder = tmp_path / "transformers"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "training_args.py").write_text("class TrainingArguments:\n    def __post_init__(self): ...\n")
    code = "import sys; sys.path.insert(0, '.')\nfrom emo_hf import EmoSens\nimport transformers.training_args"
    result = run_python("-c", code, ok=False)
    assert "RegistrationError: The installed transformers does not accept a new optim name" in result.stderr
    assert "EMO_HF_REGISTER=0" in result.stderr
    run_python("-c", code, EMO_HF_REGISTER="0")


def test_without_transformers_a_loop_of_ones_own_works(run_python):
    run_python(
        "-c",
        "import sys; sys.modules['transformers'] = sys.modules['accelerate'] = None\n"
        "import torch\n"
        "from emo_hf import EmoSens\n"
        "p = torch.nn.Parameter(torch.ones(2)); p.grad = torch.ones(2)\n"
        "EmoSens([p]).step(loss=1.0)\n"
        "assert p.lt(1).all()",
    )
