"""Recipes: what is right is read, what is wrong is named, all of it at once."""

import re
from pathlib import Path

import pytest
import yaml

from emo_hf.errors import RecipeError
from emo_hf.lab import load
from emo_hf.lab.spec import Cell, Recipe

ROOT = Path(__file__).parents[2]
RECIPES = load.shipped(ROOT / "recipes")


def problems(path: str) -> list[str]:
    """Returns the lines below the first of the error that reading `path` raises."""
    with pytest.raises(RecipeError) as error:
        load.recipe(path)
    head, *lines = str(error.value).split("\n  ")
    assert head == f"{path}: {len(lines)} problem{'s' if len(lines) > 1 else ''}"
    return lines


def test_all_recipes_are_found():
    assert len(RECIPES) == 48


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_recipes(path, tmp_path):
    recipe = load.recipe(str(path))
    assert "smoke" in recipe.sizes
    for size in recipe.sizes if isinstance(recipe, Recipe) else ():
        folder = tmp_path if recipe.task.data.files else None
        assert len(recipe.cells(size, data_dir=folder)) == len(recipe.arms) * len(recipe.seeds)
    command = path.read_text().splitlines()[0]
    assert command.startswith(f"# emo-hf run {path.relative_to(ROOT)}")


def test_bare_name(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert load.recipe("quickstart").name == "quickstart"
    with pytest.raises(RecipeError, match=r"No recipe 'quikstart'.*Did you mean 'quickstart'"):
        load.recipe("quikstart")


def test_all_problems_at_once(recipe, write):
    recipe["descripton"] = recipe.pop("description")
    recipe["metric"] = "acuracy"
    recipe["seeds"] = [0, -1, True]
    recipe["sizes"]["smoke"]["model"]["config"]["layers"] = 0
    recipe["sizes"]["smoke"]["batchsize"] = recipe["sizes"]["smoke"].pop("batch_size")
    recipe["arms"]["emosens"] |= {"lr": -1.0, "options": {"stopcof": 0.1}}
    recipe["arms"]["adamw"] |= {"shedule": "linear"}
    del recipe["arms"]["adamw"]["tuning"]
    lines = problems(write(recipe))
    expected = [
        "description: missing",
        "descripton: unknown key. Did you mean 'description'?",
        "metric: expected 'accuracy', 'perplexity'",
        "seeds.1: expected greater than or equal to 0 (got -1)",
        "seeds.2: expected a valid integer (got True)",
        "sizes.smoke.model.config.layers: expected greater than or equal to 1 (got 0)",
        "sizes.smoke.batch_size: missing",
        "sizes.smoke.batchsize: unknown key. Did you mean 'batch_size'?",
        "arms.emosens.lr: expected greater than 0 (got -1.0)",
        "arms.emosens.options: emosens-3.9: unknown option 'stopcof'. Did you mean 'stopcoef'?",
        "arms.adamw.tuning: missing",
        "arms.adamw.shedule: unknown key. Did you mean 'schedule'",
    ]
    assert len(lines) == len(expected)
    for start in expected:
        assert any(line.startswith(start) for line in lines), (start, lines)


def test_no_number_is_out_of_all_bounds(recipe, write):
    huge = 10**9 + 1
    smoke = recipe["sizes"]["smoke"]
    smoke |= {"epochs": huge, "batch_size": huge, "evaluations": huge, "max_tokens": huge}
    smoke["model"]["config"]["vocabulary"] = 10**6 + 1
    recipe["sizes"]["small"] |= {"steps": huge, "epochs": None}
    recipe |= {"processes": huge, "seeds": [2**32]}
    recipe["arms"]["adamw"] |= {"condition": {"corrupted_every": huge, "train_examples": huge}}
    expected = {
        "processes": 10**9,
        "seeds.0": 2**32,
        "sizes.smoke.model.config.vocabulary": 10**6,
        **{f"sizes.smoke.{key}": 10**9 for key in ("epochs", "batch_size", "max_tokens", "evaluations")},
        "sizes.small.steps": 10**9,
        **{f"arms.adamw.condition.{key}": 10**9 for key in ("corrupted_every", "train_examples")},
    }
    lines = problems(write(recipe))
    assert [line.partition(": expected less than ")[0] for line in lines] == list(expected)
    for line, most in zip(lines, expected.values(), strict=True):
        assert re.search(rf"less than (or equal to )?{most} \(got", line), line


@pytest.mark.parametrize("secret", ["hf_" + "aB3dE5gH" * 4, "https://user:sesame@host/x"])
def test_keys_and_passwords_are_refused_wherever_they_stand(recipe, write, secret):
    recipe["description"] = recipe["claim"] = f"see {secret}"
    recipe["arms"]["adamw"]["tuning"] = {"how": "grid", "grid": {"lr": [1, 2]}, "chosen_by": secret}
    with pytest.raises(RecipeError, match="no key or password belongs into a recipe") as error:
        load.recipe(write(recipe))
    _, *lines = str(error.value).split("\n  ")
    assert [line.partition(": ")[0] for line in lines] == ["description", "arms.adamw.tuning.chosen_by", "claim"]
    assert not any(part in str(error.value) for part in (secret, "sesame"))


def test_unknown_key_lists_the_known_ones(recipe, write):
    recipe["arms"]["emosens"]["learning_rate"] = 1.0
    assert problems(write(recipe)) == [
        "arms.emosens.learning_rate: unknown key. Known: optim, lr, options, weight_decay, schedule, warmup, "
        "feed, heard, driven_by, replay, weights, condition, handover, local_sgd_steps, tuning, family"
    ]


def test_whole_recipe_is_consistent(recipe, write):
    recipe |= {"seeds": [1, 1], "default_size": "paper"}
    recipe["sizes"]["small"]["arms"] = {"emosesn": {"lr": 1.0, "tuning": "untuned"}}
    assert problems(write(recipe)) == [
        "default_size: 'paper' is not among sizes: smoke, small",
        "sizes.small.arms.emosesn: no such arm. Did you mean 'emosens'?",
        "seeds: got [1, 1], expected every seed once",
    ]


def test_running_text_has_no_halves(recipe, write):
    recipe |= {"task": {"type": "causal-lm", "data": {"files": "tinyshakespeare"}}, "metric": "perplexity"}
    recipe["arms"]["emosens"]["handover"] = {"optimizer": "fresh", "data": "halves"}
    expected = ["arms.emosens.handover.data: halves are of classes, and running text has none"]
    assert problems(write(recipe)) == expected


@pytest.mark.parametrize(
    "name", ["..", "../up", "a/b", "a\\b", "/abs", "C:x", ".hidden", "-x", "a..b", "a\n", "", "Ä"]
)
def test_names_cannot_leave_the_runs_folder(recipe, write, name):
    recipe["name"] = name
    recipe["arms"] = {name: recipe["arms"]["adamw"]}
    recipe["sizes"]["small"].pop("arms")
    lines = problems(write(recipe))
    assert len(lines) == 2
    assert all(line.endswith(f"joined by single . _ or - (got {name!r})") for line in lines)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"optim": "emosesn"}, "arms.adamw.optim: unknown optimizer 'emosesn'. Did you mean 'emosens'"),
        ({"options": {"betas": [0.9, 0.99]}}, "arms.adamw.options: the optimizers of transformers take none here"),
        ({"optim": "emosens", "options": {"lr": 1.0}}, "arms.adamw.options: lr: write it beside options"),
        ({"optim": "emovoid", "weight_decay": 0.1}, "arms.adamw.weight_decay: emovoid has no weight decay"),
        ({"warmup": 0.1}, "arms.adamw.warmup: schedule constant has none"),
        ({"schedule": "linaer"}, "arms.adamw.schedule: expected"),
        (
            {"feed": False},
            "arms.adamw: feed and heard are for emo optimizers and driven_by, and 'adamw_torch' is neither",
        ),
        ({"heard": {"scale": 2.0}}, "arms.adamw: feed and heard are for emo optimizers"),
        (
            {"optim": "emosens", "feed": False, "heard": {"offset": 1.0}},
            "arms.adamw: feed: false leaves nothing to change",
        ),
        ({"optim": "emosens", "driven_by": "emopulse"}, "arms.adamw: driven_by is for other optimizers"),
        ({"replay": {"of": "emosens"}}, "arms.adamw: replay is for emo optimizers from 3.7 on"),
        ({"schedule": "linear", "handover": {"optimizer": "fresh"}}, "arms.adamw: a handover to a fresh optimizer"),
        ({"optim": "emonavi-3.6", "replay": {"of": "emosens"}}, "arms.adamw: replay is for emo optimizers from 3.7"),
        ({"sweep": [0.1]}, "arms.adamw.sweep: unknown key."),
        ({"optim": "emosens", "heard": {}}, "arms.adamw.heard: changes nothing: give scale or offset"),
        ({"optim": "emosens", "heard": {"scale": 1.0}}, "arms.adamw.heard: changes nothing"),
        (
            {"condition": {}},
            "arms.adamw.condition: changes nothing: give label_noise, corrupted_every or train_examples",
        ),
        ({"tuning": "none"}, "arms.adamw.tuning.how: expected"),
        ({"tuning": {"how": "grid", "grid": {"lr": [1.0]}}}, "arms.adamw.tuning: how: grid, grid and chosen_by go"),
    ],
)
def test_nothing_in_an_arm_is_without_effect(recipe, write, change, line):
    recipe["arms"]["adamw"] |= change
    (found,) = problems(write(recipe))
    assert found.startswith(line)


