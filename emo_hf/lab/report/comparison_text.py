"""The report of a comparison as Markdown, and the sentences that it shares with the command line."""

from pathlib import Path
from typing import Any

from emo_hf.lab.analysis.comparison import Comparison
from emo_hf.lab.analysis.verdicts import Verdict, oriented
from emo_hf.lab.recipe.rules import METRICS
from emo_hf.lab.report import templating
from emo_hf.lab.report.templating import NONE, interval, number
from emo_hf.run_folder import CLASSES

COLUMNS = {"eval_loss": "eval loss", "step_size_median": "step size (median)", "seconds": "seconds per run"}


def sentence(comparison: Comparison, verdict: Verdict) -> str:
    """Returns the first sentence of the report: the verdict, and what is still missing."""
    if verdict.answer is None:
        return "No verdict: this recipe has no rule."
    size = f"size {comparison.size}, n = {min(line.estimate.n for line in verdict.lines)}"
    if verdict.answer == "not reproduced":
        refuted = [line.answer for line in verdict.lines].count(verdict.answer)
        size += f"; {refuted} of the {len(verdict.lines)} lines of its rule failed"
    text = f"{verdict.answer.capitalize()}: {(comparison.recipe.claim or NONE).rstrip('.')} ({size})."
    if not comparison.complete:
        total = len(comparison.recipe.arms) * len(comparison.recipe.seeds)
        missing, failed = len(comparison.missing), len(comparison.failed)
        parts = [f"{missing} {'is' if missing == 1 else 'are'} missing"] if missing else []
        parts += [f"{failed} {'has' if failed == 1 else 'have'} no result"] if failed else []
        text += f" Preliminary: of {total} runs, {' and '.join(parts)}."
    return text


def ending(comparison: Comparison) -> list[str]:
    """Returns what a finished comparison ends with: the lines of its rule, and its verdict."""
    verdict = comparison.verdict
    if verdict.answer is None or not comparison.complete:
        return []
    lines = [
        f"{place}. {line.words}: {line.answer}, {number(line.estimate.mean)} {interval(line.estimate)},"
        f" n = {line.estimate.n}"
        for place, line in enumerate(verdict.lines, 1)
    ]
    return [*lines, sentence(comparison, verdict)]


def markdown(comparison: Comparison, pictures: list[Path]) -> str:
    """Returns the report; `pictures` are PNG files next to it."""
    recipe, verdict = comparison.recipe, comparison.verdict
    published = dict(recipe.published.values) if recipe.published else {}
    template = templating.environment(templating.plain).get_template("comparison.md.jinja")
    return template.render(
        comparison=comparison,
        recipe=recipe,
        sentence=sentence(comparison, verdict),
        classes=next((run[CLASSES] for run in comparison.runs if CLASSES in run), []),
        untuned=[row.arm for row in comparison.rows if row.tuning.startswith("untuned")],
        judged={"The rule: every line has to hold": verdict.lines, "Secondary questions": verdict.secondary},
        oriented=any(oriented(line) for line in (*recipe.rule, *recipe.secondary)),
        columns=[COLUMNS.get(metric, metric) for metric in comparison.metrics],
        published=published.pop(recipe.judged, None),
        others_published=published,
        differences={row.arm: _difference(comparison, row.arm) for row in comparison.rows},
        rows={row.arm: row for row in comparison.rows},
        more_is_better=METRICS[recipe.judged],
        pictures=pictures,
        machines=[_machine(environment) for environment in comparison.environments],
    )


def _difference(comparison: Comparison, arm: str) -> str:
    estimate, diverged = comparison.difference(arm)
    if estimate is None:
        return NONE
    bounds = "" if estimate.low is None else f" {interval(estimate, '+.3g')}"
    text = f"{number(estimate.mean, '+.3g')}{bounds}, n = {estimate.n}"
    return f"{text} ({diverged} more not finite)" if diverged else text


def _machine(environment: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in environment.items() if name not in ("packages", "runs")}
    packages = {name: version for name, version in environment.get("packages", {}).items() if version}
    listed = {"settings": settings, "packages": packages}
    texts = {part: ", ".join(f"{name} {value}" for name, value in items.items()) for part, items in listed.items()}
    return {"runs": environment.get("runs", NONE), **texts}
