"""W&B without an account, a network, or a question: it never prompts, never hangs and never ends a training.

By itself W&B 0.31 raises without a key and a terminal, waits for ever for a key with a terminal, and raises after 100
seconds without a network. `open_run` is ``wandb.init`` that settles this:

    a run is open, or WANDB_MODE is offline or disabled    left as they are
    no key                                                 offline
    a key                                                  opens the run; if that fails within a minute, offline
    W&B cannot work at all                                 disabled

Trainer's own callback opens the run, when the training begins, with the project and the name that it would give. It
does so through the `Guard` that it gets in the place of the module wandb; where nothing can give it one, `prepare`
settles the mode beforehand and opens nothing.

It goes by the settings of the W&B session. Setting WANDB_MODE now would change nothing, as the session reads the
environment once, and W&B would warn about that at every run.
"""

import contextlib
import functools
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from emo_hf.dashboards import report
from emo_hf.dashboards.sinks import STEP, Origin, Sink, values
from emo_hf.dashboards.step_axis import StepAxis
from emo_hf.dashboards.window import LogRow
from emo_hf.errors import EmoError
from emo_hf.signals import PREFIX

logger = logging.getLogger(__name__)

PROJECT = "huggingface"  # Trainer's default
REPORT, PICTURE = "emo/report", "emo/picture"
INIT_TIMEOUT = 30  # seconds; W&B adds about 15 of its own

_announced: set[str] = set()  # ids of runs


def prepare() -> str:
    """Goes offline if there is no key, and tells the user; opens no run.

    Returns:
        "online", "offline" or "disabled".
    """
    import wandb

    _refuse_old_switch()
    try:
        reason = _settle()
    except Exception as error:  # not even its service process starts; Trainer's callback would raise the same
        reason = _disable(error)
    if wandb.run is not None or _mode() != "online":
        _announce(reason)
    return _mode()


def open_run(*args: Any, **options: Any) -> Any:
    """Opens a run as ``wandb.init`` does, offline where W&B cannot be reached, and tells the user where it is.

    Args:
        *args, **options: those of ``wandb.init``.
    """
    import wandb

    _refuse_old_switch()
    reason = ""
    try:
        reason = _settle()
        return wandb.init(*args, **options) if wandb.run or _mode() != "online" else _go_online(*args, **options)
    except wandb.errors.Error as error:
        reason = _go_offline(error)
    except Exception as error:
        reason = _disable(error)
    finally:
        if wandb.run is not None:
            _announce(reason)
    try:
        return wandb.init(*args, **options)
    finally:
        _announce(reason)


def open_own_run(name: str | None = None) -> None:
    """Opens a run in Trainer's project, unless one is open."""
    import wandb

    if wandb.run is None:
        open_run(project=os.environ.get("WANDB_PROJECT", PROJECT), name=name)


def _go_online(*args: Any, **options: Any) -> Any:
    import wandb

    options.setdefault("settings", wandb.Settings(init_timeout=INIT_TIMEOUT))
    return wandb.init(*args, **options)


def _settle() -> str:
    """Goes offline if no run is open and there is no key; returns why, or an empty string."""
    import wandb

    if wandb.run is not None or _mode() != "online":
        return ""
    try:
        return "" if wandb.login(prompt=False, verify=False) else _go_offline("no API key")
    except wandb.errors.Error as error:
        return _go_offline(error)


def _go_offline(why: object) -> str:
    import wandb

    wandb.setup(settings=wandb.Settings(mode="offline"))
    return str(why).partition("\n")[0]


def _disable(error: Exception) -> str:
    import wandb

    wandb.setup(settings=wandb.Settings(mode="disabled"))
    return f"{type(error).__name__}: {error}"


def _mode() -> str:
    """Mode of the open run, else of the session: "online", "offline" or "disabled"."""
    import wandb

    settings = wandb.setup().settings if wandb.run is None else wandb.run.settings
    return {"offline": "offline", "dryrun": "offline", "disabled": "disabled"}.get(settings.mode, "online")


def _describe(mode: str, reason: str) -> str:
    import wandb

    because = f" ({reason})" if reason else ""
    if mode == "disabled":
        return f"W&B is disabled{because}: nothing is recorded there."
    if wandb.run is None:
        folder = Path(wandb.setup().settings.wandb_dir) / "latest-run"  # W&B's link to the run that will be opened
    else:
        folder = Path(wandb.run.settings.sync_dir)
    if mode == "offline":
        then = f"upload: `wandb login`, then `wandb sync {folder}`"
    else:
        run = wandb.run or wandb.setup().settings
        then = f"panels: `emo-hf dashboard push --entity {run.entity} --project {run.project or PROJECT}`"
    return f"W&B is {mode}{because}. Files: {folder}; view: `wandb leet {folder}`; {then}."


def _announce(reason: str = "") -> None:
    """Says once per run where it is."""
    import wandb

    run = wandb.run.id if wandb.run else ""
    if run not in _announced:
        _announced.update({run} - {""})
        _tell(logging.WARNING if reason else logging.INFO, _describe(_mode(), reason))


@functools.cache
def _tell(level: int, message: str) -> None:
    """Logs a message once: W&B is looked at before every training."""
    logger.log(level, message)


