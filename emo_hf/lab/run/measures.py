"""The numbers of one run, from its history, its signals and its memory.

`emo_hf.lab.recipe.rules.METRICS` says what each of them means.
"""

import json
import math
import resource
import statistics
import sys
from collections import deque
from pathlib import Path

import torch
from transformers import Trainer

from emo_hf.dashboards.jsonl import LogRow, read_signals
from emo_hf.dashboards.window import summarize

SMOOTH = 20  # logged training losses whose mean is compared with a level


def of_history(rows: list[LogRow], metric: str, equal_train_loss: float | None = None) -> dict[str, float | None]:
    """Returns the numbers of what Trainer logged.

    Args:
        rows: of ``history.jsonl``, with at least one evaluation. The last one is the result.
        metric: of the task.
        equal_train_loss: the training loss at which the gap to the evaluation loss is taken.
    """
    evaluations = [row for row in rows if "eval_loss" in row]
    last = evaluations[-1]
    losses = [row["eval_loss"] for row in evaluations if row["eval_loss"] is not None]
    sizes = [row["learning_rate"] for row in rows if "learning_rate" in row]
    numbers: dict[str, float | None] = {
        "eval_loss": last["eval_loss"],
        "best_eval_loss": min(losses, default=None),
        "overfit": None if last["eval_loss"] is None else last["eval_loss"] - min(losses),
        "train_loss": next(row["train_loss"] for row in reversed(rows) if "train_loss" in row),
        "step_size_median": statistics.median(sizes),
        "step_size_min": min(sizes),
        "step_size_max": max(sizes),
        "seconds": sum(row["train_runtime"] for row in rows if "train_runtime" in row),
    }
    numbers[metric] = last[f"eval_{metric}"]
    if equal_train_loss is not None:
        numbers["gap"] = gap(rows, equal_train_loss)
    return numbers


def of_settings(path: Path) -> dict[str, float | None]:
    """Returns what an optimizer has found in the run whose settings are in the file `path`; nothing without it."""
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"found_lr": settings["emo_found_lr"]} if "emo_found_lr" in settings else {}


def gap(rows: list[LogRow], level: float) -> float | None:
    """Returns evaluation minus training loss, once the training loss is at or below `level`."""
    recent: deque[float] = deque(maxlen=SMOOTH)
    for row in rows:
        if row.get("loss") is not None:
            recent.append(row["loss"])
        if row.get("eval_loss") is not None and recent:
            train_loss = statistics.fmean(recent)
            if train_loss <= level:
                return row["eval_loss"] - train_loss
    return None


def of_signals(path: Path, rows: list[LogRow]) -> dict[str, float | None]:
    """Returns when an emo optimizer would stop, and the correlations of its scalar.

    A run that was never ready to stop has no ``stop_step``; share and regret are those of its last step. The regret is
    taken at the first evaluation from the stop on, or at the last one.

    Args:
        path: of ``emo_signals.jsonl``. Without the file there are no numbers.
        rows: of ``history.jsonl``.
    """
    signals = read_signals(path) if path.exists() else []
    if not signals:
        return {}
    evaluations = [(row["step"], row["eval_loss"]) for row in rows if row.get("eval_loss") is not None]
    ready, last = summarize(signals).get("emo/first_stop_step"), signals[-1]["step"]
    stop = last if ready is None else ready
    numbers: dict[str, float | None] = {"stop_step": ready, "stop_share": stop / last}
    if evaluations:
        at_stop = next((loss for step, loss in evaluations if step >= stop), evaluations[-1][1])
        numbers["stop_regret"] = at_stop - min(loss for _, loss in evaluations)
    if "emo/moment_4" in signals[0]:
        numbers |= correlations(signals)
    return numbers


def correlations(signals: list[LogRow]) -> dict[str, float | None]:
    """Returns Spearman's correlation of the scalar with skewness and kurtosis of the gradient, over the steps.

    Steps without variance are left out. A correlation is None if one of the two never changes.
    """
    from scipy.stats import spearmanr

    shapes = [standardized(*(row[f"emo/moment_{k}"] for k in range(1, 5))) for row in signals]
    scalars = [row["emo/scalar"] for row in signals]
    kept = [(scalar, *shape) for scalar, shape in zip(scalars, shapes, strict=True) if shape is not None]
    numbers: dict[str, float | None] = {}
    for place, name in enumerate(("skewness", "kurtosis"), start=1):
        values = float(spearmanr([row[0] for row in kept], [row[place] for row in kept]).statistic)
        numbers[f"{name}_correlation"] = None if math.isnan(values) else values
    return numbers


def standardized(m1: float, m2: float, m3: float, m4: float) -> tuple[float, float] | None:
    """Returns skewness and kurtosis (3 for a normal distribution) from the raw moments, None without variance."""
    variance = m2 - m1**2
    if variance <= 0:
        return None
    third = m3 - 3 * m1 * m2 + 2 * m1**3
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    return third / variance**1.5, fourth / variance**2


def of_memory(trainer: Trainer) -> dict[str, float]:
    """Returns the bytes of the optimizer's state per byte of parameters, and the peak memory of the process."""
    optimizer, model = trainer.optimizer, trainer.model
    assert optimizer is not None
    assert model is not None
    state = sum(
        value.numel() * value.element_size()
        for per_parameter in optimizer.state.values()
        for value in (per_parameter.values() if isinstance(per_parameter, dict) else ())
        if isinstance(value, torch.Tensor)
    )
    parameters = list(model.parameters())
    whole = sum(p.numel() * p.element_size() for p in parameters)
    trained = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    return {"state_ratio": state / trained, "state_share": state / whole, "peak_memory": peak_memory()}


def peak_memory() -> int:
    """Returns the most bytes that this process has used: of the GPU if there is one, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def null_nonfinite(row: LogRow) -> LogRow:
    """Replaces numbers that JSON cannot hold by None, and lists their names in ``nonfinite``."""
    bad = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
    return {**row, **dict.fromkeys(bad), "nonfinite": bad} if bad else row
