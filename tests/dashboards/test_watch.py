"""The terminal view: what it follows, what it shows, and how it ends."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
from rich.console import Console

from emo_hf.cli import main
from emo_hf.dashboards.metrics import METRICS
from emo_hf.dashboards.watch import Follower, Sparkline, View, watch
from emo_hf.errors import RecordError
from tests.dashboards.recorded_runs import row, write_cell, write_rows, write_run


def seen(what: object, width: int = 80, **settings: object) -> str:
    """What a terminal without colours shows."""
    console = Console(file=io.StringIO(), width=width, **settings)
    console.print(what)
    return console.file.getvalue()


def look(path: Path) -> str:
    follower = Follower(path)
    follower.poll()
    return seen(View(follower))


def append(path: Path, *rows: dict) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in rows)


def test_a_finished_run(tmp_path: Path) -> None:
    text = look(write_run(tmp_path / "out", steps=1200))
    assert text.startswith("out | emosens-3.9 | step 1,200 of 1,200 | finished")
    lines = {line.split()[0]: line for line in text.splitlines()[3:] if line.strip()}
    assert list(lines) == [
        *("loss", "ema_short", "ema_medium", "ema_long", "scalar", "lr", "stop_margin_snr", "stop_margin_loss"),
        "stop_share",
    ]
    assert re.search(r"lr\s+▁.*█\s+0.12\s+0.0001\s+0.12$", lines["lr"].rstrip())
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_run_that_stopped_because_it_was_ready(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", steps=54)
    settings = json.loads((folder / "emo_run.json").read_text())
    stopped = {"total_steps": 300, "emo_stopped_at": 54, "emo_stopped_after": 20}
    (folder / "emo_run.json").write_text(json.dumps({**settings, **stopped}))
    os.utime(folder / "emo_signals.jsonl", (0, 0))
    follower = Follower(folder)
    follower.poll()
    text = seen(View(follower))
    assert "| step 54 of 300 | stopped" in text
    assert text.count("Stopped at step 54: ready for 20 steps.") == 1
    assert "nothing new" not in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (60, 10)])
def test_a_screen_is_filled_and_nothing_is_wrapped(tmp_path: Path, width: int, height: int) -> None:
    folder = write_run(tmp_path / ("a-long-name-of-a-run-" * 8 + "seed0"), steps=400, optimizer="emofree")
    settings = {"emo_optimizer": "emofree", "emo_version": "1.0", "total_steps": 100_000, "emo_found_lr": 5.2e-4}
    (folder / "emo_run.json").write_text(json.dumps(settings))
    changes = {"emo/lr_at_ceiling": 1.0, "emo/lr_at_floor": 1.0, "emo/braking": 1.0}
    write_rows(folder / "emo_signals.jsonl", [row(step, **changes) for step in range(1, 401)])
    follower = Follower(folder)
    follower.poll()
    lines = seen(View(follower, live=True), width=width, height=height).splitlines()
    assert (len(lines), max(map(len, lines))) == (height, width)
    assert lines[0].endswith("seed0 | step 400 of 100,000 | 17 min left | found 0.00052")
    assert lines[1].startswith("!! At its floor")
    assert lines[-1].startswith("! Brakes in 100%")


def test_what_an_optimizer_has_found_is_shown_as_soon_as_it_is_known(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", steps=60, optimizer="emofree")
    follower = Follower(folder)
    follower.poll()
    assert "found" not in seen(View(follower))
    settings = json.loads((folder / "emo_run.json").read_text())
    (folder / "emo_run.json").write_text(json.dumps({**settings, "emo_found_lr": 5.2e-4}))
    follower.poll()
    assert "finished | found 0.00052" in seen(View(follower))


def test_losses_of_several_evaluation_sets_stand_together(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", steps=60)
    logged = {"eval_a_loss": 1.5, "eval_b_loss": 2.5, "eval_a_runtime": 9.0, "eval_b_samples_per_second": 8.0}
    write_rows(folder / "history.jsonl", [{"step": 60, "loss": 3.0}, {"step": 60, **logged}])
    lines = [line.split()[0] for line in look(folder).splitlines()[3:]]
    assert lines[:4] == ["train/loss", "eval/a_loss", "eval/b_loss", "loss"]
    assert not any("runtime" in line or "second" in line for line in lines)


def test_a_run_under_way_says_how_long_it_takes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", steps=60)
    (folder / "emo_run.json").write_text(json.dumps({"total_steps": 60_060}))
    assert "| step 60 of 60,060 | 0.01 s per step | 10 min left" in look(folder)


def test_a_run_that_is_quiet(tmp_path: Path) -> None:
    folder = write_run(tmp_path, steps=60)
    (folder / "emo_run.json").unlink()
    then = time.time() - 7200
    os.utime(folder / "emo_signals.jsonl", (then, then))
    assert "| step 60 | nothing new for 2.0 h" in look(folder)


def test_it_takes_in_what_is_appended(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, "emosens", 0, steps=5)
    follower = Follower(folder)
    follower.poll()
    assert follower.run.steps == 5
    append(folder / "emo_signals.jsonl", row(6))
    with (folder / "emo_signals.jsonl").open("a") as file:
        file.write(json.dumps(row(7))[:50])  # torn
    append(folder / "history.jsonl", {"step": 6, "loss": 0.5})
    follower.poll()
    assert max(follower.run.series["emo/loss"]) == 6
    assert follower.run.series["train/loss"][6] == 0.5
    with (folder / "emo_signals.jsonl").open("a") as file:
        file.write(json.dumps(row(7))[50:] + "\n")
    follower.poll()
    assert max(follower.run.series["emo/loss"]) == 7


def test_a_resumed_run_starts_over(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, "emosens", 0, steps=9)
    follower = Follower(folder)
    follower.poll()
    write_rows(folder / "part", [row(step, **{"emo/loss": 7.0}) for step in range(1, 12)])
    (folder / "part").replace(folder / "emo_signals.jsonl")
    follower.poll()
    assert follower.run.series["emo/loss"] == dict.fromkeys(range(1, 12), 7.0)
    assert follower.run.series["train/loss"][9] == pytest.approx(1.91)


def test_of_several_runs_the_newest_is_followed(tmp_path: Path) -> None:
    then = time.time() - 100
    for seed in (0, 1):
        for file in write_cell(tmp_path, "emosens", seed).iterdir():
            os.utime(file, (then + seed, then + seed))
    follower = Follower(tmp_path)
    follower.poll()
    assert follower.run.seed == 1
    write_cell(tmp_path, "emosens", 2, steps=3)
    follower.poll()
    assert (follower.run.seed, follower.run.steps) == (2, 3)


def test_warnings(tmp_path: Path) -> None:
    write_rows(tmp_path / "emo_signals.jsonl", [row(step, **{"emo/lr_at_ceiling": 1.0}) for step in range(1, 300)])
    append(tmp_path / "emo_signals.jsonl", {**row(300), "emo/loss": None, "nonfinite": ["emo/loss"]})
    text = " ".join(look(tmp_path).split())
    assert text.count("!! emo/loss was not finite at 1 recorded steps, first at step 300.") == 1
    assert text.count("! At its ceiling in 100% of the steps, the loss falling: raise the multiplier.") == 1
    assert "▁x nan " in text  # in the line of the loss


@pytest.mark.parametrize(
    ("key", "values", "shown"),
    [
        ("emo/lr", [1e-5, 1e-4, 1e-3], "▁▅█"),  # logarithmic
        ("emo/loss", [-1.0, 0.0, 1.0], "▁▅█"),  # has no logarithm
        ("emo/scalar", [-1.0, 0.0, 1.0], "▁▅█"),
        ("emo/scalar", [0.0, 0.1], "▁█"),
        ("emo/noise", [0.5, 0.6], "▅▅"),  # from 0 to 1
        ("emo/ema_gap", [1.0, 1.0], "▅▅"),
        ("emo/ema_gap", [0.0, float("nan"), 1.0], "▁x█"),
        ("emo/ema_gap", [0.0] * 200 + [1.0] * 200, "▁" * 5 + "█" * 5),
        ("emo/ema_gap", [float("nan")], "x"),
    ],
)
def test_sparklines(key: str, values: list[float], shown: str) -> None:
    assert seen(Sparkline(values, METRICS[key]), width=10).strip() == shown


def test_a_terminal_that_knows_ascii_only(tmp_path: Path) -> None:
    follower = Follower(write_run(tmp_path))
    follower.poll()
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=file, width=80).print(View(follower))
    file.flush()
    assert b"#" in file.buffer.getvalue()


def test_what_cannot_be_watched(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    with pytest.raises(RecordError, match="is no folder"):
        watch(tmp_path / "nothing", console)
    with pytest.raises(RecordError, match="holds no step yet"):
        watch(tmp_path, console, once=True)
    (tmp_path / "emo_signals.jsonl").write_text("nonsense\n")
    with pytest.raises(RecordError, match="line 1"):
        watch(tmp_path, console, once=True)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(write_run(tmp_path / "out")), "--once"]) == 0
    assert "step 60 of 60 | finished" in capsys.readouterr().out
    assert main(["watch", str(tmp_path / "nothing")]) == 2


LIVE = """
import sys
from pathlib import Path
from rich.console import Console
from emo_hf.dashboards.watch import watch
watch(Path(sys.argv[1]), Console(width=80))
"""


@pytest.mark.parametrize("by", ["q", "a signal"])
def test_live_until_it_is_left(by: str, alone, tmp_path: Path) -> None:
    """In a terminal of its own: it waits, shows what comes, and leaves the last view behind."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(alone(LIVE, tmp_path), stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    try:
        until(ours, "Waiting for the first step")
        write_cell(tmp_path, "emosens", 3, steps=5)
        until(ours, "step 5 of 5 | finished")
        if by == "q":
            os.write(ours, b"q")
        else:
            process.send_signal(signal.SIGINT)
        until(ours, "\x1b[?1049l")  # the end of the alternate screen
        until(ours, "step 5 of 5")
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def until(terminal: int, text: str) -> None:
    """Reads a terminal up to a text."""
    shown, end = b"", time.monotonic() + 30
    while not shown.endswith(text.encode()):
        assert time.monotonic() < end, shown
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 1)