def _refuse_old_switch() -> None:
    if "WANDB_DISABLED" in os.environ:
        _tell(logging.WARNING, "WANDB_DISABLED has no effect in this version of W&B; use WANDB_MODE=disabled.")


def label(group: str, job_type: str, tags: Iterable[str]) -> None:
    """Says where the runs of this process belong, unless the user has; call it before `prepare`."""
    os.environ.setdefault("WANDB_RUN_GROUP", group)
    os.environ.setdefault("WANDB_JOB_TYPE", job_type)
    os.environ.setdefault("WANDB_TAGS", ",".join(tags))


def describe(config: dict[str, Any]) -> None:
    """Adds flat settings to the open run, if there is one: W&B groups and filters runs by them."""
    import wandb

    if wandb.run is not None:
        wandb.run.config.update(config, allow_val_change=True)


def summarize(summary: dict[str, float]) -> None:
    """Adds numbers that sum up the open run, if there is one."""
    import wandb

    if wandb.run is not None:
        wandb.run.summary.update(summary)


@contextlib.contextmanager
def finished() -> Iterator[None]:
    """Finishes the run that is open at the end, as failed after an error.

    W&B does so itself when Python ends, but a forked process ends without that.
    """
    import wandb

    failed = True
    try:
        yield
        failed = False
    finally:
        if wandb.run is not None:
            wandb.finish(exit_code=int(failed))


class Guard:
    """The module wandb as Trainer's callback sees it: the run opens safely, and its rows keep to the step axis."""

    def __init__(self) -> None:
        self.axis: StepAxis | None = None
        self._run: Any = None

    def lead(self, run: Any, axis: StepAxis | None) -> None:
        """Sends what is logged to `run` along `axis`."""
        self._run, self.axis = run, axis

    def __getattr__(self, name: str) -> Any:
        import wandb

        return getattr(wandb, name)

    def init(self, *args: Any, **options: Any) -> Any:
        return open_run(*args, **options)

    def log(self, row: LogRow, *args: Any, **options: Any) -> None:
        import wandb

        if self.axis is None or wandb.run is not self._run or args or options:
            wandb.log(row, *args, **options)
        else:
            self.axis.log(row, row.get(STEP))


def guard(callback: Any) -> Guard | None:
    """Gives Trainer's W&B callback a `Guard`, unless it has one; returns it, None if it is another callback."""
    import wandb

    module = getattr(callback, "_wandb", None)
    if module is wandb:
        callback._wandb = module = Guard()
    return module if isinstance(module, Guard) else None


class WandbSink(Sink):
    """Logs rows to the open run, or to one of its own where no Trainer has opened one. It never finishes a run."""

    name = "W&B"

    def __init__(self, origin: Origin) -> None:
        import wandb

        self._origin = origin
        self._is_used = False
        open_own_run()
        _announce()
        self._adopt(wandb.run)

    def _adopt(self, run: Any) -> None:
        self._run = run
        self._run.config.update(self._origin.config, allow_val_change=True)
        self._run.define_metric(f"{PREFIX}*", step_metric=STEP)
        lag = 1 if self._origin.trainer_counts else 0
        self._axis = StepAxis(run, self._origin.total_steps, lag) if StepAxis.fits(run) else None
        if self._origin.guard is not None:
            self._origin.guard.lead(run, self._axis)

    def write(self, row: LogRow) -> None:
        import wandb

        # In a hyperparameter search Trainer's callback replaces the run, perhaps after this sink has found it.
        if not self._is_used and wandb.run is not None and wandb.run is not self._run:
            self._adopt(wandb.run)
        self._is_used = True
        if self._axis is None:
            self._do(self._run.log, {**values(row), STEP: row["step"]})
        else:
            self._do(self._axis.add, row)

    def note(self, found: dict[str, Any]) -> None:
        self._do(self._run.config.update, found, allow_val_change=True)

    def check(self) -> None:
        self._do(self._run.log, {}, commit=False)

    def close(self, summary: dict[str, float]) -> None:
        self.check()
        if self._axis is not None:
            self._do(self._axis.close)
        self._run.summary.update(summary)
        if summary and not self._run.disabled:
            self._publish()

    def _publish(self) -> None:
        """Adds what can be looked at without this package: the report as a page and as a picture, and the rows."""
        import wandb

        path = self._origin.path
        runs = report.read([path.parent])
        media: LogRow = {REPORT: wandb.Html(report.html(runs), inject=False)}
        with tempfile.TemporaryDirectory() as folder:
            try:
                report.write_png(runs, picture := Path(folder) / "signals.png")
                media[PICTURE] = wandb.Image(str(picture))
            except EmoError as error:  # without matplotlib
                logger.info("The W&B run gets no picture of the signals. %s", error)
            step = max(run.steps for run in runs)
            if self._axis is None:
                self._do(self._run.log, {**media, STEP: step})
            else:
                self._do(self._axis.log, {**media, STEP: step}, step)
        artifact = wandb.Artifact(f"emo_signals-{self._run.id}", type="signals")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def _do(self, action: Callable[..., None], *args: Any, **options: Any) -> None:
        try:
            action(*args, **options)
        except Exception:
            self._disable()
            raise

    def _disable(self) -> None:
        """Puts a run that does nothing in the place of the broken one, which would fail in Trainer's callback too."""
        import wandb

        if wandb.run is self._run:
            wandb.init(mode="disabled", reinit="create_new")