@pytest.mark.parametrize("option", ["bets", "params", "kwargs"])
def test_options_of_another_package(recipe, write, option):
    pytest.importorskip("pytorch_optimizer")  # without it, nothing can be said
    recipe["arms"]["adamw"] |= {"optim": "lion", "options": {option: [0.9, 0.99]}}
    (found,) = problems(write(recipe))
    assert found.startswith(f"arms.adamw.options: lion has no option {option}, only lr, betas")
    assert "kwargs" not in found.partition("only")[2]


def test_sweep_stands_for_arms(recipe, write):
    recipe["arms"]["adamw"] = {"optim": "adamw_torch", "sweep": [0.001, 1e-5], "tuning": "untuned"}
    found = load.recipe(write(recipe))
    assert {name: arm.lr for name, arm in found.arms.items()} == {
        "emosens": 1,
        "adamw-lr-0.001": 0.001,
        "adamw-lr-1e-05": 1e-5,
    }
    assert found.families == {"adamw": ["adamw-lr-0.001", "adamw-lr-1e-05"]}


@pytest.mark.parametrize(
    ("rates", "line"),
    [
        ([], "got no rate, expected one or more"),
        ([0.1, 0.1], "adamw-lr-0.1 is there already"),
        ([0.1, 0.10000001], "adamw-lr-0.1 is there already"),
        ([0.5], "adamw-lr-0.5 is there already"),
    ],
)
def test_sweep_stands_for_arms_of_its_own(recipe, write, rates, line):
    other = recipe["arms"]["adamw"]
    sweep = {"optim": "adamw_torch", "sweep": rates, "tuning": "untuned"}
    recipe["arms"] |= {"adamw": sweep, "adamw-lr-0.5": other}
    (found,) = problems(write(recipe))
    assert found.startswith(f"arms.adamw.sweep: {line}")


