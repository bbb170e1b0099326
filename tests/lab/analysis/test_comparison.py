"""The files of a comparison: its recipe as it was, its runs, and the report that is written from them."""

import json
import logging
import re

import pytest
import yaml

from emo_hf.cli import main
from emo_hf.errors import RecipeError
from emo_hf.lab.analysis import comparison
from emo_hf.lab.recipe import loading
from emo_hf.lab.report import comparison_report
from tests.lab import made_up_runs

SEEDLESS = json.dumps({"recipe": "tiny", "size": "smoke", "arm": "emosens", "optimizer": "x", "tuning": "y"})
EMOSENS, ADAMW = [0.71, 0.72, 0.74], [0.61, 0.62, 0.63]


@pytest.fixture
def recipe(recipe) -> dict:
    rule = [{"arm": "emosens", "against": "adamw", "better_by": 0}]
    claim = {"claim": "emosens wins", "source": "README", "baseline": "adamw", "rule": rule}
    return recipe | claim | {"seeds": [0, 1, 2]}


@pytest.fixture
def place(recipe, write, tmp_path):
    """A finished comparison of made-up runs."""
    path = write(recipe)
    place = tmp_path / "runs/tiny/smoke"
    loaded = loading.recipe(path)
    run_configs = loaded.run_configs("smoke")
    comparison.record(place, loaded, path)
    for run_config, accuracy in zip(run_configs, EMOSENS + ADAMW, strict=True):
        folder, numbers = place / run_config.name / f"seed{run_config.seed}", {"eval_loss": 1.0, "seconds": 2.0}
        made_up_runs.finish(folder, run_config, accuracy=accuracy, **numbers)
    return place


def lose(place, run: str, log: str) -> None:
    """Lets a run fail."""
    (place / run / "summary.json").unlink()
    (place / run / "log.txt").write_text(log)


def test_read(place):
    results = comparison.read(place)
    assert [(row.arm, row.n) for row in results.rows] == [("emosens", 3), ("adamw", 3)]
    assert results.complete
    assert results.verdict.answer == "reproduced"
    assert results.environments == [{"runs": 6, **made_up_runs.ENV}]
    estimate, diverged = results.difference("emosens")
    assert (estimate.n, estimate.mean, diverged) == (3, pytest.approx(0.31 / 3), 0)


def test_seeds_that_are_not_the_recipes_do_not_count(place, recipe, write):
    before = comparison.read(place).verdict
    for run_config, accuracy in zip(
        loading.recipe(write(recipe)).run_configs("smoke", seeds=[7, 8]), (0.1, 0.1, 0.9, 0.9), strict=True
    ):
        made_up_runs.finish(
            place / run_config.name / f"seed{run_config.seed}",
            run_config,
            accuracy=accuracy,
            eval_loss=1.0,
            seconds=2.0,
        )
    results = comparison.read(place)
    assert results.verdict == before
    assert [row.n for row in results.rows] == [5, 5]
    assert results.difference("emosens")[0].n == 5  # decides nothing
    comparison_report.write(results, place / "report")
    assert (
        "uses the seeds of the recipe only. The tables also hold these: 7, 8."
        in (place / "report/report.md").read_text()
    )


def test_more_seeds_are_another_question(place, recipe, write):
    recipe["seeds"] = [0, 1, 2, 3]
    record(place, recipe, write)
    assert comparison.read(place).rule_changes == 1


def test_failed_and_missing_runs(place):
    lose(place, "emosens/seed0", "Traceback\nemo_hf.errors.NonFiniteLossError: the loss is nan\n")
    lose(place, "emosens/seed1", f"403 for https://me:sesame@hub/x?token=hf_{'a1' * 17} in /home/me/.cache/x.bin\n")
    lose(place, "adamw/seed1", "")
    (place / "adamw/seed2").rename(place / "adamw/seed2.aside-1")
    results = comparison.read(place)
    assert [(run.arm, run.seed, run.diverged) for run in results.failed] == [
        ("adamw", 1, False),
        ("emosens", 0, True),
        ("emosens", 1, False),
    ]
    assert results.failed[0].reason == "broke off without a message"
    assert "a1a1" not in results.failed[2].reason
    assert "/home" not in results.failed[2].reason
    assert "sesame" not in results.failed[2].reason
    assert results.missing == [("adamw", 2)]
    assert results.values("emosens", "accuracy") == {0: float("-inf"), 2: 0.74}
    assert results.values("emosens", "eval_loss")[0] == float("inf")
    assert results.values("emosens", "perplexity") == {0: float("inf")}
    assert results.verdict.answer == "inconclusive"


