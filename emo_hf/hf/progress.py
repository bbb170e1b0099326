"""The loss, the step size and the scalar in Trainer's progress bar; the last two in a notebook's table.

They stand behind the bar, which redraws them at its own pace: nothing is printed here. The table gets two columns.
Without either (``disable_tqdm``, another rank than the first, a bar of another package) there is nothing to do.
"""

from typing import Any

from transformers import ProgressCallback

from emo_hf.signals import Signals


def find_progress(callbacks: list[Any]) -> Any:
    """Returns Trainer's callback with the bar or with the table, which exist only while it trains."""
    of_notebook = "training_tracker"  # NotebookProgressCallback, which needs IPython to be imported
    return next((each for each in callbacks if isinstance(each, ProgressCallback) or hasattr(each, of_notebook)), None)


def show(progress: Any, signals: Signals) -> None:
    """Puts the signals of the last step behind the bar."""
    bar = getattr(progress, "training_bar", None)
    if bar is not None:
        text = f"loss={signals.loss:.4g}, lr={signals.lr:.2e}, scalar={signals.scalar:+.2f}"
        bar.set_postfix_str(text, refresh=False)


def show_in_table(progress: Any, signals: Signals | None) -> None:
    """Puts them into the last line of the table, which Trainer's callback has just written."""
    tracker = getattr(progress, "training_tracker", None)
    if tracker is not None and signals is not None and len(tracker.inner_table or ()) > 1:
        columns, *_, last = tracker.inner_table
        own = {"Step Size": f"{signals.lr:.2e}", "Scalar": f"{signals.scalar:+.2f}"}
        tracker.write_line({columns[0]: last[0], **own})
