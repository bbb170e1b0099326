"""The page of evidence and the READMEs say what the reports on file say."""

import functools
import json
from pathlib import Path

import pytest

from emo_hf.lab.analysis import comparison, histories
from emo_hf.lab.recipe import loading
from emo_hf.lab.report import comparison_report
from scripts import evidence_page
from tests import ROOT


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_page_is_up_to_date():
    found = evidence_page.reports()
    assert found
    assert evidence_page.PAGE.read_text(encoding="utf-8") == evidence_page.page(found)


@pytest.mark.parametrize("path", evidence_page.readmes(ROOT / "recipes"), ids=lambda path: path.parent.name)
def test_readmes_are_up_to_date(path):
    text = path.read_text(encoding="utf-8")
    assert evidence_page.filled(text, path.parent) == text


def test_every_report_is_in_a_readme():
    told = {
        path.parent / match[2]
        for path in evidence_page.readmes()
        for match in evidence_page.RESULTS.finditer(path.read_text())
    }
    assert set(evidence_page.reports()) <= told


every_folder_of_results = pytest.mark.parametrize(
    "folder",
    sorted(path.parent for path in (ROOT / "recipes").rglob("results/**/recipe.yaml")),
    ids=lambda folder: f"{folder.parts[-3]}-{folder.name}",
)


@every_folder_of_results
def test_reports_on_record_follow_from_their_runs(folder):
    made = comparison_report.data(comparison.read(folder))
    assert json.loads((folder / comparison.REPORT).read_text(encoding="utf-8")) == json.loads(json.dumps(made))


@every_folder_of_results
def test_results_on_record_are_light(folder):
    pictures = {f"{name}.png" for name in evidence_page.PICTURES}
    tracked = {path.name for path in folder.iterdir()} - {"report.md", "report.html"}
    assert tracked <= {"recipe.yaml", "runs.jsonl", "report.json", histories.CURVES, histories.TRAJECTORY, *pictures}
    assert len(tracked & pictures) <= 3


@functools.cache
def shipped():
    recipes = [loading.recipe(str(path)) for path in loading.shipped(ROOT / "recipes")]
    return {recipe.name: recipe for recipe in recipes}


@every_folder_of_results
def test_results_are_of_the_recipe_as_it_stands(folder):
    recorded = loading.recipe(str(folder / comparison.RECIPE))
    assert recorded == shipped()[recorded.name]


def test_every_recipe_with_a_rule_has_results():
    told = {report["recipe"] for report in evidence_page.reports().values()}
    assert told == {name for name, recipe in shipped().items() if getattr(recipe, "rule", None)}


def test_what_fails_comes_first():
    report = {"claim": "c", "source": "s", "command": "x", "recipe": "r", "size": "small", "also": []}
    report |= {"seconds": [70.0, 45.0], "environments": [{"device": "cpu", "cpu_threads": 1}]}
    line = {"rule": "a", "mean": 0.1, "low": None, "level": 0.95, "n": 2, "verdict": "inconclusive"}
    line["notes"] = ["too few runs", "one is missing"]
    found = {
        Path("recipes/a/results"): {**report, "verdict": "reproduced", "lines": [line]},
        Path("recipes/b/results"): {
            **report,
            "verdict": "not reproduced",
            "lines": [line],
            "caveat": "Not all.",
            "rule_changes": 2,
        },
    }
    text = evidence_page.page(found)
    assert "Of 2 comparisons, 1 did not reproduce their claim (r)" in text
    assert "(../recipes/b/README.md)" in text
    assert text.count("*Source*: s.") == 2
    assert text.count("* What is asked was changed 2 times after runs existed") == 1
    assert text.count("*Source*: s. *Caveat*: Not all.\n") == 1
    assert "\n\n* rule 1: too few runs; one is missing\n" in text
    assert "x\nemo-hf report runs/r/small\n" in text
    assert "About 2 minutes of training, 2 runs, each on 1 CPU thread. [All numbers](" in text


@pytest.mark.parametrize(
    ("seconds", "device", "told"),
    [
        ([11.0, 12.0], "cpu", "Less than a minute of training, 2 runs, each on 2 CPU threads."),
        ([60.0], "NVIDIA H200", "About 1 minute of training, 1 run, each on NVIDIA H200."),
    ],
)
def test_cost(seconds, device, told):
    environments = [{"device": device, "cpu_threads": 2}]
    assert evidence_page.cost({"seconds": seconds, "environments": environments}) == told
