import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from emo_hf.dashboards import Recorder, read_signals
from emo_hf.dashboards.jsonl import rewind, write_whole
from emo_hf.errors import RecordError


def record(folder: Path, make, steps: range, **options) -> None:
    recorder = Recorder(folder, 100, **options)
    for step in steps:
        recorder.write(step, make(loss=float(step)))
    recorder.close()


def steps_in(path: Path) -> list[int]:
    return [row["step"] for row in read_signals(path)]


def test_rows_are_exact_and_on_disk_at_once(tmp_path: Path, make) -> None:
    recorder = Recorder(tmp_path / "new" / "folder", 100)
    signals = make(lr=0.1 + 0.2, pulse=1e-300)
    recorder.write(1, signals)
    (row,) = read_signals(tmp_path / "new" / "folder" / "emo_signals.jsonl")
    assert recorder.path == tmp_path / "new" / "folder" / "emo_signals.jsonl"
    assert row["step"] == 1
    assert signals.log().items() <= row.items()
    recorder.close()


def test_strict_json_with_nonfinite_values(tmp_path: Path, make) -> None:
    recorder = Recorder(tmp_path, 10)
    recorder.write(1, make(loss=float("nan"), ema_short=float("inf")))
    recorder.close()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads((tmp_path / "emo_signals.jsonl").read_text(), parse_constant=refuse)
    assert row["nonfinite"] == ["emo/loss", "emo/ema_short"]
    assert "emo/loss" not in row


def test_windows_and_a_last_partial_one(tmp_path: Path, make) -> None:
    recorder = Recorder(tmp_path, 12_000)  # three steps per row
    for step in range(1, 8):
        recorder.write(step, make(loss=float(step)))
    assert steps_in(recorder.path) == [3, 6]
    recorder.close()
    assert [(row["step"], row["emo/loss"]) for row in read_signals(recorder.path)] == [(3, 2.0), (6, 5.0), (7, 7.0)]


def test_flush_writes_a_window_that_is_not_full(tmp_path: Path, make) -> None:
    recorder = Recorder(tmp_path, 12_000)
    for step in range(1, 6):
        recorder.write(step, make(ready=1.0))
        if step == 4:
            recorder.flush()
    recorder.close()
    recorder = Recorder(tmp_path, 12_000, start_step=4, resume=True)
    for step in range(5, 8):
        recorder.write(step, make(ready=1.0))
    recorder.close()
    assert [(row["step"], row["emo/stop_count"]) for row in read_signals(recorder.path)] == [(3, 3), (4, 4), (7, 7)]


def test_another_run_is_moved_aside(tmp_path: Path, make) -> None:
    for steps in (range(1, 4), range(1, 3), range(1, 2)):
        record(tmp_path, make, steps)
    assert steps_in(tmp_path / "emo_signals.1.jsonl") == [1, 2, 3]
    assert steps_in(tmp_path / "emo_signals.2.jsonl") == [1, 2]
    assert steps_in(tmp_path / "emo_signals.jsonl") == [1]


def test_an_empty_file_is_used(tmp_path: Path, make) -> None:
    (tmp_path / "emo_signals.jsonl").touch()
    record(tmp_path, make, range(1, 3))
    assert sorted(os.listdir(tmp_path)) == ["emo_run.json", "emo_signals.jsonl"]


def test_resume_rewinds_and_keeps_what_is_cut(tmp_path: Path, make) -> None:
    path = tmp_path / "emo_signals.jsonl"
    record(tmp_path, make, range(1, 8))
    before = path.read_bytes()
    record(tmp_path, make, range(5, 7), start_step=4, resume=True)
    lines = before.splitlines(keepends=True)
    assert path.read_bytes().startswith(b"".join(lines[:4]))
    assert steps_in(path) == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "emo_signals.after-4.1.jsonl").read_bytes() == b"".join(lines[4:])
    record(tmp_path, make, range(5, 6), start_step=4, resume=True)
    assert steps_in(tmp_path / "emo_signals.after-4.2.jsonl") == [5, 6]
    assert steps_in(path) == [1, 2, 3, 4, 5]
    assert len(os.listdir(tmp_path)) == 4  # no temporary file stays


@pytest.mark.parametrize("start", [3, 9])
def test_resume_at_or_after_the_end_cuts_nothing(tmp_path: Path, make, start: int) -> None:
    record(tmp_path, make, range(1, 4))
    record(tmp_path, make, range(start + 1, start + 3), start_step=start, resume=True)
    assert steps_in(tmp_path / "emo_signals.jsonl") == [1, 2, 3, start + 1, start + 2]
    assert sorted(os.listdir(tmp_path)) == ["emo_run.json", "emo_signals.jsonl"]