def test_a_null_is_the_worst_value(place, recipe):
    file = place / "emosens/seed0/summary.json"
    file.write_text(file.read_text().replace('"accuracy": 0.71', '"accuracy": null'))
    results = comparison.read(place)
    assert results.values("emosens", "accuracy")[0] == float("-inf")
    assert results.verdict.answer == "inconclusive"


def test_runs_of_another_configuration_are_named_and_ignored(place, recipe, write):
    for run, change in {"emosens/seed0": {"batch_size": 4}, "adamw/seed1": None}.items():
        config = place / run / "config.yaml"
        content = yaml.safe_load(config.read_text())
        content["scale"] |= change or {}
        content |= {} if change else {"of_another": "version"}
        config.write_text(yaml.safe_dump(content))
    results = comparison.read(place)
    assert results.ignored == ["adamw/seed1", "emosens/seed0"]
    assert [row.n for row in results.rows] == [2, 2]
    comparison_report.write(results, place / "report")
    assert "not the recipe's: adamw/seed1" in (place / "report/report.md").read_text()


def test_only_a_sweep_that_is_judged_is_part_of_the_question(place, recipe, write):
    one, other = ({"optim": "adamw_torch", "tuning": "untuned", "sweep": rates} for rates in ([1e-3, 1e-2], [0.1, 1]))
    recipe["arms"] |= {"first": one, "second": one, "unjudged": one}
    recipe["secondary"] = [{"sweep": "first", "against": "second", "within": 0.1, "better_by": 0}]
    record(place, recipe, write)
    before = comparison.read(place).rule_changes
    recipe["arms"] |= {"unjudged": other, "another": other}
    record(place, recipe, write)
    assert comparison.read(place).rule_changes == before
    recipe["arms"]["second"] = other
    record(place, recipe, write)
    assert comparison.read(place).rule_changes == before + 1


def test_a_rule_that_changed_is_visible(place, recipe, write, caplog):
    recipe["description"] = "other words"
    record(place, recipe, write)
    assert comparison.read(place).rule_changes == 0
    assert not caplog.records
    recipe["rule"][0]["better_by"] = 0.5
    with caplog.at_level(logging.WARNING):
        record(place, recipe, write)
    assert "the recipe's rule changed after runs were made" in caplog.text
    results = comparison.read(place)
    assert (results.rule_changes, results.verdict.answer) == (1, "not reproduced")
    assert loading.recipe(str(place / "recipe.aside-1.yaml")).rule[0].better_by == 0
    comparison_report.write(results, place / "report")
    assert (
        "secondary lines, baseline, sweeps or seeds) changed once after the first run."
        in (place / "report/report.md").read_text()
    )


def record(place, recipe, write) -> None:
    path = write(recipe)
    comparison.record(place, loading.recipe(path), path)


def test_a_rule_may_change_before_the_first_run(recipe, write, tmp_path):
    record(tmp_path / "place", recipe, write)
    recipe["rule"][0]["better_by"] = 0.5
    record(tmp_path / "place", recipe, write)
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["recipe.yaml"]
    assert loading.recipe(str(tmp_path / "place/recipe.yaml")).rule[0].better_by == 0.5


def test_recorded_recipe_is_the_recipe(recipe, write, tmp_path):
    recipe["rule"] += [
        {"sweep": "sens", "against": "lion", "within": 0.1, "better_by": 0},
        {"order": ["emosens", "adamw", "sens-lr-1"], "metric": "eval_loss", "at_least": 0.5},
    ]
    recipe["published"] = {"source": "a figure", "values": {"accuracy": {"emosens": 0.75}}}
    recipe["arms"]["sens"] = {"optim": "emosens", "sweep": [0.1, 1], "tuning": "untuned"}
    recipe["arms"]["lion"] = {"optim": "lion", "sweep": [1e-5, 1e-4], "tuning": "untuned"}
    record(tmp_path / "place", recipe, write)
    assert loading.recipe(str(tmp_path / "place/recipe.yaml")) == loading.recipe(write(recipe))


