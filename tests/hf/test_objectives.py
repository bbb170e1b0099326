"""What Trainer makes of the loss with gradient accumulation: facts of transformers that the fed loss shows.

Every micro-batch here has the same loss, so the objective of a step can be said in units of it. Where Trainer wrongly
believes that the loss is already divided by the number of micro-batches (or of their labels), it sums them: the
incomplete last group of an epoch then looks like a fall of the loss by half, and the optimizers here react to it.
docs/versions.md tells users.
"""

import contextlib
import inspect
import math

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import GPT2Config, GPT2ForSequenceClassification, Trainer

from emo_hf.errors import OptionError
from emo_hf.hf.trainer import EmoTrainer, EmoTrainerMixin, attach
from tests.hf.loss_functions import IgnoresCount, Stream, UsesCount, batch_mean, token_mean
from tests.hf.tiny_gpt2 import Meter, freeze, make_data

INSTALLED = Version(transformers.__version__)
IGNORED = "makes no use of num_items_in_batch, so Trainer adds up the losses of the 4 micro-batches"
RIGHT, SUMMED = [1, 1, 1], [4, 4, 2]  # 10 micro-batches: groups of 4, 4 and 2
HAS_KNOB = Version("5.19") <= INSTALLED  # Trainer.loss_is_scaled_for_ga
SMOOTHER_COUNTS = Version("5.15") <= INSTALLED

# name: Trainer class, its parts, options, attributes set on it, expected
OBJECTIVES = {
    "model that takes the count": (Trainer, {}, {}, {}, RIGHT),
    "model that does not": (Trainer, {}, {}, {"model_accepts_loss_kwargs": False}, RIGHT),
    "compute_loss_func that uses the count": (Trainer, {"compute_loss_func": token_mean}, {}, {}, RIGHT),
    "compute_loss_func that ignores it": (Trainer, {"compute_loss_func": batch_mean}, {}, {}, SUMMED),
    "cured compute_loss_func, from 5.19": (
        Trainer,
        {"compute_loss_func": batch_mean},
        {},
        {"loss_is_scaled_for_ga": False},
        RIGHT if HAS_KNOB else SUMMED,
    ),
    "compute_loss that uses the count": (UsesCount, {}, {}, {}, RIGHT),
    "compute_loss that ignores it": (IgnoresCount, {}, {}, {}, SUMMED),
    "cured compute_loss": (IgnoresCount, {}, {}, {"model_accepts_loss_kwargs": False}, RIGHT),
    "label smoothing": (
        Trainer, {}, {"label_smoothing_factor": 1e-9}, {}, RIGHT if SMOOTHER_COUNTS else SUMMED,
    ),
    "cured label smoothing": (
        Trainer, {}, {"label_smoothing_factor": 1e-9}, {"model_accepts_loss_kwargs": False}, RIGHT,
    ),
    # The two micro-batches left over at the end of a pass are added to the first group of the next one.
    "stream that ends within a group": (Trainer, {"train_dataset": Stream}, {}, {}, [1, 1, 2]),
}  # fmt: skip


@pytest.mark.parametrize("case", OBJECTIVES)
def test_objective_in_units_of_the_loss_of_a_micro_batch(case, make_trainer):
    kind, parts, options, attributes, expected = OBJECTIVES[case]
    (row,) = make_data(1)
    row["labels"][0] = -100  # no prediction belongs to it, but transformers < 5 counts it
    rows = [row] * 20
    parts = {**parts, "train_dataset": parts.get("train_dataset", list)(rows)}
    trainer = make_trainer(kind, parts, gradient_accumulation_steps=4, max_steps=3, **options)
    for name, value in attributes.items():
        setattr(trainer, name, value)
    freeze(trainer.model)
    unit = token_mean(trainer.model(row["input_ids"][None]), row["labels"][None]).item()
    measured = Meter(trainer)
    with pytest.warns(UserWarning, match=IGNORED) if expected is SUMMED else contextlib.nullcontext():
        trainer.train()
    assert measured.fed == measured.truth
    assert measured.truth == pytest.approx([n * unit for n in expected], rel=1e-5)


class Classes(Trainer):
    """Knows the tokens of `make_data` as questions of two classes."""

    def __init__(self, *args, **kwargs):
        config = GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2, num_labels=2, pad_token_id=0)
        super().__init__(*args, **kwargs | {"model": GPT2ForSequenceClassification(config)})


class EmoClasses(EmoTrainerMixin, Classes):
    pass


def classified() -> list[dict]:
    return [{"input_ids": row["input_ids"], "labels": torch.tensor(n % 2)} for n, row in enumerate(make_data())]


@pytest.mark.parametrize("cured", [False, True])
def test_a_head_that_swallows_the_count_is_told(cured, make_trainer, read_signals):
    if "kwargs" not in inspect.signature(GPT2ForSequenceClassification.forward).parameters:
        pytest.skip("this version's head takes no other arguments, so Trainer divides")
    kind, more = (EmoClasses, {"normalize_accumulation": True}) if cured else (Classes, {})
    options = {"gradient_accumulation_steps": 4, "max_steps": 3, "eval_on_start": True, "eval_strategy": "epoch"}
    trainer = make_trainer(kind, {"train_dataset": classified(), "eval_dataset": classified()[:4], **more}, **options)
    told = pytest.warns(UserWarning, match=f"The loss of GPT2ForSequenceClassification {IGNORED}")
    with contextlib.nullcontext() if cured else told:
        trainer.train()
    losses = [row["emo/loss"] for row in read_signals(trainer.args.output_dir)]
    unit = losses[0] if cured else losses[0] / 4
    assert unit == pytest.approx(math.log(2), rel=0.2)
    assert losses[2] == pytest.approx(unit if cured else 2 * unit, rel=0.3)
    assert "compute_loss" not in vars(trainer)


def test_emopulse_hears_the_sum_as_well(make_trainer):
    options = {"optim": "adamw_torch", "lr_scheduler_type": "emopulse", "gradient_accumulation_steps": 4}
    trainer = make_trainer(Trainer, {"compute_loss_func": batch_mean}, max_steps=3, **options)
    with pytest.warns(UserWarning, match=f"compute_loss_func {IGNORED}"):
        trainer.train()


def test_what_wraps_the_loss_meanwhile_stays(make_trainer):
    trainer = make_trainer(Trainer, gradient_accumulation_steps=4, max_steps=2)
    trainer.create_optimizer()  # which begins to watch
    attach(trainer)
    compute, calls = trainer.compute_loss, []
    trainer.compute_loss = lambda *args, **kwargs: calls.append(1) or compute(*args, **kwargs)
    trainer.train()
    assert len(calls) == 2 * 4


def test_a_function_of_ones_own_divides_by_itself(make_trainer):
    with pytest.raises(OptionError, match="divide the sum of your losses by it"):
        make_trainer(EmoTrainer, {"compute_loss_func": batch_mean, "normalize_accumulation": True})
