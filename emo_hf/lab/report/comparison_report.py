"""Writes the report of a comparison: Markdown and HTML for people, JSON for programs, and the numbers behind it.

It depends on nothing but what `emo_hf.lab.analysis.comparison` read: the same files give the same report to the byte.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from emo_hf.dashboards.jsonl import write_whole
from emo_hf.errors import EmoError, RecipeError
from emo_hf.lab.analysis import histories
from emo_hf.lab.analysis.comparison import REPORT, RUNS, Comparison
from emo_hf.lab.analysis.results import ArmResult
from emo_hf.lab.analysis.verdicts import JudgedLine
from emo_hf.lab.report import comparison_text, templating
from emo_hf.run_folder import RECIPE

KIND = "emo-hf comparison"  # marks a report.json as one of these
COLOURS = {"reproduced": "good", "not reproduced": "bad"}  # classes of page.css; "open" for all else


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes all files of a report; returns their paths.

    Raises:
        RecipeError: it would overwrite something else than an earlier report of the same comparison.
    """
    files = _files(comparison, sorted(folder.glob("*.png")))
    old = {name: (folder / name).read_bytes() for name in files if (folder / name).exists()}
    differing = [name for name, content in files.items() if old.get(name, content) != content]
    if differing and not _is_earlier(old.get(REPORT, b""), comparison):
        raise RecipeError(
            f"{folder} holds {', '.join(differing)}, and no report of {comparison.recipe.name} at size"
            f" {comparison.size}: nothing was written. Give another folder by -o."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if old.get(name) != content:
            write_whole(folder / name, content)
    return [folder / name for name in files]


def write_with_pictures(comparison: Comparison, folder: Path) -> tuple[list[Path], EmoError | None]:
    """Writes a report with its curves and their pictures; returns the paths, and what kept it from drawing.

    A report without pictures is still one.

    Raises:
        RecipeError: as `write` does.
    """
    written = write(comparison, folder)  # first: it refuses a folder that holds something else
    try:
        histories.write(comparison, folder)
        from emo_hf.lab import figures  # needs matplotlib

        pictures = figures.draw(folder)
    except EmoError as error:
        return written, error
    return [*write(comparison, folder), *pictures], None  # again, now with the pictures in it


def _is_earlier(content: bytes, comparison: Comparison) -> bool:
    try:
        old = json.loads(content)
        return [old[key] for key in ("kind", "recipe", "size")] == [KIND, comparison.recipe.name, comparison.size]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _files(comparison: Comparison, pictures: list[Path]) -> dict[str, bytes]:
    title, text = f"{comparison.recipe.name} ({comparison.size})", comparison_text.markdown(comparison, pictures)
    colour = COLOURS.get(comparison.verdict.answer or "", "open")
    files = {
        RECIPE: comparison.text,
        RUNS: "".join(json.dumps(run, sort_keys=True) + "\n" for run in comparison.runs),
        "report.md": text,
        "report.html": templating.html(title, text, colour, pictures),
        REPORT: json.dumps(data(comparison), indent=2, allow_nan=False) + "\n",  # last: marks a report
    }
    return {name: content.encode() for name, content in files.items()}


def data(comparison: Comparison) -> dict[str, Any]:
    """Returns the report as JSON can hold it."""
    recipe, verdict = comparison.recipe, comparison.verdict
    return {
        "kind": KIND,
        "recipe": recipe.name,
        "size": comparison.size,
        "claim": recipe.claim,
        "source": recipe.source,
        "caveat": recipe.caveat,
        "verdict": verdict.answer,
        "complete": comparison.complete,
        "lines": [_line(line) for line in verdict.lines],
        "secondary": [_line(line) for line in verdict.secondary],
        "metric": recipe.judged,
        "baseline": recipe.baseline,
        "arms": [_arm(comparison, row) for row in comparison.rows],
        "published": recipe.published.model_dump() if recipe.published else None,
        "failed": [dataclasses.asdict(run) for run in comparison.failed],
        "missing": [{"arm": arm, "seed": seed} for arm, seed in comparison.missing],
        "ignored": comparison.ignored,
        "rule_changes": comparison.rule_changes,
        "command": comparison.full_command,
        "environments": comparison.environments,
    }


def _line(line: JudgedLine) -> dict[str, Any]:
    seeds = {str(seed): value if math.isfinite(value) else None for seed, value in line.seeds.items()}
    content = {"rule": line.words, "verdict": line.answer, "level": line.level, **dataclasses.asdict(line.estimate)}
    return {**content, "seeds": seeds, "notes": line.notes}


def _arm(comparison: Comparison, row: ArmResult) -> dict[str, Any]:
    stats = {metric: row.stat(metric) for metric in comparison.metrics}
    difference, diverged = comparison.difference(row.arm)
    return {
        "arm": row.arm,
        "optimizer": row.optimizer,
        "n": row.n,
        "tuning": row.tuning,
        **{metric: dataclasses.asdict(stat) for metric, stat in stats.items() if stat},
        "difference": {**dataclasses.asdict(difference), "diverged": diverged} if difference else None,
    }
