"""What surrounds the code says the same as the code: CI, the Makefile, versions, the notebook, the templates."""

import json
import re

import pytest
import yaml

import emo_hf
from tests import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+): ##", MAKEFILE, re.MULTILINE))
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
NOTEBOOK = ROOT / "notebooks/quickstart.ipynb"
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))


def targets(text):
    """Returns what a text calls make for, in commands and in code."""
    calls = re.findall(r"(?:^|`|run: )make ([^#`\n]*)", text, re.MULTILINE)
    return {word for call in calls for word in call.split() if re.fullmatch(r"[a-z-]+", word)}


def test_make_has_every_target_that_is_called():
    assert len(TARGETS) > 8
    assert set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split()) == TARGETS
    files = (".ci/run", ".github/workflows/ci.yml", ".github/pull_request_template.md", "CONTRIBUTING.md")
    called = {name: targets((ROOT / name).read_text(encoding="utf-8")) for name in files}
    rows = WORKFLOW["jobs"]["checks"]["strategy"]["matrix"]["include"]
    checks = {target for row in rows for target in row["targets"].split()}
    assert all(called.values())
    assert set().union(checks, *called.values()) <= TARGETS
    assert called[".ci/run"] == {"install", "lint", "types", "docs", "notebook", "oldest"}
    assert checks | called[".github/workflows/ci.yml"] >= {"install", "lint", "types", "docs", "notebook", "test"}


def test_ci_runs_the_test_command_of_the_readme():
    pattern = re.search(r"grep -m1 -E '([^']*)' README.md", (ROOT / ".ci/run").read_text(encoding="utf-8"))[1]
    lines = re.findall(pattern + ".*", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == 1


def test_the_workflow_tests_every_python_from_the_lower_bound_on():
    oldest = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    pythons = WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert pythons == [f"3.{minor}" for minor in range(int(oldest), 14)]


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == emo_hf.__version__
    newest = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest[1] == emo_hf.__version__


def test_the_page_of_installing_names_every_extra():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = re.search(r"\[project\.optional-dependencies\]\n(.*?)\n\[", project, re.DOTALL)[1]
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(
        re.findall(r"^(\w+) = ", section, re.MULTILINE)
    )


def test_every_public_name_is_on_a_page_of_the_api():
    shown = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/api").glob("*.md"))
    assert set(re.findall(r"^::: emo_hf\.(Emo\w+|LoopRecord|attach|find_lr|Signals)$", shown, re.MULTILINE)) == {
        name
        for name in emo_hf.__all__
        if name != "EmoError"  # on the page of all errors
    }


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_the_fields_of_an_issue_have_names_of_their_own(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) >= 3
    assert all(field["attributes"]["label"] for field in form["body"])


def test_the_notebook_holds_its_outputs_and_nothing_of_the_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert len(text) < 150_000
    assert not re.search(r"/(home|root|tmp|Users)/|site-packages|Warning", text)
