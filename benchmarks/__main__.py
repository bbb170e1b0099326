"""``python -m benchmarks PART ...`` measures one part, prints its table and keeps it as JSON.

``all`` is every part on a quiet CPU, some half an hour; ``figure`` draws what the folder holds, and ``page`` puts its
tables into docs/speed.md.
"""

import argparse
import json
import os
import platform
import re
from argparse import Namespace
from pathlib import Path

import torch

from benchmarks import gpu, measuring, mechanism, precision, scaling, steps, trainer
from benchmarks.models import MODELS
from emo_hf.kernels import native

PARTS = {
    "steps": steps,
    "measuring": measuring,
    "scaling": scaling,
    "mechanism": mechanism,
    "trainer": trainer,
    "precision": precision,
    "gpu": gpu,
}
ALL = (
    {"part": "steps", "model": "lora", "dtype": "float32"},
    {"part": "steps", "model": "lora", "dtype": "bfloat16"},
    {"part": "steps", "model": "gpt2-mini", "dtype": "float32"},
    {"part": "steps", "model": "gpt2-small", "dtype": "bfloat16"},
    {"part": "steps", "model": "gpt2-small", "dtype": "float32", "compile": True, "others": True},
    {"part": "measuring"},
    {"part": "scaling"},
    {"part": "mechanism"},
    {"part": "trainer"},
    {"part": "precision"},
)


def machine(device: str) -> dict[str, str | int | float | bool]:
    """Returns what the ratios depend on."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),  # of the last minute: who else was there
        "cpp_kernel": native.library(build=device == "cpu") is not None,
    }


def run(options: Namespace) -> None:
    """Runs one part and writes its file."""
    if options.only:  # a part of a part: it keeps its rows by itself
        gpu.run(options)
        return
    result = {"part": options.part, "machine": machine(options.device), **PARTS[options.part].run(options)}
    options.out.mkdir(parents=True, exist_ok=True)
    name = "-".join((options.part, options.model, options.dtype) if options.part == "steps" else (options.part,))
    if options.part != "gpu" and options.device == "cpu" and not result["machine"]["cpp_kernel"]:
        name += "-without-cpp"
    (options.out / f"{name}.json").write_text(json.dumps(result, indent=1))
    print(result["table"], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "figure", "page", "all"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder of the JSON files")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--model", default="gpt2-small", choices=MODELS, help="steps")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="steps: our compiled rules too")
    parser.add_argument("--others", action="store_true", help="steps: the optimizers of other packages too")
    parser.add_argument("--model-dir", type=Path, help="gpu: a folder with all-MiniLM-L6-v2")
    parser.add_argument("--data-dir", type=Path, help="gpu: a folder with TREC's two files")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # gpu: this part of it, in this process
    parser.add_argument("--limit", type=float, default=600, help=argparse.SUPPRESS)
    parser.add_argument("--largest", type=float, default=1e9, help="scaling: parameters; 1e9 takes 17 GB of memory")
    options = parser.parse_args()
    if options.part in PARTS:
        return run(options)
    from benchmarks import figure, page  # need matplotlib

    if options.part == "page":
        return page.fill(options.out)
    if options.part == "all":
        for changes in ALL:
            run(Namespace(**{**vars(options), **changes}))
    figure.draw(options.out)


if __name__ == "__main__":
    main()
