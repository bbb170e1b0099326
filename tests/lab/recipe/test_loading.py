"""From a file to a recipe: names, YAML, what it extends, and what must not stand in it."""

import time
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


NINE = ", ".join(["*{0}"] * 9)
BOMBS = {  # beyond the bounds: text and message
    "a loop": ("loop: &a [*a]", r"\*a stands within what it is a name of"),
    "a loop of keys": ("loop: &a {b: *a}", r"\*a stands within what it is a name of"),
    "a line with the wrong indent": ("arms: &a\n  emosens: *a", r"\*a stands within"),
    "aliases of aliases": (
        "a0: &a0 [1]\n" + "\n".join(f"a{n}: &a{n} [{NINE.format(f'a{n - 1}')}]" for n in range(1, 13)),
        "more than 10,000 values",
    ),
    "merges of merges": (
        "m0: &m0 {a: 1}\n" + "\n".join(f"m{n}: &m{n} {{<<: [{NINE.format(f'm{n - 1}')}]}}" for n in range(1, 9)),
        "more than 10,000 values",
    ),
    "many values": (f"seeds: [{'1,' * 20_000}]", "more than 10,000 values"),
    "many keys": ("\n".join(f"k{n}: 1" for n in range(6000)), "more than 10,000 values"),
    "many levels": (f"a: {'[' * 300}{']' * 300}", "nested too deeply"),
    "many levels of keys": ("\n".join("  " * n + "k:" for n in range(150)), "nested too deeply"),
    "many bytes": ("# " + "x" * 100_000, "more than 100,000 bytes"),
    "no end": ("a: " + "[" * 99_000, "nested too deeply"),
    "bytes": ("a: !!binary aGVsbG8=", "no value can be made of 'aGVsbG8='.*binary is no kind of value"),
    "a date": ("a: 2001-01-01", "no value can be made of '2001-01-01'.*timestamp is no kind of value"),
    "a time": ("a: 2001-01-01 12:00:00", "timestamp is no kind of value"),
    "a set": ("a: !!set {b, c}", "set is no kind of value"),
    "pairs": ("a: !!omap [b: 1]", "omap is no kind of value"),
    "code": ("a: !!python/name:os.getcwd", "is no kind of value"),
    "a kind of its own": ("a: !mine 1", "!mine is no kind of value"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_beyond_the_bounds_is_refused_at_once(kind, write):
    text, message = BOMBS[kind]
    start = time.process_time()
    with pytest.raises(RecipeError, match=f"(?s){message}") as error:
        loading.recipe(write(text))
    assert time.process_time() - start < 2
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("key", ["description", "name", "claim", "arms", "seeds", "extends", "rule", "task"])
@pytest.mark.parametrize(
    "text", ["x" * 60_000, "hf_-" * 15_000, "a-" * 30_000, "a\n" * 20_000], ids=lambda text: text[:4]
)
def test_a_text_without_end_is_one_short_message(key, text, recipe, write):
    recipe[key] = text
    start = time.process_time()
    with pytest.raises(RecipeError) as error:
        loading.recipe(write(recipe))
    assert time.process_time() - start < 2
    assert len(str(error.value)) < 2000


def test_very_many_problems_are_cut(recipe, write):
    recipe["arms"]["emosens"] |= {f"key-{n}": 1 for n in range(3000)}
    recipe["seeds"] = list(range(-500, 0))
    start = time.process_time()
    with pytest.raises(RecipeError, match="more than 40 problems") as error:
        loading.recipe(write(recipe))
    assert time.process_time() - start < 2
    assert len(str(error.value).splitlines()) == 41


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": 1}, [float("nan")], [[{"a": 1}]]], ids=repr)
def test_a_grid_and_options_hold_plain_values(value, recipe, write):
    recipe["arms"]["adamw"] |= {"optim": "lion", "options": {"weight_decouple": value}}
    recipe["arms"]["adamw"]["tuning"] = {"how": "grid", "grid": {"lr": [1, value]}, "chosen_by": "loss"}
    with pytest.raises(RecipeError) as error:
        loading.recipe(write(recipe))
    lines = str(error.value).split("\n  ")[1:]
    assert {line.partition(": ")[0] for line in lines} == {
        "arms.adamw.options.weight_decouple",
        "arms.adamw.tuning.grid.lr.1",
    }
    assert all("expected a finite number" in line for line in lines)


def test_arms_and_seeds_have_a_bound(recipe, write):
    arm = {"optim": "emosens", "lr": 1, "tuning": "untuned"}
    recipe |= {"arms": {f"a{n}": arm for n in range(201)}, "seeds": list(range(1001))}
    with pytest.raises(RecipeError, match=r"(?s)seeds: .* at most 1000 items.*arms: .* at most 200 items"):
        loading.recipe(write(recipe))
    recipe |= {"arms": {"emosens": arm, **{f"a{n}": arm for n in range(10)}}, "seeds": list(range(1000))}
    whole = loading.recipe(write(recipe))
    with pytest.raises(RecipeError, match=r"11 arms times 1000 seeds are more than 10,000 runs"):
        whole.run_configs("smoke")
    assert len(whole.run_configs("smoke", seeds=[1])) == 11
