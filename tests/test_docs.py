"""The documentation: generated where it can be, and true where it names something."""

import inspect
import re
from typing import get_args

import pytest
from pydantic import BaseModel

from benchmarks import page
from emo_hf import registry
from emo_hf.cli import main
from emo_hf.lab.recipe.schema import FunctionRecipe, Recipe
from emo_hf.lab.report import formulas, optimizer_page
from scripts import optimizer_pages, recipe_keys
from tests import ROOT

DOCS = ROOT / "docs"
TEXTS = sorted([*DOCS.rglob("*.md"), *(ROOT / "recipes").rglob("*.md")])
UPSTREAM = (  # names in the released code, and the versions that have them
    ("dNR_hist", {"3.7", "3.8", "3.9"}),
    ("noise_est", {"3.7.0", "3.7", "3.8", "3.9"}),
    ("d_est", {"3.7.0", "3.7", "3.8", "3.9"}),
    ("c_est", {"3.9"}),
    ("emoChain", {"3.9"}),
    ("emoScope", {"3.7.0", "3.7", "3.8", "3.9"}),
    ("emoPulse", {"3.7.0", "3.7", "3.8", "3.9"}),
    ("emoDrive", {"3.6", "3.7.0"}),
    ("emoDpt", {"3.6", "3.7.0"}),
    ("_decide_coeff", {"3.1", "3.6", "3.7.0"}),
    ("_early_scalar", {"3.6", "3.7.0", "3.7"}),
    ("scalar_hist", {"1.0", "2.0", "3.0", "3.1", "3.6", "3.7.0", "3.7"}),
    ("stop_dNRsub", {"3.8"}),
    ("stop_base", {"3.9"}),
    ("leap_ratio", {"3.1", "3.6", "3.7.0", "3.7", "3.8", "3.9"}),
)


def anchor(heading: str) -> str:
    """Returns the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_speed_page_holds_the_measured_tables():
    text = (ROOT / page.PAGE).read_text(encoding="utf-8")
    assert len(page.BLOCK.findall(text)) == 6
    assert text == page.filled(text, ROOT / "benchmarks/results"), "run: python -m benchmarks page --out ..."


def test_committed_pages_are_the_generated_ones():
    committed = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / optimizer_pages.FOLDER).iterdir()}
    assert committed == optimizer_pages.pages(), "run: python -m scripts.optimizer_pages"


def test_every_key_of_a_recipe_has_its_words():
    """Those of the page are those of the schema; a key without words is a KeyError."""
    committed = (ROOT / recipe_keys.PAGE).read_text(encoding="utf-8")
    assert committed == recipe_keys.filled(committed), "run: python -m scripts.recipe_keys"
    reached, models = set(), [Recipe, FunctionRecipe]
    while models:
        reached.add(model := models.pop())
        found = (part for field in model.model_fields.values() for part in parts(field.annotation))
        models += {part for part in found if inspect.isclass(part) and issubclass(part, BaseModel)} - reached
    assert reached == set(recipe_keys.SECTIONS.values())


def parts(annotation):
    """Yields what an annotation is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from parts(part)


def test_every_row_has_a_section_and_a_line():
    generated = optimizer_pages.pages()
    assert len(registry.specs()) == 36
    for row in registry.specs():
        section = optimizer_page.section(row)
        assert f"\n{section}\n" in generated[f"{row.name}.md"]
        assert f"[{row.key}]({row.name}.md#{anchor(row.key)})" in generated["README.md"]
        for expected in (*row.options, *row.dead, *row.quirks, row.source, row.recommended_lr):
            assert expected in section


@pytest.mark.parametrize(("name", "versions"), UPSTREAM, ids=[name for name, _ in UPSTREAM])
def test_upstream_names_lead_to_the_versions_that_have_them(name, versions):
    found = {row.version for row in registry.specs() if f"`{name}`" in optimizer_page.section(row)}
    assert found == versions
    assert f"`{name}`" in (DOCS / "how-the-loss-becomes-a-step.md").read_text(encoding="utf-8")


def test_a_law_without_words_is_an_error(monkeypatch):
    monkeypatch.delitem(formulas.UPDATES, registry.find("emovoid").update)
    with pytest.raises(KeyError):
        optimizer_pages.pages()


def test_show_as_markdown(capsys):
    assert main(["show", "emosens-3.7", "--markdown"]) == 0
    assert capsys.readouterr().out == optimizer_page.section(registry.find("emosens-3.7")) + "\n"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_tests_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        file, _, part = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{path.name} links to {target}"
        if part:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert part in map(anchor, headings), f"{path.name} links to {target}"
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        assert (ROOT / file).is_file(), f"{path.name} names {file}"
        if name:
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{path.name} names {name}"


def test_every_fact_says_what_shows_it():
    text = (DOCS / "quirks.md").read_text(encoding="utf-8")
    facts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [fact.partition(".")[0] for fact in facts] == [str(number) for number in range(1, 14)]
    for fact in facts:
        assert "*Shown by*" in fact
        assert re.search(r"`tests/|no test here", fact)
