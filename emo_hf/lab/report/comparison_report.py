"""The report of a comparison, for people (Markdown, HTML) and for programs (JSON), beside the numbers it rests on.

It holds only what `emo_hf.lab.analysis.comparison` read: the same files give the same report to the byte.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from emo_hf.dashboards.jsonl import write_whole
from emo_hf.errors import EmoError, RecipeError
from emo_hf.lab.analysis import comparison, histories
from emo_hf.lab.analysis.comparison import Comparison
from emo_hf.lab.analysis.results import ArmResult
from emo_hf.lab.analysis.verdicts import Judged
from emo_hf.lab.report import blocks, comparison_text

KIND = "emo-hf comparison"  # what marks a report.json as ours


def write(found: Comparison, folder: Path) -> list[Path]:
    """Writes all files of a report; returns their paths.

    Raises:
        RecipeError: it would overwrite something else than a former report of the same comparison.
    """
    files = _files(found, sorted(folder.glob("*.png")))
    old = {name: (folder / name).read_bytes() for name in files if (folder / name).exists()}
    differing = [name for name, content in old.items() if files.get(name) != content]
    if differing and not _is_former(old.get(comparison.REPORT, b""), found):
        raise RecipeError(
            f"{folder} holds {', '.join(differing)}, and no report of {found.recipe.name} at size {found.size}:"
            " nothing was written. Give another folder by -o."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if old.get(name) != content:
            write_whole(folder / name, content)
    return [folder / name for name in files]


def write_with_pictures(found: Comparison, folder: Path) -> tuple[list[Path], EmoError | None]:
    """Writes a report with its curves and their pictures; returns the paths, and what kept it from drawing.

    A report without pictures is still one.

    Raises:
        RecipeError: as `write` does.
    """
    written = write(found, folder)  # first: it refuses a folder that holds something else
    try:
        histories.write(found, folder)
        from emo_hf.lab import figures  # needs the extra `plot`

        pictures = figures.draw(folder)
    except EmoError as error:
        return written, error
    return [*write(found, folder), *pictures], None  # again, now with the pictures in it


def _is_former(content: bytes, found: Comparison) -> bool:
    try:
        old = json.loads(content)
        return [old[key] for key in ("kind", "recipe", "size")] == [KIND, found.recipe.name, found.size]
    except (ValueError, TypeError, KeyError):
        return False


def _files(found: Comparison, pictures: list[Path]) -> dict[str, bytes]:
    title, text = f"{found.recipe.name} ({found.size})", list(comparison_text.text(found, pictures))
    files = {
        comparison.RECIPE: found.text,
        comparison.RUNS: "".join(json.dumps(run, sort_keys=True) + "\n" for run in found.runs),
        "report.md": blocks.markdown(title, text),
        "report.html": blocks.html(title, text),
        comparison.REPORT: _json(data(found)),  # last: it says that the folder holds this report
    }
    return {name: content.encode() for name, content in files.items()}


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def data(found: Comparison) -> dict[str, Any]:
    """Returns the report as JSON bears it."""
    recipe, verdict = found.recipe, found.verdict
    return {
        "kind": KIND,
        "recipe": recipe.name,
        "size": found.size,
        "claim": recipe.claim,
        "source": recipe.source,
        "caveat": recipe.caveat,
        "verdict": verdict.answer,
        "complete": found.complete,
        "lines": [_line(line) for line in verdict.lines],
        "also": [_line(line) for line in verdict.also],
        "metric": recipe.judged,
        "baseline": recipe.baseline,
        "arms": [_arm(found, row) for row in found.rows],
        "published": recipe.published.model_dump() if recipe.published else None,
        "failed": [dataclasses.asdict(run) for run in found.failed],
        "missing": [{"arm": arm, "seed": seed} for arm, seed in found.missing],
        "ignored": found.ignored,
        "rule_changes": found.rule_changes,
        "command": comparison_text.command(found),
        "environments": found.environments,
    }


def _line(line: Judged) -> dict[str, Any]:
    seeds = {str(seed): value if math.isfinite(value) else None for seed, value in line.seeds.items()}
    content = {"rule": line.words, "verdict": line.answer, "level": line.level, **dataclasses.asdict(line.estimate)}
    return {**content, "seeds": seeds, "notes": line.notes}


def _arm(found: Comparison, row: ArmResult) -> dict[str, Any]:
    stats = {name: row.stat(name) for name in comparison_text.metrics(found)}
    against, diverged = comparison_text.difference(found, row.arm)
    return {
        "arm": row.arm,
        "optimizer": row.optimizer,
        "n": row.n,
        "tuning": row.tuning,
        **{name: dataclasses.asdict(stat) for name, stat in stats.items() if stat},
        "difference": {**dataclasses.asdict(against), "diverged": diverged} if against else None,
    }
