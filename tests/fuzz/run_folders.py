"""Damages a good comparison in many ways, and counts what the commands that read it do:

    python -m tests.fuzz.run_folders            every damage: minutes
    python -m tests.fuzz.run_folders --some 300 as many of them, spread evenly

A damage is one file with other bytes, one JSON value of another type, one key or line or column less. A command may
refuse a file (exit code 2, one message) or make do without it; a traceback is a fault of ours. The same damages are
made each time.
"""

import argparse
import contextlib
import gzip
import io
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ARM, RUN = "emosens", "emosens/seed0"
FOREIGN = {  # whole contents
    "empty": b"",
    "not UTF-8": b"\xff\xfe\x00{",
    "zeros": b"\0" * 64,
    "text": b"these are notes\nof mine\n",
    "null": b"null\n",
    "number": b"3\n",
    "list": b"[]\n",
    "list of lists": b"[[1]]\n",
    "object": b"{}\n",
    "deep": b"[" * 100_000 + b"\n",
    "long number": b'{"step": ' + b"9" * 5000 + b"}\n",
}
VALUES: tuple[Any, ...] = (None, "x", -1, 10**400, 1e308, 2.5, True, [], [1], {}, {"a": 1}, "\x1b[2J", float("nan"))


class Damage(NamedTuple):
    """One file with other content."""

    file: str
    what: str
    content: bytes


def of_json(file: str, content: Any) -> Iterator[Damage]:
    """Yields every value replaced by others, and every key left out."""
    for way in _ways(content):
        for value in VALUES:
            yield Damage(file, f"{way} = {value!r:.20}", json.dumps(_replaced(content, way, value)).encode())
        if isinstance(way[-1], str):
            yield Damage(file, f"without {way}", json.dumps(_without(content, way)).encode())


