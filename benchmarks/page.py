"""Writes the tables of docs/speed.md from the files of a folder.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. NAME is that of a file with the table in it, or
``steps`` or ``steps-without-cpp``: all files of `benchmarks.steps` in one table, with the C++ kernel or without.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.figure import target

PAGE = Path("docs/speed.md")
BLOCK = re.compile(r"(<!-- table: (\S+) -->\n\n).*?(\n\n<!-- end -->)", re.DOTALL)
COLUMNS = {
    "gpt2-small-float32": "GPT-2 small",
    "gpt2-small-bfloat16": "GPT-2 small, bfloat16",
    "gpt2-mini-float32": "GPT-2 mini",
    "lora-float32": "LoRA",
    "lora-bfloat16": "LoRA, bfloat16",
}
MAIN = "gpt2-small"


def fill(folder: Path) -> None:
    """Writes the page with the tables of `folder`."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), folder), encoding="utf-8")
    print(PAGE)


def filled(text: str, folder: Path) -> str:
    """Returns a page with the tables of `folder`."""

    def block(match: re.Match[str]) -> str:
        name = match[2]
        if name in ("steps", "steps-without-cpp"):
            return match[1] + steps(folder, name.removeprefix("steps")) + match[3]
        return match[1] + json.loads((folder / f"{name}.json").read_text())["table"] + match[3]

    return BLOCK.sub(block, text)


def steps(folder: Path, suffix: str = "") -> str:
    """Returns a row for each optimizer and a column of ratios for each file."""
    paths = {name: folder / f"steps-{name}{suffix}.json" for name in COLUMNS}
    columns = {
        name: {row["name"]: row for row in json.loads(path.read_text())["rows"]}
        for name, path in paths.items()
        if path.exists()
    }
    main = next(rows for name, rows in columns.items() if name.startswith(MAIN))
    head = ["step time", *(COLUMNS[name] for name in columns), "target", "state / parameters", "temporaries, MB"]
    lines = [head, ["---"] * len(head)]
    for name, row in main.items():
        limit = target(MAIN, name)
        ratios = [_ratio(rows.get(name)) for rows in columns.values()]
        rest = ["" if limit is None else f"{limit:.2f}", f"{row['state']:.2f}", f"{row['temporary_mb']:.1f}"]
        lines.append([name, *ratios, *rest])
    probes = [[row["probe_ms"] for row in rows.values()] for rows in columns.values()]
    spans = [f"{min(times):.0f} to {max(times):.0f}" for times in probes]
    lines.append(["copy of 512 MB, ms", *spans, "", "", ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratio(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['ratio']:.2f}"
