"""Every error this package raises on purpose.

    EmoError
    ├── MissingLossError (RuntimeError)         step() without the loss of this step
    ├── NonFiniteLossError (FloatingPointError) the loss is NaN or infinite
    ├── CheckpointError (RuntimeError)          optimizer state of another row, or one that does not fit
    ├── UnknownOptimizerError (ValueError)      no such name or version in the registry
    ├── OptionError (ValueError)                unknown, dead or out-of-range optimizer option
    ├── RegistrationError (ImportError)         transformers moved what the ``optim`` string relies on
    ├── MissingExtraError (ImportError)         a package of an extra is not installed
    ├── RecipeError (ValueError)                a recipe, its data or its output folder cannot be used
    ├── RampError (RuntimeError)                the ramp of EmoFree did not end
    ├── RecordError (ValueError)                a file of recorded signals cannot be read
    └── DashboardError (RuntimeError)           a dashboard cannot be saved where it belongs

Each message says what happened, what was given, what was expected, and what to do.
"""

import difflib
from collections.abc import Iterable


class EmoError(Exception):
    """Root of all errors of emo_hf."""


class MissingLossError(EmoError, RuntimeError):
    """``step()`` was called although no loss was observed since the last step."""


class NonFiniteLossError(EmoError, FloatingPointError):
    """The observed loss is NaN or infinite."""


class CheckpointError(EmoError, RuntimeError):
    """A saved optimizer or scheduler state does not belong to this one, or is damaged."""


class UnknownOptimizerError(EmoError, ValueError):
    """A name or a version that the registry does not hold."""


class OptionError(EmoError, ValueError):
    """An optimizer option that does not exist, has no effect, or is out of range."""


class RegistrationError(EmoError, ImportError):
    """The optimizer names cannot be registered with the installed transformers."""


class MissingExtraError(EmoError, ImportError):
    """What was asked for needs a package of an extra that is not installed."""


class RecipeError(EmoError, ValueError):
    """A recipe cannot be read or run."""


class RampError(EmoError, RuntimeError):
    """No step size was found: the ramp of EmoFree did not end."""


class RecordError(EmoError, ValueError):
    """A file of recorded signals holds something else."""


class DashboardError(EmoError, RuntimeError):
    """A dashboard cannot be saved where it belongs."""


SAME = {"learning_rate": "lr", "wd": "weight_decay"}  # names elsewhere -> here


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ``" Did you mean 'x' or 'y'?"`` for the nearest of ``known``, or an empty string."""
    known = list(known)
    if SAME.get(name) in known:
        nearest = [SAME[name]]
    else:
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5) if len(name) <= 100 else []
    return f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
