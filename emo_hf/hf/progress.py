"""The loss, the step size and the scalar in Trainer's progress bar.

They stand behind the bar, which redraws them at its own pace: nothing is printed here. Without a bar
(``disable_tqdm``, another rank than the first, a notebook's table, a bar of another package) there is nothing to do.
"""

from typing import Any

from transformers import ProgressCallback

from emo_hf.signals import Signals


def find_progress(callbacks: list[Any]) -> ProgressCallback | None:
    """Returns Trainer's callback with the bar, which exists only while it trains."""
    return next((each for each in callbacks if isinstance(each, ProgressCallback)), None)


def show(progress: ProgressCallback | None, signals: Signals) -> None:
    """Puts the signals of the last step behind the bar."""
    bar = getattr(progress, "training_bar", None)
    if bar is not None:
        text = f"loss={signals.loss:.4g}, lr={signals.lr:.2e}, scalar={signals.scalar:+.2f}"
        bar.set_postfix_str(text, refresh=False)
