"""What the report of a comparison says, block by block, and the small numbers that it and its JSON share."""

import math
from collections.abc import Iterator
from pathlib import Path

from emo_hf.lab.analysis.comparison import Comparison
from emo_hf.lab.analysis.results import Stat
from emo_hf.lab.analysis.verdicts import Estimate, Judged, Verdict, oriented
from emo_hf.lab.recipe.rules import METRICS
from emo_hf.lab.report.blocks import Block, Bullets, Code, Heading, Paragraph, Pictures, Table

COLUMNS = {"eval_loss": "eval loss", "step_size_median": "step size (median)", "seconds": "seconds per run"}
KINDS = {"reproduced": "good", "not reproduced": "bad", "inconclusive": "open"}
NONE = "-"


def sentence(found: Comparison, verdict: Verdict) -> str:
    """Returns the first sentence of the report."""
    if verdict.answer is None:
        return "No verdict: this recipe has no rule."
    claim = found.recipe.claim.rstrip(".")
    n = min(line.estimate.n for line in verdict.lines)
    match verdict.answer:
        case "reproduced":
            text = f"Reproduced: {claim} (size {found.size}, n = {n})."
        case "not reproduced":
            failed = [line.answer for line in verdict.lines].count(verdict.answer)
            lines = f"{failed} of the {len(verdict.lines)} lines of its rule failed"
            text = f"Not reproduced: {claim} (size {found.size}, n = {n}; {lines})."
        case _:
            text = f"Inconclusive: {claim} (size {found.size}, n = {n})."
    if not found.complete:
        count = len(found.recipe.arms) * len(found.recipe.seeds)
        parts = ((len(found.missing), "missing"), (len(found.failed), "without a result"))
        told = ", ".join(f"{number} {what}" for number, what in parts if number)
        text += f" Preliminary: of {count} runs, {told}."
    return text


def ending(found: Comparison) -> list[str]:
    """Returns what a finished comparison ends with: the lines of its rule, and its verdict."""
    verdict = found.verdict
    if verdict.answer is None or not found.complete:
        return []
    lines = [
        f"{number}. {line.words}: {line.answer}, {_number(line.estimate.mean)} {_interval(line.estimate)},"
        f" n = {line.estimate.n}"
        for number, line in enumerate(verdict.lines, 1)
    ]
    return [*lines, sentence(found, verdict)]


def metrics(found: Comparison) -> list[str]:
    """Returns what the table of arms shows: what is judged, then the rest."""
    named = [line.metric for line in (*found.recipe.rule, *found.recipe.secondary) if line.metric]
    return list(dict.fromkeys([found.recipe.judged, *named, *COLUMNS]))


def difference(found: Comparison, arm: str) -> tuple[Estimate | None, int]:
    """Returns arm - baseline over the seeds that both have, and with how many more one of them diverged."""
    recipe = found.recipe
    if recipe.baseline is None or arm == recipe.baseline:
        return None, 0
    one, other = (found.values(name, recipe.judged) for name in (arm, recipe.baseline))
    pairs = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
    finite = [value for value in pairs if math.isfinite(value)]
    return Estimate.from_values(finite), len(pairs) - len(finite)


def command(found: Comparison) -> str:
    """Returns the command that makes the runs again."""
    recipe = found.recipe
    text = f"{found.command} --size {found.size}"
    if recipe.task.data.files or recipe.sizes[found.size].model.llama2c:
        text += " --data-dir DIR"
    seeds = sorted({run["seed"] for run in found.runs})
    if not set(seeds) <= set(recipe.seeds):
        text += f" --seeds {' '.join(map(str, seeds))}"
    return text


def text(found: Comparison, pictures: list[Path]) -> Iterator[Block]:
    """Yields the report, with `pictures` in it."""
    recipe, verdict = found.recipe, found.verdict
    yield Paragraph(sentence(found, verdict), KINDS.get(verdict.answer, "open"))
    if untuned := [row.arm for row in found.rows if row.tuning.startswith("untuned")]:
        yield Paragraph(f"Untuned: {', '.join(untuned)}. A tuned setting may do better.", "alarm")
    if found.rule_changes:
        yield Paragraph(
            "What is asked (claim, rule, lines beside it, baseline, sweeps or seeds) was changed"
            f" {times(found.rule_changes)} after runs existed; what it was before is kept as recipe.aside-N.yaml in"
            " the folder of the runs.",
            "alarm",
        )
    if extra := found.extra_seeds:
        told = f"The lines are judged by the seeds of the recipe. Its tables hold more: {', '.join(map(str, extra))}."
        yield Paragraph(told, "alarm")
    if found.size == "smoke":
        yield Paragraph("Size smoke shows that everything runs. It decides nothing.", "alarm")
    yield Paragraph(recipe.description)
    if recipe.claim or recipe.source:
        caveat = [f"Caveat: {recipe.caveat}"] if recipe.caveat else []
        yield Bullets([f"Claim: {recipe.claim or NONE}", f"Source: {recipe.source or NONE}", *caveat])
    yield from _rule(found, verdict)
    yield from _arms(found)
    if pictures:
        yield Heading("Figures")
        yield Pictures(pictures)
    yield from _absent(found)
    yield Heading("How to make it again")
    yield Code(f"{command(found)}\nemo-hf report runs/{recipe.name}/{found.size}")
    yield from _environments(found)