@pytest.mark.parametrize(
    ("of", "line"),
    [("again", "again is itself a replay"), ("more", "more is itself a replay"), ("adamw", "adamw has no pulse")],
)
def test_replays_of_what_can_be_replayed(recipe, write, of, line):
    again = {"optim": "emosens", "lr": 1, "replay": {"of": of}, "tuning": "untuned"}
    recipe["arms"] |= {"again": again, "more": again | {"replay": {"of": "emosens"}}}
    (found,) = problems(write(recipe))
    assert found.startswith(f"arms.again.replay.of: {line}")


def test_batches_are_corrupted_within_the_steps(recipe, write):
    recipe["sizes"]["small"] |= {"steps": 10, "epochs": None}
    recipe["arms"]["adamw"]["condition"] = {"corrupted_every": 10}
    expected = "arms.adamw.condition.corrupted_every: got 10, expected less than the 10 steps of sizes.small"
    assert problems(write(recipe)) == [expected]
    recipe["arms"]["adamw"]["condition"] = {"corrupted_every": 9}
    assert load.recipe(write(recipe))


def test_rule_names_what_there_is(recipe, write):
    recipe["rule"] = [
        {"arm": "emosens", "against": "adma", "better_by": 0},
        {"arm": "emosens", "beyond": {"arm": "adamw", "against": "emosens"}, "at_most": 1.0},
        {"sweep": "emosens", "against": "adamw", "within": 0.1, "better_by": 0},
        {"order": ["emosens", "adamw", "x"], "at_least": 0.5},
    ]
    recipe["baseline"] = "adam"
    recipe["published"] = {"source": "a paper", "values": {"accuracy": {"sgd": 1.0}}}
    lines = problems(write(recipe))
    for expected in (
        "rule: decides a claim: give claim and source",
        "rule.0: no such arm: adma. Did you mean 'adamw'?",
        "rule.1: beyond takes a difference from a difference: give against",
        "rule.2: no such sweep: emosens.",
        "rule.2: no such sweep: adamw.",
        "rule.3: no such arm: x.",
        "baseline: no such arm: adam. Did you mean 'adamw'?",
        "published: no such arm: sgd.",
    ):
        assert expected in lines
        lines.remove(expected)
    assert lines == []


