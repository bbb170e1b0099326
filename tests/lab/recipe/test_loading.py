"""From a file to a recipe: names, YAML, what it extends, and what must not stand in it."""

from pathlib import Path

import pytest
import yaml

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe import loading
from tests import ROOT


def test_bare_name(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert loading.recipe("quickstart").name == "quickstart"
    with pytest.raises(RecipeError, match=r"No recipe 'quikstart'.*Did you mean 'quickstart'"):
        loading.recipe("quikstart")


@pytest.mark.parametrize("secret", ["hf_" + "aB3dE5gH" * 4, "https://user:sesame@host/x"])
def test_keys_and_passwords_are_refused_wherever_they_stand(recipe, write, secret):
    recipe["description"] = recipe["claim"] = f"see {secret}"
    recipe["arms"]["adamw"]["tuning"] = {"how": "grid", "grid": {"lr": [1, 2]}, "chosen_by": secret}
    with pytest.raises(RecipeError, match="a recipe must not hold a key or a password") as error:
        loading.recipe(write(recipe))
    _, *lines = str(error.value).split("\n  ")
    assert [line.partition(": ")[0] for line in lines] == ["description", "arms.adamw.tuning.chosen_by", "claim"]
    assert not any(part in str(error.value) for part in (secret, "sesame"))


@pytest.fixture
def child(tmp_path, recipe, write):
    """Writes a recipe that extends another one."""

    def child(**content) -> str:
        write(recipe)
        path = tmp_path / "child.yaml"
        path.write_text(yaml.safe_dump({"extends": "recipe.yaml", **content}))
        return str(path)

    return child


def test_extends(child):
    emosens = {"optim": "emosens", "lr": 0.1, "tuning": "untuned"}
    found = loading.recipe(child(name="other", seeds=[7], arms={"emosens": emosens}))
    assert (found.name, found.seeds, found.description) == ("other", [7], "a test")
    assert list(found.arms) == ["emosens"]
    assert list(found.sizes) == ["smoke", "small"]


def test_extends_a_recipe_with_former_keys(child, recipe):
    recipe["also"] = [{"arm": "emosens", "better_by": 0}]
    assert loading.recipe(child(secondary=[])).secondary == []


@pytest.mark.parametrize("name", ["nowhere.yaml", "/recipe.yaml", 3, "a\0.yaml", f"{'a' * 5000}.yaml"])
def test_extends_a_file(child, name):
    with pytest.raises(RecipeError, match="extends: expected a YAML file"):
        loading.recipe(child(extends=name))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("recipe.yaml", True),
        ("../beside/recipe.yaml", True),
        ("../recipe.yaml", True),
        ("../beside/below/recipe.yml", True),
        ("../../elsewhere/recipe.yaml", False),
        ("link.yaml", False),
        ("../linked/recipe.yaml", False),
        ("recipe.txt", False),
    ],
)
def test_extends_what_lies_near(tmp_path, write, recipe, name, near):
    own = tmp_path / "recipes" / "own"
    for folder in (own, own / "../beside/below", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    (own / "link.yaml").symlink_to(tmp_path / "elsewhere" / "recipe.yaml")
    (own / "../linked").symlink_to(tmp_path / "elsewhere")
    (own / name).write_text(Path(write(recipe)).read_text())
    child = own / "child.yaml"
    child.write_text(yaml.safe_dump({"extends": name, "name": "other"}))
    if near:
        assert loading.recipe(str(child)).name == "other"
        return
    with pytest.raises(RecipeError, match=r"seen from this one's folder, below .*recipes, got"):
        loading.recipe(str(child))


def test_extends_one_level(child, recipe):
    recipe["extends"] = "child.yaml"
    with pytest.raises(RecipeError, match="one level only"):
        loading.recipe(child())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "'name' is given twice"),
        ("- a\n", "expected keys and values, got list"),
        ("a: [\n", "cannot be read"),
        ("a: !!python/object/apply:os.getcwd []\n", "cannot be read"),
        ("", "expected keys and values, got NoneType"),
        ("a: 1\n? [a, b]\n: 1\n", "(?s)expected a word as a key.*line 2"),
        ("? {a: b}\n: 1\n", "expected a word as a key"),
        (f"a: {'9' * 5000}\n", "(?s)no value can be made of '9999.*line 1"),
        (f"a: 0x{'f' * 5000}\n", "no value can be made of '0xfff"),
        ("a: 2001-99-99\n", "no value can be made of '2001-99-99'"),
        ("a: !!timestamp noon\n", "no value can be made of 'noon'"),
        ("a: !!map noon\n", "expected a mapping node"),
        ("[" * 3000, "nested too deeply"),
        (f"arms: {{a: {{sweep: [{10**400}]}}}}", "no value can be made of '1000"),
    ],
)
def test_no_recipe(write, text, message):
    with pytest.raises(RecipeError, match=message):
        loading.recipe(write(text))


def test_numbers_with_exponent(recipe, write):
    text = yaml.safe_dump(recipe).replace("lr: 0.001", "lr: 1e-3")
    assert "1e-3" in text
    assert loading.recipe(write(text)).arms["adamw"].lr == 0.001