def test_report_is_the_same_without_the_folders_and_every_time(place, tmp_path):
    lose(place, "emosens/seed0", "OutOfMemoryError: no room\n")
    assert main(["report", str(place)]) == 0
    first = contents(place / "report")
    assert list(first) == ["recipe.yaml", "report.html", "report.json", "report.md", "runs.jsonl"]
    assert main(["report", str(place)]) == 0
    assert contents(place / "report") == first
    assert main(["report", str(place / "report")]) == 0
    assert contents(place / "report") == first
    assert main(["report", str(place / "report"), "-o", str(tmp_path / "copy")]) == 0
    assert contents(tmp_path / "copy") == first


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_report_says_what_matters(place, capsys):
    recipe = place / "recipe.yaml"
    content = yaml.safe_load(recipe.read_text())
    content["published"] = {
        "source": "a figure",
        "values": {"accuracy": {"emosens": 0.75}, "eval_loss": {"adamw": 0.9}},
    }
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    assert main(["report", str(place)]) == 0
    assert capsys.readouterr().out.startswith("Reproduced: emosens wins (size smoke, n = 3).\nWritten: ")
    text = (place / "report/report.md").read_text()
    lines = text.splitlines()
    assert lines[2] == "**Reproduced: emosens wins (size smoke, n = 3).**"
    assert lines[4] == "> Untuned: emosens, adamw. A tuned setting may do better."
    assert "| 1. accuracy: emosens better than adamw | reproduced | 0.1033 | [0.08899, 0.1177] | 3 | - |" in lines
    assert "| emosens | 3 | 0.7233 ± 0.015 | 0.75 | +0.103 [+0.089, +0.118], n = 3 | 1 ± 0 |" in text
    assert "| adamw | eval_loss | 0.9 | 1 ± 0 |" in lines
    assert "emo-hf run" in text
    assert "torch 2.13.0" in text
    report = json.loads((place / "report/report.json").read_text())
    assert (report["verdict"], report["lines"][0]["level"], report["complete"]) == ("reproduced", 0.95, True)
    assert report["lines"][0]["seeds"] == pytest.approx({"0": 0.1, "1": 0.1, "2": 0.11})


def test_a_claim_that_fails_is_said_first(place, recipe, write):
    recipe["rule"] = [{"arm": "adamw", "against": "emosens", "better_by": 0}]
    record(place, recipe, write)
    comparison_report.write(comparison.read(place), place / "report")
    page = (place / "report/report.html").read_text()
    verdict = "Not reproduced: emosens wins (size smoke, n = 3; 1 of the 1 lines of its rule failed)."
    assert f'<body class="text bad">\n<h1>tiny (smoke)</h1>\n<p><strong>{verdict}</strong></p>' in page


def test_no_rule_no_verdict(place):
    recipe = place / "recipe.yaml"
    content = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**content, "rule": []}, sort_keys=False))
    assert comparison.read(place).verdict.answer is None
    comparison_report.write(comparison.read(place), place / "report")
    assert "**No verdict: this recipe has no rule.**" in (place / "report/report.md").read_text()


def test_words_of_a_recipe_are_no_markup(place, recipe, write):
    recipe |= {"description": "<script>alert(1)</script> | a *b* [c](d)\n# e", "claim": "1. x <b>"}
    recipe |= {"source": "![x](javascript:alert(1)) <https://a.b> [r]: c", "caveat": "`a` **b** &amp; ](x)"}
    record(place, recipe, write)
    comparison_report.write(comparison.read(place), place / "report")
    page = (place / "report/report.html").read_text()
    assert "<script" not in page
    assert "<p>&lt;script&gt;alert(1)&lt;/script&gt; | a *b* [c](d) # e</p>" in page
    assert not re.search(r"<a |<img|<link rel=.stylesheet| style=| on\w+=", page.split("</style>")[1])
    assert "<li>Source: ![x](javascript:alert(1)) &lt;https://a.b&gt; [r]: c</li>" in page
    assert "<li>Caveat: `a` **b** &amp;amp; ](x)</li>" in page
    text = (place / "report/report.md").read_text()
    assert "\n\n\\<script>alert(1)\\</script> \\| a \\*b\\* [c\\](d) # e\n\n" in text


