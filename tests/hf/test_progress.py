"""Trainer's progress bar shows the loss, the step size and the scalar; other bars are left alone."""

import re
from typing import Any

import pytest
from transformers import ProgressCallback, Trainer, TrainerCallback

from emo_hf.hf import EmotionCallback, registration, telling
from emo_hf.hf.progress import find_progress, show
from tests.hf.tiny_gpt2 import make_data

SHOWN = r"loss=[\d.]+, lr=\d\.\d\de-\d\d, scalar=[+-]\d\.\d\d"


class Bar:
    """In the place of Trainer's bar: notes what is put behind it, and whether that asks for a redraw."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, bool]] = []

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self.texts.append((text, refresh))

    def update(self, steps: int) -> None: ...
    def write(self, text: str) -> None: ...
    def close(self) -> None: ...


class Swap(TrainerCallback):
    def __init__(self, bar: Bar) -> None:
        self.bar = bar

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.progress.training_bar.close()
        self.progress.training_bar = self.bar


def with_bar(trainer: Trainer) -> Bar:
    trainer.add_callback(swap := Swap(Bar()))
    swap.progress = find_progress(trainer.callback_handler.callbacks)
    return swap.bar


@pytest.mark.parametrize("options", [{}, {"optim": "adamw_torch", "lr_scheduler_type": "emopulse"}], ids=str)
def test_every_step_shows_and_none_asks_for_a_redraw(options, make_trainer, read_signals):
    trainer = make_trainer(**options, max_steps=4, logging_steps=2, disable_tqdm=False)
    bar = with_bar(trainer)
    trainer.train()
    rows = read_signals(trainer.args.output_dir)
    assert bar.texts == [
        (f"loss={row['emo/loss']:.4g}, lr={row['emo/lr']:.2e}, scalar={row['emo/scalar']:+.2f}", False) for row in rows
    ]


def test_the_real_bar_ends_with_the_last_step(make_trainer, read_signals, capsys, monkeypatch):
    monkeypatch.setattr(telling.logger, "disabled", True)
    trainer = make_trainer(max_steps=3, logging_steps=1, disable_tqdm=False)
    trainer.train()
    err = capsys.readouterr().err
    *_, last = re.findall(rf"3/3 .*({SHOWN})\]", err)
    assert last.startswith(f"loss={read_signals(trainer.args.output_dir)[-1]['emo/loss']:.4g}, ")
    assert err.count("\n") == 1  # one line, drawn over and over


@pytest.mark.parametrize("options", [{"disable_tqdm": True}, {"optim": "adamw_torch", "disable_tqdm": False}], ids=str)
def test_nothing_without_a_bar_or_an_emotion(options, make_trainer, capsys):
    trainer = make_trainer(max_steps=3, **options)
    trainer.train()
    assert "scalar=" not in capsys.readouterr().err


def test_alone_the_callback_does_not_reach_the_bar(make_trainer):
    registration.remove_patches()
    trainer = make_trainer(max_steps=2, disable_tqdm=False, trainer={"callbacks": [EmotionCallback()]})
    bar = with_bar(trainer)
    trainer.train()
    assert bar.texts == []


def test_other_ranks_and_other_progress_callbacks_are_left_alone():
    class Notebook(TrainerCallback):  # as transformers' NotebookProgressCallback, no ProgressCallback
        training_bar = None

    assert find_progress([Notebook()]) is None
    show(None, None)
    show(ProgressCallback(), None)  # of a rank that has no bar


@pytest.mark.parametrize("evaluates", [False, True])
def test_the_table_of_a_notebook_has_step_size_and_scalar(make_trainer, read_signals, evaluates, monkeypatch):
    notebook = pytest.importorskip("transformers.utils.notebook", reason="needs IPython", exc_type=ImportError)
    tables = []
    monkeypatch.setattr(
        notebook.NotebookTrainingTracker, "display", lambda tracker: tables.append([*map(list, tracker.inner_table)])
    )
    more = {"eval_strategy": "steps", "eval_steps": 2} if evaluates else {}
    own = {"callbacks": [notebook.NotebookProgressCallback()], "eval_dataset": make_data(2)}
    trainer = make_trainer(max_steps=4, logging_steps=2, **more, trainer=own)
    trainer.train()
    rows = read_signals(trainer.args.output_dir)
    columns, *lines = tables[-1]
    validation = ["Validation Loss"] if evaluates else []
    assert columns == ["Step", "Training Loss", *validation, "Step Size", "Scalar"]
    assert [line[0] for line in lines] == [2, 4]
    assert [line[-2:] for line in lines] == [
        [f"{rows[step - 1]['emo/lr']:.2e}", f"{rows[step - 1]['emo/scalar']:+.2f}"] for step in (2, 4)
    ]
