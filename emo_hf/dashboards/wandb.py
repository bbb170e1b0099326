"""W&B without an account, a network, or a question: it never prompts, never hangs and never ends a training.

By itself W&B 0.31 raises without a key and a terminal, waits for ever for a key with a terminal, and raises after 100
seconds without a network. `prepare` settles this before Trainer's own callback starts a run:

    a run is open, or WANDB_MODE is offline or disabled    left as they are
    no key                                                 offline
    a key                                                  opens the run; if that fails within a minute, offline
    W&B cannot work at all                                 disabled

It goes by the settings of the W&B session. Setting WANDB_MODE now would change nothing, as the session reads the
environment once, and W&B would warn about that at every run.
"""

import contextlib
import functools
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from emo_hf.dashboards import report
from emo_hf.dashboards.sinks import STEP, Origin, Sink, values
from emo_hf.dashboards.window import LogRow
from emo_hf.errors import EmoError
from emo_hf.signals import PREFIX

logger = logging.getLogger(__name__)

PROJECT = "huggingface"  # Trainer's default
REPORT, PICTURE = "emo/report", "emo/picture"
INIT_TIMEOUT = 30  # seconds; W&B adds about 15 of its own


def prepare(run_name: str | None = None) -> str:
    """Makes W&B safe to use, and tells the user its mode, where the files are, how to view and upload them.

    Args:
        run_name: Name of the run, should one be opened here.

    Returns:
        "online", "offline" or "disabled".
    """
    import wandb

    if "WANDB_DISABLED" in os.environ:
        _tell(logging.WARNING, "WANDB_DISABLED has no effect in this version of W&B; use WANDB_MODE=disabled.")
    try:
        reason = _go_online(run_name) if wandb.run is None and _mode() == "online" else ""
        if reason:
            wandb.setup(settings=wandb.Settings(mode="offline"))
    except Exception as error:  # not even its service process starts; Trainer's callback would raise the same
        reason = f"{type(error).__name__}: {error}"
        wandb.setup(settings=wandb.Settings(mode="disabled"))
    mode = _mode()
    _tell(logging.WARNING if reason else logging.INFO, _describe(mode, reason))
    return mode


def _go_online(run_name: str | None) -> str:
    """Opens a run if there is a key; returns why there is none, or an empty string."""
    import wandb

    try:
        if not wandb.login(prompt=False, verify=False):
            return "no API key"
        # Trainer's callback takes over an open run. The project and the name are those that it would give.
        wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run_name,
            settings=wandb.Settings(init_timeout=INIT_TIMEOUT),
        )
    except wandb.errors.Error as error:
        return str(error).partition("\n")[0]
    return ""


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


@functools.cache
def _tell(level: int, message: str) -> None:
    """Logs a message once: `prepare` runs before every training."""
    logger.log(level, message)


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


class WandbSink(Sink):
    """Logs rows to the open run, or to one of its own where no Trainer has opened one. It never finishes a run."""

    name = "W&B"

    def __init__(self, origin: Origin) -> None:
        import wandb

        if wandb.run is None:
            prepare()
        self._path = origin.path
        self._run = wandb.run or wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT))
        self._run.config.update(origin.config, allow_val_change=True)
        self._run.define_metric(f"{PREFIX}*", step_metric=STEP)

    def write(self, row: LogRow) -> None:
        # The step is a value beside the others: as the argument step= it would drop rows, since Trainer's callback
        # logs without it, and left out W&B would fill in a stale one.
        self._log({**values(row), STEP: row["step"]})

    def check(self) -> None:
        self._log({}, commit=False)

    def close(self, summary: dict[str, float]) -> None:
        self.check()
        self._run.summary.update(summary)
        if summary and not self._run.disabled:
            self._publish()

    def _publish(self) -> None:
        """Adds what can be looked at without this package: the report as a page and as a picture, and the rows."""
        import wandb

        runs = report.read([self._path.parent])
        media: LogRow = {REPORT: wandb.Html(report.html(runs), inject=False)}
        with tempfile.TemporaryDirectory() as folder:
            try:
                report.write_png(runs, picture := Path(folder) / "signals.png")
                media[PICTURE] = wandb.Image(str(picture))
            except EmoError as error:  # without matplotlib
                logger.info("The W&B run gets no picture of the signals. %s", error)
            self._log({**media, STEP: max(run.steps for run in runs)})
        artifact = wandb.Artifact(f"emo_signals-{self._run.id}", type="signals")
        artifact.add_file(str(self._path))
        self._run.log_artifact(artifact)

    def _log(self, row: LogRow, commit: bool = True) -> None:
        try:
            self._run.log(row, commit=commit)
        except Exception:
            self._disable()
            raise

    def _disable(self) -> None:
        """Puts a run that does nothing in the place of the broken one, which would fail in Trainer's callback too."""
        import wandb

        if wandb.run is self._run:
            wandb.init(mode="disabled", reinit="create_new")