def test_resume_without_a_file(tmp_path: Path, make) -> None:
    record(tmp_path, make, range(5, 7), start_step=4, resume=True)
    assert steps_in(tmp_path / "emo_signals.jsonl") == [5, 6]


@pytest.mark.parametrize("file", ["backup", "kept rows"])
def test_a_failed_rewind_loses_nothing(tmp_path: Path, make, monkeypatch, file: str) -> None:
    record(tmp_path, make, range(1, 6))
    path = tmp_path / "emo_signals.jsonl"
    before = path.read_bytes()
    synced = []

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == ["backup", "kept rows"].index(file) + 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        rewind(path, 2)
    assert path.read_bytes() == before


@pytest.mark.parametrize("torn", [b'{"step": 4, "emo/lo', b"{", b"\0\0\0", b'{"step": 4}', '{"é'.encode()[:-1]])
def test_a_torn_last_line(tmp_path: Path, make, torn: bytes) -> None:
    path = tmp_path / "emo_signals.jsonl"
    record(tmp_path, make, range(1, 4))
    with path.open("ab") as file:
        file.write(torn)
    assert steps_in(path) == [1, 2, 3]
    record(tmp_path, make, range(4, 6), start_step=3, resume=True)
    assert steps_in(path) == [1, 2, 3, 4, 5]
    assert (tmp_path / "emo_signals.after-3.1.jsonl").read_bytes() == torn


def test_kill_9_leaves_whole_rows(tmp_path: Path, alone) -> None:
    script = """
recorder = Recorder(sys.argv[1], 5000)
for step in range(1, 1_000_000):
    recorder.write(step, signals)
    if step == 50:
        print("go", flush=True)
"""
    with subprocess.Popen(alone(script, tmp_path), stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"go\n"
        process.send_signal(signal.SIGKILL)
    steps = steps_in(tmp_path / "emo_signals.jsonl")
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 50


@pytest.mark.parametrize("line", [b"not json", b"[1]", b'{"emo/lr": 1.0}', b'{"step": "4"}', b"\xff", b""])
def test_a_foreign_line_is_an_error_that_says_where(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "emo_signals.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(RecordError, match=r"emo_signals\.jsonl, line 2: expected a row"):
        read_signals(path)


def test_resume_moves_a_foreign_file_aside(tmp_path: Path, make, caplog) -> None:
    path = tmp_path / "emo_signals.jsonl"
    path.write_text("these are notes\nof mine\n")
    record(tmp_path, make, range(5, 7), start_step=4, resume=True)
    assert steps_in(path) == [5, 6]
    assert (tmp_path / "emo_signals.1.jsonl").read_text() == "these are notes\nof mine\n"
    assert "Starting a new file" in caplog.text


@contextlib.contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file can grow beyond ``size``: the row that crosses it is written in part, then nothing is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("cleared", [False, True])
def test_a_full_disk_is_said_once_and_spoils_no_row(tmp_path: Path, make, caplog, cleared: bool) -> None:
    recorder = Recorder(tmp_path, 100)
    recorder.write(1, make())
    with disk_of(int(2.5 * recorder.path.stat().st_size)):
        for step in range(2, 7):
            recorder.write(step, make())
        assert steps_in(recorder.path) == [1, 2]
    if cleared:
        recorder.write(7, make())
    recorder.close()
    assert steps_in(recorder.path) == ([1, 2, 7] if cleared else [1, 2])
    assert recorder.path.read_bytes().endswith(b"\n")  # no torn line either
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert f"Step 3 cannot be recorded in {recorder.path}" in caplog.text


def test_a_file_that_cannot_be_written_whole_leaves_that_of_before_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_whole(path, b"before")
    with disk_of(100), pytest.raises(OSError) as caught:
        write_whole(path, b"0" * 200)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"x.json": b"before"}
    with pytest.raises(FileNotFoundError, match=r"none/x\.json'"):
        write_whole(tmp_path / "none/x.json", b"")


def test_a_folder_that_cannot_be_made(tmp_path: Path, make, caplog) -> None:
    (tmp_path / "file").touch()
    record(tmp_path / "file", make, range(1, 4))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "The signals cannot be recorded in" in caplog.text
