"""The model card of an arm: what is in the files, valid for the hub, and nothing that should not leave a machine."""

import json
import re
import statistics
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from emo_hf import registry
from emo_hf.cli import main
from emo_hf.hf.card import plain
from emo_hf.lab.report import card, card_data
from emo_hf.lab.report.card_text import plain_revision
from emo_hf.lab.report.templating import count
from tests import ROOT
from tests.lab import made_up_runs
from tests.lab.figures.test_figures import size_of_png

TOKEN = "hf_" + "aB3dE5gH" * 4


@pytest.fixture
def comparison(tmp_path):
    return made_up_runs.write(tmp_path / "runs", made_up_runs.recipe())


@pytest.mark.parametrize("stem", ["trec-gpt2", "vision-fashion", "language-shakespeare", "lora-stories"])
def test_committed_cards_are_the_generated_ones(monkeypatch, stem):
    monkeypatch.chdir(ROOT)
    family, results = stem.split("-")
    results = {"gpt2": "gpt2-emosens"}.get(results, results)
    data = card_data.read(Path(f"recipes/{family}/results/{results}"), "emosens")
    made = str(card.render(data, f"{stem}-emosens.png", "apache-2.0")).rstrip() + "\n"
    committed = Path(f"model_cards/{stem}-emosens.md").read_text(encoding="utf-8")
    assert made == committed, "run the commands of model_cards/README.md"


def test_card_of_an_arm(comparison, tmp_path, capsys, full_disk):
    path = tmp_path / "out/card.md"
    assert main(["card", str(comparison / "emosens"), "-o", str(path), "--license", "mit"]) == 0
    assert size_of_png(path.with_suffix(".png"))[0] > 1000
    loaded = ModelCard.load(path)
    accuracies = [json.loads(p.read_text())["accuracy"] for p in comparison.glob("emosens/*/summary.json")]
    (result,) = loaded.data.eval_results
    assert result.metric_value == pytest.approx(statistics.fmean(accuracies), rel=1e-5)
    assert (result.dataset_type, result.dataset_revision) == ("CogComp/trec", "abc123")
    assert (result.task_type, result.metric_type) == ("text-classification", "accuracy")
    assert (loaded.data.license, loaded.data.tags) == ("mit", ["emo_hf", "emosens"])
    row, text = registry.find("emosens-2.0"), loaded.text
    for expected in (
        *row.quirks,
        row.source,
        "| mean ± sd | ",
        f"{statistics.fmean(accuracies):.3f} ± {statistics.stdev(accuracies):.3f}",
        "`lr (1 - \\|scalar\\|)`",
        "torch 2.13.0+cpu",
        "`CogComp/trec` (revision `abc123`) of the hub; 5,452 training",
        "![Loss, step size and emotion of one run](card.png)",
    ):
        assert expected in text
    before = path.read_bytes(), path.with_suffix(".png").read_bytes()
    with full_disk():
        assert main(["card", str(comparison / "emosens"), "-o", str(path), "-f"]) == 1
    assert (path.read_bytes(), path.with_suffix(".png").read_bytes()) == before
    assert main(["card", str(comparison / "emosens"), "-o", str(path)]) == 2
    assert "exists: give another file by -o, or --force" in " ".join(capsys.readouterr().err.split())
    assert main(["card", str(comparison), "--arm", "adamw", "-o", str(path), "--force"]) == 0
    text = path.read_text()
    assert '`optim="adamw_torch"` of transformers' in text
    assert "grid: lr 0.0001, 0.001, chosen by held-out loss" in text


def test_verdict_is_that_of_the_comparison(comparison):
    text = card.render(card_data.read(comparison, "emosens"), None).text
    assert "Claim: EmoSens is better than AdamW (source: its README). Verdict by the recipe's rule, fixed" in text
    assert "fixed before the runs: **inconclusive**.\n\n* accuracy: emosens better than adamw: inconclusive" in text
    (comparison / "adamw/seed1/summary.json").unlink()
    (comparison / "recipe.aside-1.yaml").write_text("")
    text = card.render(card_data.read(comparison, "emosens"), None).text
    assert "changed after runs were made: **inconclusive**. Preliminary: not all runs of the comparison" in text