def of_lines(file: str, text: str) -> Iterator[Damage]:
    """Yields the damages of the first, a middle and the last row of a JSONL file, and torn ones."""
    lines = text.splitlines()
    for at in sorted({0, len(lines) // 2, len(lines) - 1}):
        for damage in of_json(file, json.loads(lines[at])):
            changed = [*lines[:at], damage.content.decode(), *lines[at + 1 :]]
            yield Damage(file, f"line {at + 1}: {damage.what}", "\n".join([*changed, ""]).encode())
        for name, content in FOREIGN.items():
            changed = [line.encode() for line in lines]
            changed[at] = content.rstrip(b"\n")
            yield Damage(file, f"line {at + 1}: {name}", b"\n".join([*changed, b""]))
    yield Damage(file, "a torn last line", text.encode()[:-20])


def of_table(file: str, content: bytes) -> Iterator[Damage]:
    """Yields a compressed CSV file with a column less, and other cells."""
    head, *rows = [line for line in gzip.decompress(content).decode().splitlines() if not line.startswith("#")]
    names = head.split(",")
    cells = [row.split(",") for row in rows]
    for place, name in enumerate(names):
        table = [names, *cells]
        less = [row[:place] + row[place + 1 :] for row in table]
        yield Damage(file, f"without {name}", _table(less))
        for value in ("", "x", "-1", "1e400", "inf", "nan", "2.5", "9" * 30, "\x1b[2J"):
            for some in (cells, cells[:1]):
                changed = [[*row[:place], value, *row[place + 1 :]] for row in some]
                table = _table([names, *changed, *cells[len(some) :]])
                yield Damage(file, f"{name} = {value[:9]!r} in {len(some)}", table)
    yield Damage(file, "no row", _table([names]))
    yield Damage(file, "half", content[: len(content) // 2])
    for name, raw in FOREIGN.items():
        yield Damage(file, f"compressed: {name}", gzip.compress(raw))


def _table(rows: list[list[str]]) -> bytes:
    return gzip.compress("".join(",".join(row) + "\n" for row in rows).encode(), mtime=0)


def _ways(content: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content[:2])
    for key, value in items:
        yield (*way, key)
        if isinstance(value, dict | list):
            yield from _ways(value, (*way, key))


def _replaced(content: Any, way: tuple[Any, ...], value: Any) -> Any:
    copied = json.loads(json.dumps(content))
    inner = copied
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] = value
    return copied


def _without(content: Any, way: tuple[Any, ...]) -> Any:
    copied = json.loads(json.dumps(content))
    inner = copied
    for key in way[:-1]:
        inner = inner[key]
    del inner[way[-1]]
    return copied


def make(folder: Path) -> tuple[Path, Path]:
    """Writes a good comparison, with what a training of one's own leaves in one of its runs, and its report."""
    from emo_hf import cli
    from tests.dashboards.recorded_runs import row, write_run, write_state
    from tests.lab import made_up_runs

    place = made_up_runs.write(folder / "runs", made_up_runs.recipe(), data_dir=folder)
    write_run(place / RUN, steps=30)
    write_state(place / RUN / "checkpoint-20/trainer_state.json", steps=20)
    assert row(1)
    with _quiet():
        assert cli.main(["report", str(place), "-o", str(folder / "results")]) == 0
    return place, folder / "results"


def damages(place: Path, results: Path) -> Iterator[tuple[Damage, list[list[str]]]]:
    """Yields each damage, and the commands that read the file."""
    out = str(place.parent / "out")
    of_run = [["report", str(place / RUN), "-o", f"{out}.html"], ["watch", str(place / RUN), "--once"]]
    of_place = [["report", str(place), "-o", out], ["card", str(place / ARM), "-f", "-o", f"{out}.md"]]
    of_results = [["report", str(results), "-o", out], ["card", str(results), "--arm", ARM, "-f", "-o", f"{out}.md"]]
    of_results.append(["plot", "differences", str(results), "-o", f"{out}.png"])
    of_table = [["plot", name, str(results), "-o", f"{out}.png"] for name in ("loss", "fluctuation")]
    run_files = [
        "emo_signals.jsonl",
        "history.jsonl",
        "emo_run.json",
        "trainer_state.json",
        "env.json",
        "summary.json",
    ]
    for name in run_files:
        commands = of_run if name.startswith(("emo", "trainer")) else [*of_run, *of_place]
        commands = of_place if name in ("env.json", "summary.json") else commands
        yield from ((damage, commands) for damage in _all(place, f"{RUN}/{name}"))
    other = place / RUN.replace("seed0", "seed1")
    (other / "trainer_state.json").write_bytes((place / RUN / "trainer_state.json").read_bytes())
    alone = [["report", str(other / "trainer_state.json"), "-o", f"{out}.html"]]
    yield from ((damage, alone) for damage in _all(place, "emosens/seed1/trainer_state.json"))
    for name in ("runs.jsonl", "report.json"):
        yield from ((damage, of_results) for damage in _all(results, name))
    for raw, what in ((content, name) for name, content in FOREIGN.items()):
        yield Damage(f"{RUN}/trajectory.npz", what, raw), of_place[:1]
        yield Damage(f"{RUN}/config.yaml", what, raw), [*of_run, *of_place]
        yield Damage(f"{RUN}/log.txt", what, raw), of_place
        yield Damage("recipe.yaml", what, raw), of_place
    yield from ((damage, of_table) for damage in _all(results, "curves.csv.gz"))
    planes = [["plot", "trajectory", str(results), "-o", f"{out}.png"]]
    yield from ((damage, planes) for damage in _all(results, "trajectory.csv.gz"))


def _all(folder: Path, name: str) -> Iterator[Damage]:
    path = folder / name
    content = path.read_bytes()
    yield from (Damage(str(path), what, raw) for what, raw in FOREIGN.items())
    yield Damage(str(path), "cut", content[: len(content) // 2])
    if name.endswith(".csv.gz"):
        yield from of_table(str(path), content)
    elif name.endswith(".jsonl"):
        yield from of_lines(str(path), content.decode())
    else:
        yield from of_json(str(path), json.loads(content))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def outcome(command: list[str], main: Callable[[list[str]], int]) -> tuple[str, str]:
    """Returns how a command ended ("code 2", or the error), and the last line of ours that a traceback names."""
    try:
        with _quiet():
            return f"code {main(command)}", ""
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "emo_hf/" in frame.filename]
        last = frames[-1]
        return type(error).__name__, f"emo_hf/{last.filename.rpartition('emo_hf/')[2]}:{last.lineno}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Counts tracebacks of damaged run folders.")
    parser.add_argument("--some", type=int, help="so many damages, spread evenly (default: all)")
    some = parser.parse_args().some
    from emo_hf import cli

    ends, places, examples, slowest = Counter[str](), Counter[str](), {}, (0.0, "")
    with tempfile.TemporaryDirectory() as name:
        place, results = make(Path(name))
        found = list(damages(place, results))
        chosen = found if some is None else found[:: max(1, len(found) // some)]
        for damage, commands in chosen:
            path = place / damage.file
            good = path.read_bytes()
            path.write_bytes(damage.content)
            for command in commands:
                begun = time.perf_counter()
                end, where = outcome(command, cli.main)
                slowest = max(
                    slowest, (time.perf_counter() - begun, f"{' '.join(command[:2])}: {path.name}, {damage.what}")
                )
                ends[end] += 1
                if where:
                    places[where] += 1
                    examples.setdefault(where, f"{end}: {' '.join(command[:1])} of {path.name}, {damage.what}")
            path.write_bytes(good)
            shutil.rmtree(place.parent / "out", ignore_errors=True)
    tracebacks = sum(places.values())
    sys.stdout.write(f"{len(chosen)} damages, {sum(ends.values())} commands: {dict(ends.most_common())}\n")
    sys.stdout.write(f"{tracebacks} tracebacks at {len(places)} places; slowest {slowest[0]:.1f} s ({slowest[1]})\n")
    for where, count in places.most_common():
        sys.stdout.write(f"  {count:5} {where}  {examples[where]}\n")
    return 1 if tracebacks else 0


if __name__ == "__main__":
    sys.exit(main())