def test_lines_of_a_rule(recipe, write):
    recipe["rule"] = [
        {"arm": "emosens", "agianst": "adamw", "better_by": 0},
        {"arm": "emosens", "against": "adamw"},
        {"sweep": "emosens", "against": "adamw", "better_by": 0},
    ]
    lines = problems(write(recipe))
    assert lines[0].startswith("rule.0.agianst: unknown key. Did you mean 'against'")
    assert lines[1:] == [
        "rule.1: give exactly one of better_by, worse_by_at_most, at_least, at_most",
        "rule.2.within: missing",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"arm": "adamw", "against": "adamw", "better_by": 0}, "arm and against are both adamw"),
        ({"sweep": "adamw", "against": "adamw", "within": 0.1, "better_by": 0}, "sweep and against are both adamw"),
        (
            {"arm": "adamw", "against": "emosens", "beyond": {"arm": "x", "against": "x"}, "better_by": 0},
            "arm and against are both x",
        ),
        (
            {"arm": "adamw", "metric": "perplexity", "at_most": 9},
            "no perplexity of adamw: it takes the task causal-lm",
        ),
        ({"arm": "adamw", "metric": "gap", "at_most": 1}, "no gap of adamw: it takes equal_train_loss"),
        (
            {"arm": "emosens", "against": "adamw", "metric": "stop_share", "better_by": 0},
            "no stop_share of adamw: it takes an emo optimizer, or driven_by",
        ),
        (
            {"order": ["emosens", "adamw", "driven"], "metric": "stop_regret", "at_least": 0},
            "no stop_regret of adamw:",
        ),
        (
            {"sweep": "sgd", "against": "sens", "within": 1, "metric": "stop_share", "at_least": 0},
            "no stop_share of sgd-",
        ),
        ({"arm": "emosens", "metric": "kurtosis_correlation", "at_most": 1}, "no kurtosis_correlation of emosens: it"),
        ({"arm": "emosens", "metric": "earlier_accuracy", "at_most": 1}, "no earlier_accuracy of emosens: it takes a"),
    ],
)
def test_a_line_has_a_number(recipe, write, line, problem):
    recipe["also"] = [line]
    untuned = {"tuning": "untuned", "optim": "adamw_torch"}
    recipe["arms"]["driven"] = {**untuned, "lr": 0.001, "driven_by": "emopulse"}
    recipe["arms"]["sgd"] = {**untuned, "sweep": [0.1]}
    recipe["arms"]["sens"] = {**untuned, "optim": "emosens", "sweep": [1]}
    (found,) = problems(write(recipe))
    assert re.match(rf"also\.0(\.beyond)?: {problem}", found)


