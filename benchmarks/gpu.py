"""All that a CUDA machine can tell, in one command: ``python -m benchmarks gpu --out DIR``.

    tests       pytest -m cuda
    steps       step time against torch's fused AdamW and against what the memory allows; peak memory
    trainer     what the feed, the mechanism and the record cost in a Trainer
    training    an encoder learns TREC-6 (--model-dir, --data-dir), beside what the recipe recorded on a CPU

Every part is a process of its own with a limit of time, all of them under eight minutes, and ``DIR/gpu.json`` is
written after each. What failed, took too long or is not there says so in its place, beside the rows that were ready.
On a CPU the parts run with small shapes, and the tests not at all.
"""

import json
import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks import gpu_parts

LIMITS = {  # part -> seconds
    "tests": 220,
    "steps-small": 60,
    "steps-large": 70,
    "steps-lora": 35,
    "trainer": 40,
    "training": 50,
}
Row = dict[str, Any]


def run(options: Namespace) -> dict[str, Any]:
    if options.only:
        return alone(options)
    options.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"versions": versions(options.device)}
    for name, seconds in LIMITS.items():
        limit = seconds * (1 if options.device == "cuda" else 10)
        print(f"{name}, at most {limit} s", flush=True)
        result[name] = apart(name, limit, options)
        (options.out / "gpu.json").write_text(json.dumps({"part": "gpu", **result}, indent=1))
        print(table({name: result[name]}), flush=True)
    return {**result, "table": table(result)}


def alone(options: Namespace) -> dict[str, Any]:
    """Runs one part here, and keeps its rows as they come."""
    rows: list[Row] = []
    for row in gpu_parts.PARTS[options.only](options):
        rows.append(row)
        _keep(options.out, options.only).write_text(json.dumps({"rows": rows}, indent=1))
        print(line(options.only, row), flush=True)
    return {"rows": rows, "table": ""}


def apart(name: str, limit: float, options: Namespace) -> dict[str, Any]:
    """Runs a part in a process of its own, and returns its rows and, if it did not end well, why."""
    _keep(options.out, name).unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks", "gpu", "--only", name, "--limit", str(limit)]
    for option in ("out", "device", "rounds", "model_dir", "data_dir"):
        if (value := getattr(options, option)) is not None:
            command += [f"--{option.replace('_', '-')}", str(value)]
    environment = dict(os.environ, TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    if name != "tests":  # of several cards a Trainer would make a DataParallel
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    child = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    )
    try:
        _, errors = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # the processes that it has started too
        child.communicate()
        missing = f"took longer than {limit:.0f} s"
    else:
        last = (errors.strip().splitlines() or ["no word"])[-1][:500]
        missing = "" if child.returncode == 0 else f"ended with {child.returncode}: {last}"
    path = _keep(options.out, name)
    found = json.loads(path.read_text()) if path.exists() else {"rows": []}
    path.unlink(missing_ok=True)
    return {**found, "missing": missing} if missing else found


def _keep(folder: Path, name: str) -> Path:
    return folder / f"gpu-{name}.rows.json"


def versions(device: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "triton": gpu_parts.triton_version(),
        "cuda": torch.version.cuda,
        "cards": torch.cuda.device_count(),
    }
    if device != "cuda":
        return found
    try:
        names = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        found["driver"] = subprocess.run(names, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        found["driver"] = f"unknown: {error}"
    return {**found, "card": torch.cuda.get_device_name()}


# -- table -----------------------------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """Returns everything as one Markdown table."""
    lines = ["| part | what | figures |", "|---|---|---|"]
    for name in LIMITS:
        if name not in result:
            continue
        lines += [line(name, row) for row in result[name]["rows"]]
        if "missing" in result[name]:
            lines.append(f"| {name} | | missing: {result[name]['missing']} |")
    return "\n".join(lines)


def line(name: str, row: Row) -> str:
    what, text = LINES[name.partition("-")[0]](row)
    figures = [text] if text else []
    if "missing" in row:
        figures.append(f"missing: {row['missing']}")
    return f"| {name} | {what} | {'; '.join(figures)} |"


def _tests(row: Row) -> tuple[str, str]:
    failed = f"; {', '.join(row['names'])}" if row.get("names") else ""
    counts = (f"{row[word]} {word}" for word in gpu_parts.OUTCOMES if row.get(word))
    return "pytest -m cuda", ", ".join(counts) + failed


def _steps(row: Row) -> tuple[str, str]:
    text = "{ms:.2f} ms, {ratio:.2f} of AdamW fused, {of_bandwidth:.0%} of bandwidth, memory {peak_of_adamw:.2f}"
    return f"{row['model']}, {row['dtype']}: {row['name']}", "" if "missing" in row else text.format(**row)


def _trainer(row: Row) -> tuple[str, str]:
    return row["name"], "{us:.0f} us, {share:.3%} of a step with AdamW fused".format(**row)


def _training(row: Row) -> tuple[str, str]:
    text = "{steps} steps in {seconds:.0f} s: accuracy {accuracy:.3f}, loss {loss:.3f}; on a CPU, 171 steps: {cpu}"
    return row.get("arm", ""), "" if "missing" in row else text.format(**row)


LINES: dict[str, Callable[[Row], tuple[str, str]]] = {
    "tests": _tests,
    "steps": _steps,
    "trainer": _trainer,
    "training": _training,
}
