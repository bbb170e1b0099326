"""Every claim and its verdict on one page, and the results in the READMEs of the recipes, from the results on record.

    python -m scripts.evidence_page

writes ``docs/evidence.md`` anew, and what stands between ``<!-- results: FOLDER -->`` and ``<!-- end -->`` in the
READMEs below ``recipes/``, seen from the current folder. FOLDER is a folder of results, seen from the README's own.
``<!-- lines: FOLDER -->`` does the same for a folder that holds several of them whose rules are the same. A test
compares the pages with what is there. Their words are in ``scripts/templates``.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from emo_hf.lab.analysis import comparison
from emo_hf.lab.analysis.comparison import RECIPE, Comparison
from emo_hf.lab.report import templating
from emo_hf.lab.report.comparison_text import COLUMNS
from emo_hf.lab.report.templating import count
from scripts.marked import between

RECIPES, PAGE, TEMPLATES = Path("recipes"), Path("docs/evidence.md"), Path(__file__).parent / "templates"
RESULTS, LINES = between("results"), between("lines")
ANSWERS = ("not reproduced", "inconclusive", "reproduced")
PICTURES = {  # in a folder of results, and what they show
    "loss": "Training and validation loss",
    "basin": "The final value over the learning rate",
    "differences": "Differences to the baseline, seed by seed",
    "trajectory": "The path of the classifier's weights in a plane",
}


def comparisons() -> dict[Path, Comparison]:
    """Returns the comparisons below `RECIPES` that decide a claim, by their folders: what failed comes first."""
    recorded = {path.parent: comparison.read(path.parent) for path in RECIPES.rglob(f"results/**/{RECIPE}")}
    judged = {folder: one for folder, one in recorded.items() if one.recipe.rule}
    return dict(sorted(judged.items(), key=lambda item: (ANSWERS.index(item[1].verdict.answer), str(item[0]))))


def page(judged: dict[Path, Comparison]) -> str:
    """Returns the page of all claims; `judged`: by their folders."""
    entries = [
        {
            **_facts(one, f"../{folder.as_posix()}"),
            "n": min(line.estimate.n for line in one.verdict.lines),
            "family": folder.relative_to(RECIPES).parts[0],
        }
        for folder, one in judged.items()
    ]
    counts = Counter(entry["verdict"].answer for entry in entries)
    return _render("evidence", entries=entries, counts=counts)


def _facts(one: Comparison, place: str) -> dict[str, Any]:
    """Returns what ``verdict.md.jinja`` shows of a comparison; `place` leads to its folder."""
    verdict = one.verdict
    parts = {"rule": verdict.lines, "secondary": verdict.secondary}
    lines = {f"{part} {number}": line for part, of_part in parts.items() for number, line in enumerate(of_part, 1)}
    return {"comparison": one, "verdict": verdict, "lines": lines, "cost": cost(one), "place": place}


def cost(one: Comparison) -> str:
    """Returns the time that the runs trained, summed, as a sentence."""
    minutes = round(sum(run.get("seconds") or 0.0 for run in one.runs) / 60)
    about = f"About {count(minutes, 'minute')}" if minutes else "Less than a minute"
    machines = dict.fromkeys(map(_machine, one.environments))
    return f"{about} of training, {count(len(one.runs), 'run')}, each on {' or '.join(machines)}."


def _machine(environment: dict[str, Any]) -> str:
    if environment["device"] != "cpu":
        return str(environment["device"])
    return count(environment["cpu_threads"], "CPU thread")


def filled(text: str, folder: Path) -> str:
    """Returns a README of `folder` with its results written anew."""

    def results(match: re.Match[str]) -> str:
        one = comparison.read(folder / match[2])
        judged = one.recipe.judged
        published = one.recipe.published.values.get(judged, {}) if one.recipe.published else {}
        metrics = list(dict.fromkeys([judged, "eval_loss"]))
        first, *others = (COLUMNS.get(metric, metric) for metric in (*metrics, "step_size_median"))
        head = ["arm", "n", first, *(["published"] if published else []), *others, "tuning"]
        pictures = {name: PICTURES[name] for name in PICTURES if (folder / match[2] / f"{name}.png").exists()}
        facts = _facts(one, match[2])
        block = _render("results", **facts, head=head, metrics=metrics, published=published, pictures=pictures)
        return match[1] + block + match[3]

    def lines(match: re.Match[str]) -> str:
        return match[1] + _table_of_lines(folder / match[2]) + match[3]

    return LINES.sub(lines, RESULTS.sub(results, text))


def _table_of_lines(folder: Path) -> str:
    """Returns the estimates of all lines with ``best_of``, in percent, of the comparisons in `folder`."""
    judged = {path.parent.name: comparison.read(path.parent) for path in sorted(folder.glob(f"*/{RECIPE}"))}
    titles, rows = [], {}
    for name, one in judged.items():
        lines = [*one.recipe.rule, *one.recipe.secondary]
        titles = [each.best_of if each.arm == one.recipe.baseline else f"{each.arm}: {each.best_of}" for each in lines]
        verdict = one.verdict
        rows[name] = [*verdict.lines, *verdict.secondary]
    return _render("lines", titles=titles, rows=rows)


def readmes(folder: Path = RECIPES) -> list[Path]:
    """Returns the READMEs that hold results."""
    return [path for path in sorted(folder.rglob("README.md")) if RESULTS.search(path.read_text(encoding="utf-8"))]


def _render(name: str, **values: Any) -> str:
    return templating.environment(templating.plain, TEMPLATES).get_template(f"{name}.md.jinja").render(values)


def main() -> None:
    """Writes the page and the READMEs."""
    PAGE.write_text(page(comparisons()), encoding="utf-8")
    for path in readmes():
        path.write_text(filled(path.read_text(encoding="utf-8"), path.parent), encoding="utf-8")


if __name__ == "__main__":
    main()