def test_metric_that_no_arm_has(recipe, write):
    recipe["metric"] = "skewness_correlation"
    recipe["also"] = [{"arm": "emosens", "at_least": 0}]
    expected = "metric: no arm has skewness_correlation: it takes an emo optimizer with options: {moments: log}"
    assert problems(write(recipe)) == [expected]
    recipe["arms"]["emosens"]["options"] = {"moments": "log"}
    assert load.recipe(write(recipe))


def test_text_has_no_accuracy(recipe, write):
    recipe["task"] = {"type": "causal-lm", "data": {"embedded": "sentences"}}
    assert problems(write(recipe)) == ["metric: no arm has accuracy: it takes a task of classes"]


@pytest.mark.parametrize("line", ["emosens", None, ["emosens"], 3])
def test_a_line_has_keys(recipe, write, line):
    recipe["rule"] = [line]
    (found,) = problems(write(recipe))
    assert found.startswith("rule.0: expected keys and values")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_to_compare_with_are_finite(recipe, write, value):
    recipe["rule"] = [{"arm": "adamw", "at_least": value}, {"arm": "adamw", "at_most": value}]
    recipe["published"] = {"source": "a paper", "values": {"accuracy": {"adamw": value}}}
    recipe["arms"]["emosens"]["heard"] = {"offset": value}
    lines = problems(write(recipe))
    places = ("rule.0.at_least", "rule.1.at_most", "published.values.accuracy.adamw", "arms.emosens.heard.offset")
    assert sorted(lines) == sorted(f"{place}: expected a finite number (got {value})" for place in places)


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
    found = load.recipe(child(name="other", seeds=[7], arms={"emosens": emosens}))
    assert (found.name, found.seeds, found.description) == ("other", [7], "a test")
    assert list(found.arms) == ["emosens"]
    assert list(found.sizes) == ["smoke", "small"]


@pytest.mark.parametrize("name", ["nowhere.yaml", "/recipe.yaml", 3, "a\0.yaml", f"{'a' * 5000}.yaml"])
def test_extends_a_file(child, name):
    with pytest.raises(RecipeError, match="extends: expected a YAML file"):
        load.recipe(child(extends=name))


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
        assert load.recipe(str(child)).name == "other"
        return
    with pytest.raises(RecipeError, match=r"seen from this one's folder, below .*recipes, got"):
        load.recipe(str(child))


def test_extends_one_level(child, recipe):
    recipe["extends"] = "child.yaml"
    with pytest.raises(RecipeError, match="one level only"):
        load.recipe(child())


def test_replays_know_their_seed(recipe, write):
    replay = {"of": "emosens", "other_seed": True}
    recipe["arms"]["again"] = {"optim": "emosens", "lr": 1, "replay": replay, "tuning": "untuned"}
    found = load.recipe(write(recipe))
    cells = found.cells("smoke", ["again"])
    assert [(cell.seed, cell.replayed_seed) for cell in cells] == [(0, 1), (1, 0)]
    assert found.cells("smoke", ["again"], [1]) == cells[1:]  # whatever part is run
    others = found.cells("smoke", ["again"], [7, 8])
    assert [cell.replayed_seed for cell in others] == [8, 7]
    assert all(found.has(cell) for cell in cells + others)
    assert not found.has(cells[1].model_copy(update={"replayed_seed": 1}))
    with pytest.raises(RecipeError, match="again replays another seed than 7: give a second one"):
        found.cells("smoke", ["again"], [0, 7])


