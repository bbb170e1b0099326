"""Every claim and its verdict on one page, and the results in the READMEs of the recipes, from the reports on file.

    python -m scripts.evidence_page

writes ``docs/evidence.md`` and what stands between ``<!-- results: FOLDER -->`` and ``<!-- end -->`` in the READMEs
below ``recipes/`` anew, seen from the current folder; FOLDER holds a report and is seen from the README's own. A test
compares them with what is there.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emo_hf.lab.analysis.comparison import RUNS
from emo_hf.lab.analysis.results import Stat, number, read_json
from emo_hf.lab.report.blocks import plain
from emo_hf.lab.report.card_text import count
from emo_hf.lab.report.comparison_text import COLUMNS, times
from emo_hf.run_folder import parse_summary

RECIPES, PAGE = Path("recipes"), Path("docs/evidence.md")
RESULTS = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
PICTURES = {  # beside a report, and what they show
    "loss": "Training and validation loss",
    "basin": "The final value over the learning rate",
    "differences": "Differences to the baseline, seed by seed",
    "trajectory": "The path of the classifier's weights in a plane",
}
ANSWERS = ("not reproduced", "inconclusive", "reproduced")
INTRODUCTION = """\
Each verdict follows from a rule that stood in the recipe before it was run, unless it says otherwise: intervals of
the mean over the seeds, paired, corrected for the lines of one rule, not for the number of claims on this page. When
a line with "worse by at most" fails was [changed after the runs](recipes.md#the-rule). All are small models on two
CPU cores; none says what happens at a size that was not run. [Recipes](recipes.md) explains the rules,
[quirks](quirks.md) the mechanism.
`python -m scripts.evidence_page` made this page from the reports on file."""

Report = dict[str, Any]


def reports() -> dict[Path, Report]:
    """Returns the reports below `RECIPES` that decide a claim, by their folders: what failed comes first."""
    found = {path.parent: _read(path.parent) for path in RECIPES.rglob("results/**/report.json")}
    judged = {place: report for place, report in found.items() if report["verdict"]}
    return dict(sorted(judged.items(), key=lambda item: (ANSWERS.index(item[1]["verdict"]), str(item[0]))))


def _read(folder: Path) -> Report:
    """Returns the report in a folder, and the seconds of training of each run it rests on."""
    path = folder / RUNS
    runs = [parse_summary(line, path) for line in path.read_text(encoding="utf-8").splitlines()]
    return {**read_json(folder / "report.json"), "seconds": [number(run.get("seconds")) or 0.0 for run in runs]}


def page(found: dict[Path, Report]) -> str:
    """Returns the page of all claims."""
    counts = Counter(report["verdict"] for report in found.values())
    failed = [report["recipe"] for report in found.values() if report["verdict"] == "not reproduced"]
    lines = [
        "# Evidence",
        "",
        f"Of {len(found)} comparisons, {counts['not reproduced']} did not reproduce their claim"
        + (f" ({', '.join(failed)})" if failed else "")
        + f", {counts['inconclusive']} are inconclusive, {counts['reproduced']} reproduced it.",
        "",
        INTRODUCTION,
        "",
        "| claim | verdict | n | recipe |",
        "|---|---|---|---|",
    ]
    for place, report in found.items():
        family = place.relative_to(RECIPES).parts[0]
        link = f"[{report['recipe']}](../{RECIPES}/{family}/README.md)"
        n = min(line["n"] for line in report["lines"])
        lines.append(f"| {plain(report['claim'])} | **{report['verdict']}** | {n} | {link} |")
    for place, report in found.items():
        lines += ["", f"## {report['recipe']}", "", *_body(report, f"../{place.as_posix()}")]
    return "\n".join([*lines, ""])


def _body(report: Report, place: str) -> list[str]:
    """Returns what one report decided, how to make it again, and its cost; `place` is the way to its folder."""
    again = [report["command"], f"emo-hf report runs/{report['recipe']}/{report['size']}"]
    lines = [*_verdict(report), ""] if report["verdict"] else []
    return [*lines, "```bash", *again, "```", "", f"{cost(report)} [All numbers]({place}/report.json)"]


def _verdict(report: Report) -> list[str]:
    """Returns the verdict of one report, its lines, and what there is to note about them."""
    claim, source = plain(report["claim"]).rstrip("."), plain(report["source"])
    lines = [f"**{report['verdict'].capitalize()}**: {claim}. *Source*: {source}."]
    if caveat := report.get("caveat"):
        lines[0] += f" *Caveat*: {plain(caveat)}"
    lines += ["", "| | line | verdict | estimate | interval | n |", "|---|---|---|---|---|---|"]
    titles = (("lines", "rule"), ("also", "beside"))
    judged = [(f"{title} {place}", line) for kind, title in titles for place, line in enumerate(report[kind], 1)]
    lines += [f"| {title} | {_row(line)} |" for title, line in judged]
    notes = [f"* {title}: {plain('; '.join(line['notes']))}" for title, line in judged if line["notes"]]
    if changes := report.get("rule_changes"):
        notes.append(f"* What is asked was changed {times(changes)} after runs existed; the README says how.")
    return [*lines, *(["", *notes] if notes else [])]


def cost(report: Report) -> str:
    """Returns the time that the runs trained, summed, as a sentence."""
    minutes, runs = round(sum(report["seconds"]) / 60), count(len(report["seconds"]), "run")
    about = f"About {count(minutes, 'minute')}" if minutes else "Less than a minute"
    machines = dict.fromkeys(map(_machine, report["environments"]))
    return f"{about} of training, {runs}, each on {' or '.join(machines)}."


def _machine(environment: dict[str, Any]) -> str:
    if environment["device"] != "cpu":
        return plain(environment["device"])
    return count(environment["cpu_threads"], "CPU thread")


def _row(line: dict[str, Any]) -> str:
    """Returns the cells of a line of the rule, without the bars at both ends."""
    mean = interval = "-"
    if line["mean"] is not None:
        mean = f"{line['mean']:+.3g}"
    if line["low"] is not None:
        interval = f"{line['low']:+.3g} to {line['high']:+.3g} ({100 * line['level']:.4g} %)"
    return " | ".join((plain(line["rule"]), line["verdict"], mean, interval, str(line["n"])))


def arms(report: Report) -> list[str]:
    """Returns the table of the arms."""
    metric = report["metric"]
    judged = list(dict.fromkeys([metric, "eval_loss"]))
    published = report["published"]["values"].get(metric, {}) if report["published"] else {}
    head = ["arm", "n", metric, *(["published"] if published else []), *judged[1:], "step_size_median", "tuning"]
    lines = [_cells(COLUMNS.get(name, name) for name in head), _cells("---" for _ in head)]
    for arm in report["arms"]:
        beside = [str(published.get(arm["arm"], "-"))] if published else []
        first, *rest = (_stat(arm.get(name), ".3f") for name in judged)
        size = _stat(arm.get("step_size_median"), ".1e")
        lines.append(_cells([arm["arm"], str(arm["n"]), first, *beside, *rest, size, plain(arm["tuning"])]))
    return lines


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _stat(stat: dict[str, float | None] | None, form: str) -> str:
    if not stat or stat["mean"] is None:
        return "-"
    return Stat(stat["mean"], stat["sd"]).text(form)


def filled(text: str, folder: Path) -> str:
    """Returns a README of `folder` with its results written anew."""

    def results(match: re.Match[str]) -> str:
        report = _read(folder / match[2])
        pictures = [name for name in PICTURES if (folder / match[2] / f"{name}.png").exists()]
        shown = [line for name in pictures for line in ("", f"![{PICTURES[name]}]({match[2]}/{name}.png)")]
        return "\n".join([match[1], *arms(report), "", *_body(report, match[2]), *shown, "", match[3]])

    return RESULTS.sub(results, text)


def readmes(folder: Path = RECIPES) -> list[Path]:
    """Returns the READMEs that hold results."""
    return [path for path in sorted(folder.rglob("README.md")) if RESULTS.search(path.read_text(encoding="utf-8"))]


def main() -> None:
    """Writes the page and the READMEs."""
    PAGE.write_text(page(reports()), encoding="utf-8")
    for path in readmes():
        path.write_text(filled(path.read_text(encoding="utf-8"), path.parent), encoding="utf-8")


if __name__ == "__main__":
    main()
