"""docs/recipes.md: its example is right, and it leaves out no key."""

import re

import pytest

from emo_hf.lab.recipe import arms, loading, rules
from tests import ROOT

PAGE = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")


def test_the_example_is_a_recipe(write):
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    recipe = loading.recipe(write(example))
    assert [type(line) for line in recipe.rule] == [rules.Contrast, rules.Basin]
    assert len(recipe.run_configs("smoke")) == 9 * 5


@pytest.mark.parametrize("name", [*arms.Arm.model_fields, *rules.Bounds.model_fields, "sweep"])
def test_every_key_is_there(name):
    assert name == "family" or re.search(rf"`[^`\n]*\b{name}\b", PAGE)  # the family of an arm comes from its sweep
