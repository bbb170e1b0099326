"""Step times as bars, the numbers beside them, with the targets; one picture per file of `benchmarks.steps`."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TEXT = 9.5

FAMILIES = {  # the targets' rows
    "adam": ("EmoSens 3.9", "EmoNavi 3.6"),
    "lion": ("EmoCats 3.9", "EmoLynx 3.6"),
    "momentum": ("EmoTion 3.9",),
    "sign": ("EmoAiry 3.9", "EmoFact 3.6", "EmoVoid 3.9"),
    "factored": ("EmoFact 3.1", "EmoAiry 2.0"),
}
TARGETS = {  # ratio to torch's fused AdamW; without a compiler, and compiled
    "gpt2-small": {"adam": 1.0, "lion": 1.15, "momentum": 1.3, "sign": 0.95, "factored": 1.2},
    "gpt2-small compiled": {"lion": 0.9, "momentum": 0.95, "sign": 0.6},
    "gpt2-mini": {"adam": 1.0, "lion": 1.2, "sign": 0.7},
    "lora": {"adam": 0.6, "lion": 1.0, "sign": 0.55},
}


def target(model: str, name: str) -> float | None:
    """Returns the target of a row of the table, if it has one."""
    plain = name.removesuffix(" compiled")
    family = next((family for family, names in FAMILIES.items() if plain in names), None)
    return TARGETS.get(model + name[len(plain) :], {}).get(family)


def draw(folder: Path) -> None:
    """Draws each ``steps-*.json`` of a folder beside it."""
    paths = sorted(folder.glob("steps-*.json"))
    if not paths:
        raise SystemExit(f"No steps-*.json in {folder}: run `python -m benchmarks steps --out {folder}` first.")
    for path in paths:
        result = json.loads(path.read_text())
        figure, axis = plt.subplots(figsize=(7.5, 0.26 * len(result["rows"]) + 1.4), layout="constrained")
        _panel(axis, result)
        figure.savefig(path.with_suffix(".png"), dpi=110)
        plt.close(figure)
        print(path.with_suffix(".png"))


def _panel(axis: Any, result: dict[str, Any]) -> None:
    rows, machine = result["rows"][::-1], result["machine"]
    ours = [row["name"].startswith("Emo") for row in rows]
    axis.barh(
        [row["name"] for row in rows],
        [row["ratio"] for row in rows],
        color=["tab:blue" if own else "lightgray" for own in ours],
    )
    for y, row in enumerate(rows):
        beside = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "center"}
        axis.text(1.09, y, f"{row['ratio']:.2f}", fontsize=TEXT, **beside)
        limit = target(result["model"], row["name"])
        if limit is not None:
            axis.plot([limit, limit], [y - 0.45, y + 0.45], color="tab:red", linewidth=2)
    axis.margins(y=0.01)
    axis.axvline(1, color="black", linewidth=0.7)
    axis.set_xscale("log")
    axis.set_xlim(min(0.1, *(row["ratio"] * 0.8 for row in rows)), max(2.0, *(row["ratio"] * 1.3 for row in rows)))
    axis.set_xticks([x for x in (0.1, 0.2, 0.5, 1, 2, 5, 10) if axis.get_xlim()[0] <= x <= axis.get_xlim()[1]])
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.tick_params(labelsize=TEXT)
    kernel = "C++ kernel" if machine.get("cpp_kernel") else "torch's kernels"
    axis.set_xlabel("step time over that of torch's fused AdamW; red: what was aimed at", fontsize=TEXT)
    axis.set_title(
        f"{result['model']}, {result['dtype']}\n"
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}, {kernel}",
        fontsize=TEXT,
    )
