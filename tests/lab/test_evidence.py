"""The page of evidence and the READMEs say what the reports on file say."""

from pathlib import Path

import pytest

from emo_hf.lab import evidence

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_page_is_up_to_date():
    found = evidence.reports()
    assert found
    assert evidence.PAGE.read_text(encoding="utf-8") == evidence.page(found)


@pytest.mark.parametrize("path", evidence.readmes(ROOT / "recipes"), ids=lambda path: path.parent.name)
def test_readmes_are_up_to_date(path):
    text = path.read_text(encoding="utf-8")
    assert evidence.filled(text, path.parent) == text


def test_every_report_is_in_a_readme():
    told = {
        path.parent / match[2] for path in evidence.readmes() for match in evidence.RESULTS.finditer(path.read_text())
    }
    assert set(evidence.reports()) <= told


def test_what_fails_comes_first():
    report = {"claim": "c", "source": "s", "command": "x", "recipe": "r", "also": []}
    line = {"rule": "a", "mean": 0.1, "low": None, "level": 0.95, "n": 2, "verdict": "inconclusive"}
    found = {
        Path("recipes/a/results"): {**report, "verdict": "reproduced", "lines": [line]},
        Path("recipes/b/results"): {**report, "verdict": "not reproduced", "lines": [line]},
    }
    text = evidence.page(found)
    assert "Of 2 comparisons, 1 did not reproduce their claim (r)" in text
    assert "(../recipes/b/README.md)" in text