def test_results_folder_gives_the_card_of_the_runs(comparison, tmp_path, monkeypatch):
    results = tmp_path / "results"
    results.mkdir()
    (results / "recipe.yaml").write_text("# emo-hf run recipes/x.yaml\n" + (comparison / "recipe.yaml").read_text())
    summaries = [json.loads(path.read_text()) for path in sorted(comparison.glob("*/*/summary.json"))]
    (results / "runs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in summaries))
    (results / "report.json").write_text(json.dumps({"environments": [{"runs": 6, **made_up_runs.ENV}]}))
    ours = card.render(card_data.read(results, "emosens"), None).text
    theirs = card.render(card_data.read(comparison, "emosens"), None).text
    assert "emo-hf run recipes/x.yaml --size small --arms emosens --data-dir DIR\n" in ours
    result = re.compile(r"## Result.*?## Limits", re.DOTALL)
    assert result.search(ours)[0] == result.search(theirs)[0]


def test_what_is_not_finite_has_no_mean_and_no_entry(comparison):
    path = comparison / "emosens/seed1/summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "accuracy": None}))
    made = card.render(card_data.read(comparison, "emosens"), None)
    assert made.data.eval_results is None
    assert "| 1 | not finite |" in made.text


def test_nothing_of_the_machine_reaches_a_card(tmp_path):
    content = made_up_runs.recipe(
        {
            "description": "read from /home/somebody/data\n# not a heading | <script>x</script>",
            "claim": "see [here](https://example.org) and ~/notes.txt, C:\\Users\\somebody\\x",
            "source": "https://example.org/a/b and `code`",
        }
    )
    grid = {"how": "grid", "grid": {"lr": [1, 2]}, "chosen_by": "/root/notes | loss"}
    content["sizes"]["small"]["arms"] = {"emosens": {"lr": 1e-4, "tuning": grid}}
    folder = tmp_path / "secret-user/trec"
    comparison = made_up_runs.write(tmp_path / "runs", content, data_dir=folder)
    for path in comparison.glob("*/*/env.json"):
        path.write_text(json.dumps({**made_up_runs.ENV, "device": f"cpu {TOKEN} https://somebody:sesame@host/x"}))
    made = card.render(card_data.read(comparison, "emosens"), None)
    text = str(made)
    private = ("somebody", "secret-user", str(tmp_path), "/root", "notes.txt", TOKEN, "sesame")
    for unwanted in (*private, "<script>", "\n# not"):
        assert unwanted not in text
    assert "original files of `trec-6` in a local folder DIR" in text
    assert "--data-dir DIR" in text
    assert "https://example.org/a/b and \\`code\\`" in text
    assert "chosen by DIR \\| loss" in text
    assert made.data.eval_results[0].dataset_revision is None
    assert plain_revision(TOKEN) == "..."


def test_no_card_of_a_recipe_with_a_key(comparison, capsys, tmp_path):
    path = comparison / "recipe.yaml"
    path.write_text(path.read_text().replace("its README", f"its README {TOKEN}"))
    assert main(["card", str(comparison / "emosens"), "-o", str(tmp_path / "x.md")]) == 2
    assert main(["report", str(comparison)]) == 2
    error = capsys.readouterr().err
    assert "source: holds what looks like a key or token" in " ".join(error.split())
    assert TOKEN not in error
    assert not (tmp_path / "x.md").exists()
    assert not (comparison / "report").exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("*x* [y](z) `q`", "\\*x\\* \\[y\\](z) \\`q\\`"),
        ("one\n# two", "one # two"),
        ("and/or 1/2 https://a.b/c", "and/or 1/2 https://a.b/c"),
        ("in /home/me/x, (/tmp)", "in DIR, (DIR)"),
        ("key 0123456789abcdef0123456789abcdef01234567", "key ..."),
        ("emosens-unfed_2", "emosens-unfed_2"),
        ("see https://me:sesame@host/x.", "see https://...@host/x."),
        ("ssh://git@github.com/a/b http://localhost:80/a@b", "ssh://git@github.com/a/b http://localhost:80/a@b"),
    ],
)
def test_text_of_others_is_shown_and_not_obeyed(text, shown):
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{runs}"], "holds several arms: choose one by --arm"),
        (["{runs}", "--arm", "emosesn"], "Did you mean 'emosens'"),
        (["{runs}/adamw", "--arm", "emosens"], "leave out --arm emosens"),
        (["{tmp}"], "has no recipe.yaml: expected RUNS/<recipe>/<size>"),
    ],
)
def test_bad_input_is_one_message(comparison, tmp_path, capsys, args, message):
    places = {"runs": comparison, "tmp": tmp_path}
    path = tmp_path / "x.md"
    assert main(["card", *(arg.format(**places) for arg in args), "-o", str(path)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not path.exists()


@pytest.mark.parametrize(
    ("n", "told"), [(1, "1 epoch"), (1.0, "1 epoch"), (0.5, "0.5 epochs"), (1000, "1,000 epochs")]
)
def test_nouns_are_counted(n, told):
    assert count(n, "epoch") == told