def test_exactly_one_source(recipe, write):
    recipe["task"]["data"] = {}
    hub = {"name": "a", "revision": "b"}
    recipe["sizes"]["smoke"]["model"]["hub"] = hub
    assert problems(write(recipe)) == [
        "task.data: give embedded, or hub and files, or one of these two",
        "sizes.smoke.model: give exactly one of config, vision, hub, llama2c",
    ]


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
        load.recipe(write(text))


def test_numbers_with_exponent(recipe, write):
    text = yaml.safe_dump(recipe).replace("lr: 0.001", "lr: 1e-3")
    assert "1e-3" in text
    assert load.recipe(write(text)).arms["adamw"].lr == 0.001


def test_cells(recipe, write, tmp_path):
    found = load.recipe(write(recipe))
    cells = found.cells("small")
    assert [(cell.name, cell.seed) for cell in cells] == [("emosens", 0), ("emosens", 1), ("adamw", 0), ("adamw", 1)]
    assert [cell.arm.lr for cell in cells] == [0.1, 0.1, 0.001, 0.001]  # the size changes one arm
    assert str(cells[0].arm.tuning) == "grid: lr 0.1, 1"
    assert found.cells("smoke")[0].arm.lr == 1
    picked = found.cells("smoke", ["adamw"], [7])
    assert [(cell.name, cell.seed) for cell in picked] == [("adamw", 7)]
    with pytest.raises(RecipeError, match=r"no size 'paper', only smoke, small"):
        found.cells("paper")
    with pytest.raises(RecipeError, match=r"no arm 'adam'.*Did you mean 'adamw'"):
        found.cells("smoke", ["adam"])
    with pytest.raises(RecipeError, match="leave out --data-dir"):
        found.cells("smoke", data_dir=tmp_path)


def test_a_grid_counts_for_a_model_of_the_hub_only_where_the_size_says_so(recipe, write):
    hub = {"model": {"hub": {"name": "a/b", "revision": "main"}}, "epochs": 1, "batch_size": 8}
    grid = {"how": "grid", "grid": {"lr": [0.1, 1]}, "chosen_by": "loss on held-out texts"}
    recipe["sizes"]["paper"] = hub
    recipe["arms"]["emosens"]["tuning"] = grid
    recipe["arms"]["adamw"]["tuning"] = "authors' default"
    found = load.recipe(write(recipe))
    for size, expected in (("smoke", "grid: lr 0.1, 1"), ("paper", "untuned")):
        tunings = [str(cell.arm.tuning) for cell in found.cells(size, seeds=[0])]
        assert tunings == [expected, "authors' default"]
    recipe["sizes"]["paper"] = {**hub, "arms": {"emosens": {"lr": 0.1, "tuning": grid}}}
    found = load.recipe(write(recipe))
    (cell,) = found.cells("paper", ["emosens"], [0])
    assert str(cell.arm.tuning) == "grid: lr 0.1, 1"
    assert found.has(cell)


def test_cell_survives_its_file(recipe, write, tmp_path):
    recipe["arms"]["emosens"]["options"] = {"betas": [0.8, 0.9], "use_shadow": True, "branch": "long"}
    cell = load.recipe(write(recipe)).cells("small")[0]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(cell.model_dump(mode="json", exclude_none=True)))
    assert load.cell(path) == cell
    assert isinstance(load.cell(path), Cell)


def test_needs_hub(trec_folder):
    recipe = load.recipe(str(ROOT / "recipes/trec/gpt2-emosens.yaml"))
    assert recipe.cells()[0].size == "paper"
    assert recipe.cells("paper", data_dir=trec_folder)[0].needs_hub  # the model
    assert recipe.cells("small")[0].needs_hub  # the data
    assert not recipe.cells("small", data_dir=trec_folder)[0].needs_hub
