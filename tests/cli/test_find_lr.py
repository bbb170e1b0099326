"""``find-lr``: the ramp of a recipe's task, its words, and its picture."""

import pytest

from emo_hf import cli
from emo_hf.lab.recipe import loading
from emo_hf.run_folder import RunFolder
from tests import ROOT


@pytest.fixture
def path(recipe, write, tmp_path, monkeypatch):
    """A recipe with trainings of 24 steps, in the current folder."""
    monkeypatch.chdir(tmp_path)
    recipe["sizes"]["smoke"] |= {"steps": 24}
    del recipe["sizes"]["smoke"]["epochs"]
    return write(recipe)


def test_it_says_what_it_found_and_draws_it(path, tmp_path, capsys):
    lines = []
    for times in (1, 2):
        assert cli.main(["find-lr", path, "--size", "smoke"]) == 0
        lines.append(capsys.readouterr().out.splitlines()[-3:])  # deepspeed may say something first
        assert len(list((tmp_path / "find-lr").iterdir())) == times  # what was there before stays
    first, second = lines
    assert first[0].startswith("tiny (smoke), seed 0: found ")
    assert first[1].startswith("Learning rate for AdamW: ")
    assert first[:2] == second[:2]
    assert (first[2], second[2]) == (
        "Drawn: find-lr/tiny-smoke/ramp.svg",
        "Drawn: find-lr/tiny-smoke-2/ramp.svg",
    )
    assert "tiny/smoke/emofree seed 0" in (tmp_path / "find-lr/tiny-smoke/ramp.svg").read_text()
    run_config = loading.run_config(RunFolder(tmp_path / "find-lr/tiny-smoke").config)
    assert (run_config.recipe, run_config.seed, run_config.arm.optim) == ("tiny", 0, "emofree")


def test_the_ramps_of_several_are_one_picture(path, tmp_path, capsys):
    for seed in ("3", "4"):
        assert cli.main(["find-lr", path, "--size", "smoke", "--seed", seed, "-o", f"found/{seed}"]) == 0
    assert cli.main(["plot", "ramp", "found", "-o", "all.svg"]) == 0
    assert capsys.readouterr().out.endswith("Drawn: all.svg\n")
    drawn = (tmp_path / "all.svg").read_text()
    assert all(f"tiny/smoke/emofree seed {seed}" in drawn for seed in (3, 4))


def test_what_cannot_be_done_is_an_error(path, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    assert cli.main(["find-lr", path, "--size", "smoke", "-o", "there"]) == 1
    assert "there exists already: nothing was written" in capsys.readouterr().err
    assert cli.main(["find-lr", str(ROOT / "recipes/functions/rosenbrock.yaml")]) == 2
    assert "give a recipe that trains a model" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "find-lr").exists()


def test_a_ramp_that_does_not_end_is_an_error(path, recipe, write, capsys):
    recipe["sizes"]["smoke"]["steps"] = 3
    assert cli.main(["find-lr", write(recipe), "--size", "smoke"]) == 2
    assert "ramp did not end within the 3 steps of this training" in " ".join(capsys.readouterr().err.split())


def test_a_run_without_a_ramp_has_no_picture(tmp_path, capsys):
    (tmp_path / "emo_signals.jsonl").write_text('{"step": 1, "emo/loss": 1.0, "emo/lr": 1.0}\n')
    assert cli.main(["plot", "ramp", str(tmp_path)]) == 2
    assert "expected a run of emofree" in " ".join(capsys.readouterr().err.split())
