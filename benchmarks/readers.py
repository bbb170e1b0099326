"""What it costs to read a long record: time and peak memory, each in a process of its own.

python -m benchmarks.readers                 a million rows
python -m benchmarks.readers --rows 100000
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEYS = (
    *("loss", "ema_short", "ema_medium", "ema_long", "ema_gap", "scalar", "scalar_min", "scalar_max", "trust"),
    *("trust_abs", "lr", "lr_min", "lr_max", "pulse", "drift", "noise", "distance", "snr", "snr_now", "lr_at_ceiling"),
    *("lr_at_floor", "stop_margin_snr", "stop_margin_loss", "stop_share", "stop_count", "step_seconds"),
)
WORK = {  # what is measured, of the folder FOLDER; REPEATED: what comes after a first look
    "report": "from emo_hf.cli import main; main(['report', FOLDER, '-o', FOLDER + '/report.html'])",
    "watch": """
from pathlib import Path; from rich.console import Console
from emo_hf.dashboards.watch import Follower, View
console, follower = Console(file=open("/dev/null", "w"), width=100, height=40), Follower(Path(FOLDER))
follower.poll(); console.print(View(follower))
REPEATED
with open(FOLDER + "/emo_signals.jsonl", "rb+") as file:
    file.seek(-2000, 2); line = file.read().splitlines()[-1]
    step = int(line.split(b": ")[1].split(b",")[0])
    file.write(line.replace(b"%d" % step, b"%d" % (step + 1), 1) + b"\\n")
begun = time.perf_counter(); follower.poll(); console.print(View(follower))
""",
    "end of a training": """
from emo_hf.dashboards import jsonl; from emo_hf.dashboards.window import summarize; from pathlib import Path
summarize(jsonl.iterate(Path(FOLDER, "emo_signals.jsonl")))
""",
    "rewind": "from emo_hf.dashboards.jsonl import rewind; from pathlib import Path; "
    "rewind(Path(FOLDER, 'emo_signals.jsonl'), ROWS // 2)",
}
SCRIPT = """
import os, resource, sys, time
FOLDER, ROWS = sys.argv[1], int(sys.argv[2])
begun = time.perf_counter()
WORK
seconds = time.perf_counter() - begun
print("measured", seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def write(folder: Path, rows: int) -> None:
    """Writes a record of so many rows, with values of full length."""
    with (folder / "emo_signals.jsonl").open("w") as file:
        for step in range(1, rows + 1):
            values = {f"emo/{key}": (1 + (step * (place + 7)) % 9973) / 9973 for place, key in enumerate(KEYS)}
            file.write(json.dumps({"step": step, **values}) + "\n")
    settings = {"emo_optimizer": "emosens", "emo_version": "3.9", "seed": 0, "total_steps": rows}
    (folder / "emo_run.json").write_text(json.dumps(settings))


def measure(work: str, folder: Path, rows: int) -> list[tuple[str, float, float]]:
    """Returns what was measured, its seconds and its peak memory in bytes."""
    found = []
    begun = time.perf_counter()
    script = SCRIPT.replace("WORK", WORK[work].replace("REPEATED", ""))
    done = subprocess.run([sys.executable, "-c", script, str(folder), str(rows)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    whole = time.perf_counter() - begun
    seconds, peak = map(float, done.stdout.splitlines()[-1].split()[1:])
    found.append((f"{work}, with the start of Python", whole, peak))
    if "REPEATED" in WORK[work]:
        found.append((f"{work}, a refresh after a new row", seconds, peak))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures what it costs to read a long record.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), rows)
        size = (Path(name) / "emo_signals.jsonl").stat().st_size
        print(f"{rows:,} rows, {size / 1e6:,.0f} MB\n| what | seconds | peak memory, MB |\n|---|---|---|")
        for work in WORK:
            for what, seconds, peak in measure(work, Path(name), rows):
                print(f"| {what} | {seconds:.2f} | {peak / 1e6:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
