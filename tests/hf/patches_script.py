"""What importing, registering and unregistering emo_hf changes in other packages. Run by test_patches.py.

Prints one JSON object: a fact per key.
"""

import json
import sys
import warnings
from pathlib import Path

import accelerate
import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, optimization
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

try:
    from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS as HANDLERS
except ImportError:  # transformers < 5.2
    HANDLERS = {}

warnings.simplefilter("ignore")  # of optimizers that are not at home here
TEXT = Path(sys.argv[1]).read_bytes()
CLASSES = (
    Trainer,
    TrainingArguments,
    transformers.TrainerCallback,
    accelerate.Accelerator,
    accelerate.optimizer.AcceleratedOptimizer,
    accelerate.scheduler.AcceleratedScheduler,
    torch.Tensor,
    torch.nn.Module,
    torch.optim.Optimizer,
    torch.optim.AdamW,
    torch.optim.lr_scheduler.LRScheduler,
)
NAMES = [member.value for member in OptimizerNames]


def tables():
    """Every table and enumeration of transformers that could hold a name, in order."""
    found = {"schedulers": list(optimization.TYPE_TO_SCHEDULER_FUNCTION.items()), "handlers": list(HANDLERS.items())}
    for enumeration in (OptimizerNames, SchedulerType):
        for attribute, value in vars(enumeration).items():
            found[f"{enumeration.__name__}.{attribute}"] = (
                list(value.items()) if isinstance(value, dict) else list(value) if isinstance(value, list) else value
            )
    return found


def attributes():
    return {f"{cls.__name__}.{name}": value for cls in CLASSES for name, value in vars(cls).items()}


def changed(before, after):
    """Returns the keys whose values are not the same objects."""
    keys = before.keys() | after.keys()
    return sorted(key for key in keys if before.get(key, keys) is not after.get(key, keys))


def differing(before, after):
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def optimizers():
    """Returns what Trainer would build for each of transformers' own names, or the error it raises."""
    built = {}
    for name in NAMES:
        try:
            args = TrainingArguments("out", optim=name, use_cpu=True, report_to=[])
            cls, kwargs = Trainer.get_optimizer_cls_and_kwargs(args)
            built[name] = f"{cls.__module__}.{cls.__qualname__} {kwargs}"
        except Exception as error:
            built[name] = f"{type(error).__name__}: {error}"
    return built


def train(optim):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=256, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    rows = [torch.tensor(list(TEXT[i : i + 16])) for i in range(0, 256, 16)]
    args = TrainingArguments(
        "out", optim=optim, use_cpu=True, max_steps=5, logging_steps=1, save_strategy="no", report_to=[],
        disable_tqdm=True, per_device_train_batch_size=2, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(GPT2LMHeadModel(config), args, train_dataset=[{"input_ids": row, "labels": row} for row in rows])
    trainer.train()
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    callbacks = [type(each).__name__ for each in trainer.callback_handler.callbacks]
    return weights, callbacks, trainer.state.log_history[:-1]  # the last line has the run time


def same(one, other):
    return torch.equal(one[0], other[0]) and one[1:] == other[1:]


assert "emo_hf" not in sys.modules
built, plain = optimizers(), train("adamw_torch")
before, before_classes = tables(), attributes()

import emo_hf.hf  # noqa: E402

facts = {"changed_classes": changed(before_classes, attributes())}
after = tables()
facts["changed_tables"] = differing(before, after)
facts["only_added"] = all(
    new[: len(old)] == old for old, new in ((before[key], after[key]) for key in before) if isinstance(old, list)
)
facts["optimizers"] = {name: text for name, text in optimizers().items() if text != built[name]}
facts["built"] = [name for name, text in built.items() if "Error" not in text]
facts["same_training"] = same(train("adamw_torch"), plain)
facts["callbacks"] = plain[1]
classes = attributes()
emo_hf.hf.register()
facts["again"] = differing(after, tables()) + changed(classes, attributes())

for key in ("unregistered", "unregistered_again"):
    emo_hf.hf.unregister()
    facts[key] = differing(before, tables()) + changed(before_classes, attributes())
facts["rejected"] = [
    not {"emosens", "emopulse"} & {*enumeration.__members__, *map(str, enumeration)}
    for enumeration in (OptimizerNames, SchedulerType)
]
try:
    TrainingArguments("out", optim="emosens")
except ValueError as error:
    facts["error"] = str(error)
facts["same_after"] = same(train("adamw_torch"), plain)

emo_hf.hf.register()
facts["registered_again"] = differing({k: str(v) for k, v in after.items()}, {k: str(v) for k, v in tables().items()})
facts["trained"] = train("emosens")[1][-1]
sys.stdout.write(json.dumps(facts))
