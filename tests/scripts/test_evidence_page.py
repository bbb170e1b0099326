"""The page of evidence and the READMEs say what the reports on file say."""

import dataclasses
import functools
import json
from pathlib import Path

import pytest

from emo_hf.lab.analysis import comparison, histories, results
from emo_hf.lab.recipe import loading
from emo_hf.lab.recipe.schema import Recipe
from emo_hf.lab.report import comparison_report
from scripts import evidence_page
from tests import ROOT
from tests.lab import made_up_runs


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_page_is_up_to_date():
    judged = evidence_page.comparisons()
    assert judged
    assert evidence_page.PAGE.read_text(encoding="utf-8") == evidence_page.page(judged)


@pytest.mark.parametrize("path", evidence_page.readmes(ROOT / "recipes"), ids=lambda path: path.parent.name)
def test_readmes_are_up_to_date(path):
    text = path.read_text(encoding="utf-8")
    assert evidence_page.filled(text, path.parent) == text


def test_every_comparison_is_in_a_readme():
    linked = {
        path.parent / match[2]
        for path in evidence_page.readmes()
        for match in evidence_page.RESULTS.finditer(path.read_text())
    }
    assert set(evidence_page.comparisons()) <= linked


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
    recorded = {one.recipe.name for one in evidence_page.comparisons().values()}
    assert recorded == {name for name, recipe in shipped().items() if getattr(recipe, "rule", None)}


def judged(claim: str, accuracies: dict[str, list[float]], **changes) -> comparison.Comparison:
    """Returns a comparison of two seeds or more, with one line that says that a is better than b."""
    arm = {"optim": "emosens", "lr": 1.0, "tuning": "untuned"}
    seeds = range(len(accuracies["a"]))
    content = made_up_runs.recipe(
        {
            "name": "r",
            "claim": claim,
            "arms": {"a": arm, "b": arm},
            "baseline": "b",
            "seeds": list(seeds),
            "rule": [{"arm": "a", "against": "b", "better_by": 0}],
            "measure": [],
            **changes.pop("recipe", {}),
        }
    )
    runs = [
        {"arm": name, "seed": seed, "accuracy": accuracies[name][seed], "seconds": 30.0, "tuning": "untuned"}
        for name in accuracies
        for seed in seeds
    ]
    facts = {"environments": [{"device": "cpu", "cpu_threads": 1}], **changes}
    recipe = Recipe.model_validate(content)
    return comparison.Comparison(recipe, "small", "emo-hf run x", "", results.table(runs), **facts)


def test_page_of_evidence():
    lost = judged(
        "c *d*",
        {"a": [0.1, 0.2, 0.3], "b": [0.5, 0.6, 0.7]},
        recipe={"caveat": "Not all.", "secondary": [{"arm": "b", "against": "a", "better_by": 0}]},
        rule_changes=2,
    )
    few = judged("e", {"a": [0.1, 0.2], "b": [0.5, 0.6]})
    text = evidence_page.page({Path("recipes/f/results/g"): lost, Path("recipes/h/results"): few})
    assert "Of 2 comparisons, 1 did not reproduce their claim (r), 1 are inconclusive, 0 reproduced it." in text
    assert "| c \\*d\\* | **not reproduced** | 3 | [r](../recipes/f/README.md) |" in text
    assert "\n**Not reproduced**: c \\*d\\*. *Source*: its README. *Caveat*: Not all.\n\n| |" in text
    assert "| rule 1 | accuracy: a better than b | not reproduced | -0.4 | -0.4 to -0.4 (95 %) | 3 |" in text
    assert "| secondary 1 | accuracy: b better than a | reproduced | +0.4 |" in text
    assert text.count("\n\n* The question changed 2 times after the first run; the README says how.\n\n```bash") == 1
    assert "\n\n* rule 1: too few seeds: 2 of at least 3\n\n```bash\nemo-hf run x --size small" in text
    assert "About 3 minutes of training, 6 runs, each on 1 CPU thread. [All numbers](../recipes/f/results/g/" in text


@pytest.mark.parametrize(
    ("seconds", "device", "expected"),
    [
        ([11.0, 12.0], "cpu", "Less than a minute of training, 2 runs, each on 2 CPU threads."),
        ([60.0], "NVIDIA H200", "About 1 minute of training, 1 run, each on NVIDIA H200."),
        ([60.0, None], "cpu", "About 1 minute of training, 2 runs, each on 2 CPU threads."),
    ],
)
def test_cost(seconds, device, expected):
    one = judged("c", {"a": [0.0], "b": [0.0]}, environments=[{"device": device, "cpu_threads": 2}])
    runs = [{"arm": "a", "seed": seed, "seconds": value} for seed, value in enumerate(seconds)]
    assert evidence_page.cost(dataclasses.replace(one, rows=results.table(runs))) == expected