def _rule(found: Comparison, verdict: Verdict) -> Iterator[Block]:
    if not (verdict.lines or verdict.also):
        return
    yield Heading("The rule and what became of it" if verdict.lines else "What was asked")
    if verdict.lines:
        yield _judged("The rule: every line has to be reproduced", verdict.lines)
    if verdict.also:
        yield _judged("Asked beside it, without a part in the verdict", verdict.also)
    counts = " and ".join(str(len(lines)) for lines in (verdict.lines, verdict.also) if lines)
    how = [
        "The estimate is the mean over n seeds of a number that is taken from runs with the same seed. The interval is"
        f" Student's t, two-sided, at the level 1 - 0.05 / k for the k = {counts} lines of a table: corrected for"
        " these (Bonferroni), not for other tables or recipes. Fewer than 3 seeds decide nothing.",
        "A value that is missing from a finished run, or of a run that its optimizer ended over a loss that is not"
        " finite, counts as the worst there is: it cannot help its own arm, and such a seed stays outside the"
        " interval. Runs that failed otherwise are left out together with their partners.",
    ]
    if any(oriented(line) for line in (*found.recipe.rule, *found.recipe.secondary)):
        how.insert(1, 'Where a line says "better" or "worse", the difference is counted so that more is better.')
    yield Bullets(how)


def _judged(caption: str, lines: list[Judged]) -> Table:
    head = ["line", "verdict", "estimate", f"{100 * lines[0].level:.4g} % interval", "n", "notes"]
    rows = [
        [
            f"{number}. {line.words}",
            line.answer,
            _number(line.estimate.mean),
            _interval(line.estimate),
            str(line.estimate.n),
            "; ".join(line.notes) or NONE,
        ]
        for number, line in enumerate(lines, 1)
    ]
    return Table(caption, head, rows, {0, 1, 5})


def _arms(found: Comparison) -> Iterator[Block]:
    recipe, names = found.recipe, metrics(found)
    published = (recipe.published.values if recipe.published else {}).copy()
    beside = published.pop(recipe.judged, None)
    head = ["arm", "n", COLUMNS.get(recipe.judged, recipe.judged)]
    head += ["published"] if beside else []
    head += [f"difference to {recipe.baseline}, 95 % interval"] if recipe.baseline else []
    head += [COLUMNS.get(metric, metric) for metric in names[1:]] + ["tuning"]
    rows = []
    for row in found.rows:
        cells = [row.arm, str(row.n), _stat(row.stat(names[0]))]
        cells += [_number(beside.get(row.arm))] if beside else []
        cells += [_difference(*difference(found, row.arm))] if recipe.baseline else []
        rows.append([*cells, *(_stat(row.stat(metric)) for metric in names[1:]), row.tuning])
    yield Heading("The arms")
    yield Table("Mean ± standard deviation over n seeds", head, rows, {len(head) - 1})
    better = "more" if METRICS[recipe.judged] else "less"
    text = f"Of {recipe.judged}, {better} is better."
    if recipe.baseline:
        text += (
            f" Differences are arm - {recipe.baseline}, paired over the seeds that both have, with Student's t"
            f" interval; these {len(found.rows) - 1} intervals are not corrected for being several, and decide"
            " nothing."
        )
    yield Paragraph(text)
    if published:
        ours = {row.arm: row for row in found.rows}
        rows = [
            [arm, metric, _number(value), _stat(ours[arm].stat(metric)) if arm in ours else NONE]
            for metric, values in published.items()
            for arm, value in values.items()
        ]
        yield Table("Other numbers that were published", ["arm", "metric", "published", "ours"], rows, {1})
    if recipe.published:
        yield Paragraph(f"Published: {recipe.published.source}.")


def _absent(found: Comparison) -> Iterator[Block]:
    if not (found.failed or found.missing or found.ignored):
        return
    yield Heading("Runs that are not in the tables")
    if found.failed:
        rows = [[run.arm, str(run.seed), run.reason] for run in found.failed]
        yield Table("Without a result: failed, or under way", ["arm", "seed", "its last words"], rows, {2})
    by_arm: dict[str, list[str]] = {}
    for arm, seed in found.missing:
        by_arm.setdefault(arm, []).append(str(seed))
    items = [f"Not started: {arm}, seeds {', '.join(seeds)}" for arm, seeds in by_arm.items()]
    items += [f"Ignored, as its settings are not the recipe's: {name}" for name in found.ignored]
    if items:
        yield Bullets(items)


def _environments(found: Comparison) -> Iterator[Block]:
    yield Heading("Versions and machine")
    rows = []
    for environment in found.environments:
        packages = {name: version for name, version in environment.get("packages", {}).items() if version}
        versions = ", ".join(f"{name} {version}" for name, version in packages.items())
        rest = {name: value for name, value in environment.items() if name not in ("packages", "runs")}
        machine = ", ".join(f"{name} {value}" for name, value in rest.items())
        rows.append([str(environment.get("runs", NONE)), machine or "not known", versions])
    yield Table("What the runs were made with", ["runs", "machine", "packages"], rows, {1, 2})


def _difference(estimate: Estimate | None, diverged: int) -> str:
    if estimate is None:
        return NONE
    text = f"{_number(estimate.mean, '+.3g')} {_interval(estimate, '+.3g')}, n = {estimate.n}"
    return f"{text} ({diverged} more not finite)" if diverged else text


def _interval(estimate: Estimate, form: str = ".4g") -> str:
    return NONE if estimate.low is None else f"[{estimate.low:{form}}, {estimate.high:{form}}]"


def _number(value: float | None, form: str = ".4g") -> str:
    return NONE if value is None else f"{value:{form}}"


def _stat(stat: Stat | None) -> str:
    if stat is None:
        return NONE
    if stat.mean is None:
        return f"missing or not finite in {stat.missing}"
    return stat.text(".4g", ".2g")


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