def test_pictures_beside_it_are_part_of_the_page(place):
    folder = place / "report"
    folder.mkdir()
    (folder / "loss-panel 2.png").write_bytes(b"\x89PNG")
    assert main(["report", str(place)]) == 0
    assert '<img src="data:image/png;base64,iVBORw==" alt="loss panel 2" />' in (folder / "report.html").read_text()
    assert "![loss panel 2](loss-panel%202.png)" in (folder / "report.md").read_text()


def test_nothing_else_is_overwritten(place, tmp_path, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "report.md").write_text("mine")
    assert main(["report", str(place), "-o", str(folder)]) == 2
    assert "holds report.md, and no report of tiny at size smoke: nothing was written" in " ".join(
        capsys.readouterr().err.split()
    )
    assert contents(folder) == {"report.md": b"mine"}
    (folder / "report.json").write_text('{"kind": "emo-hf comparison", "recipe": "other", "size": "smoke"}')
    assert main(["report", str(place), "-o", str(folder)]) == 2
    (folder / "report.json").write_text('{"kind": "emo-hf comparison", "recipe": "tiny", "size": "smoke"}')
    assert main(["report", str(place), "-o", str(folder)]) == 0
    assert contents(folder)["report.md"] != b"mine"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("runs.jsonl", "{", "is no summary"),
        ("runs.jsonl", SEEDLESS, "has no seed"),
        ("report.json", "{", "is not as emo-hf wrote it"),
        ("report.json", '{"environments": 3}', "is not as emo-hf wrote it"),
        ("report.json", '{"failed": [{"arm": "x"}]}', "is not as emo-hf wrote it"),
        ("report.json", f'{{"environments": [{{"cpu_threads": {10**400}}}]}}', "is not as emo-hf wrote it"),
        ("report.json", "[]", "is not as emo-hf wrote it"),
        ("recipe.yaml", "name: tiny", "problems"),
    ],
)
def test_broken_results_are_one_message(place, name, text, message):
    comparison_report.write(comparison.read(place), place / "report")
    (place / "report" / name).write_text(text)
    with pytest.raises(RecipeError, match=message):
        comparison.read(place / "report")


def test_results_that_do_not_belong_together(place, recipe, write):
    folder = place / "report"
    comparison_report.write(comparison.read(place), folder)
    lines = (folder / "runs.jsonl").read_text()
    (folder / "runs.jsonl").write_text(lines + lines.splitlines()[0] + "\n")
    with pytest.raises(RecipeError, match="twice"):
        comparison.read(folder)
    (folder / "runs.jsonl").write_text(lines.replace('"smoke"', '"small"', 1))
    with pytest.raises(RecipeError, match="several recipes or sizes"):
        comparison.read(folder)
    (folder / "runs.jsonl").write_text("")
    with pytest.raises(RecipeError, match="is finished"):
        comparison.read(folder)


def test_curves_of_a_comparison_are_still_drawn(place, tmp_path):
    for number, run in enumerate(place.glob("*/seed*")):
        (run / "history.jsonl").write_text(
            json.dumps({"step": 1, "loss": float(number), "learning_rate": 1e-4}) + "\n"
        )
    assert main(["report", str(place), "-o", str(tmp_path / "curves.html")]) == 0
    assert "<figure" in (tmp_path / "curves.html").read_text()


TRAINED = """
import yaml
run_config = yaml.safe_load((folder / "config.yaml").read_text())
run = {"recipe": "tiny", "size": "smoke", "arm": run_config["name"], "seed": run_config["seed"], "tuning": "untuned"}
accuracy = 0.8 if run_config["name"] == "emosens" else 0.7
run |= {"optimizer": run_config["arm"]["optim"], "accuracy": accuracy, "eval_loss": None}
(folder / "summary.json").write_text(json.dumps(run))
"""


def test_run_ends_with_the_verdict_of_all_runs(stand_in, recipe, write, tmp_path, capsys):
    stand_in(TRAINED)
    command = ["run", write(recipe), "--size", "smoke", "--runs-dir", str(tmp_path / "runs")]
    assert main([*command, "--arms", "emosens"]) == 0
    assert "reproduced" not in capsys.readouterr().out
    assert loading.recipe(str(tmp_path / "runs/tiny/smoke/recipe.yaml")).rule
    assert main(command) == 0
    out = capsys.readouterr().out.splitlines()
    assert "1. accuracy: emosens better than adamw: reproduced, 0.1 [0.1, 0.1], n = 3" in out
    assert "Reproduced: emosens wins (size smoke, n = 3)." in out
