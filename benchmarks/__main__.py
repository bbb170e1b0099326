"""``python -m benchmarks [steps|scaling|trainer|precision] ...``: prints a table, keeps it as JSON."""

import argparse
import json
import platform
import re
from pathlib import Path

import torch

from benchmarks import precision, scaling, steps, trainer

PARTS = {"steps": steps, "scaling": scaling, "trainer": trainer, "precision": precision}


def machine(device: str) -> dict[str, str | int]:
    """Returns what the ratios depend on."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder of the JSON file")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--model", default="gpt2-small", help="steps: gpt2-small, gpt2-mini or lora")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="steps: our compiled rules too")
    parser.add_argument("--others", action="store_true", help="steps: the optimizers of other packages too")
    options = parser.parse_args()
    result = {"part": options.part, "machine": machine(options.device), **PARTS[options.part].run(options)}
    options.out.mkdir(parents=True, exist_ok=True)
    name = "-".join((options.part, options.model, options.dtype) if options.part == "steps" else (options.part,))
    (options.out / f"{name}.json").write_text(json.dumps(result, indent=1))
    print(result["table"])


if __name__ == "__main__":
    main()
