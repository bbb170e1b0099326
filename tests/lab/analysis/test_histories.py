"""Tables out of runs, and the pictures drawn from the tables."""

import gzip
import json
import math
import statistics
import sys
from itertools import pairwise

import numpy as np
import pytest

from emo_hf import lab
from emo_hf.cli import main
from emo_hf.dashboards.colours import OWN, PALETTE
from emo_hf.errors import RecipeError
from emo_hf.lab import figures
from emo_hf.lab.analysis import comparison, histories
from emo_hf.lab.figures import panels, style
from emo_hf.lab.report import comparison_report
from tests.lab import made_up_runs
from tests.lab.figures.test_figures import size_of_png


def rows_of(folder, arm, seed):
    path = folder / arm / f"seed{seed}" / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def reported(place, out):
    """Writes the results of the comparison in `place` into `out`, without pictures."""
    results = comparison.read(place)
    comparison_report.write(results, out)
    histories.write(results, out)


def unzipped(path):
    return gzip.decompress(path.read_bytes()).decode()


def drawn_of(place, out):
    reported(place, out)
    return figures.draw(out)


@pytest.fixture
def place(tmp_path):
    return made_up_runs.write(tmp_path / "runs", made_up_runs.recipe())


def test_curves_are_moments_over_the_seeds(place, tmp_path):
    reported(place, tmp_path / "out")
    curves = histories.read(tmp_path / "out", histories.CURVES)
    assert list(dict.fromkeys(curves["arm"])) == ["emosens", "emosens-unfed", "adamw"]
    assert unzipped(tmp_path / "out/curves.csv.gz").startswith("# every step; mean, sd and n (finite values)")
    row = curves[(curves["arm"] == "adamw") & (curves["step"] == 50)].iloc[0]
    losses = [[r["loss"] for r in rows_of(place, "adamw", seed) if "loss" in r] for seed in (0, 1)]
    at = [seed[49] for seed in losses]
    assert row["loss"] == pytest.approx(statistics.fmean(at), rel=1e-3)
    assert row["loss_sd"] == pytest.approx(statistics.stdev(at), rel=1e-3)
    assert (row["loss_n"], row["accuracy_n"]) == (2, 2)
    rolling = [statistics.stdev(seed[30:50]) for seed in losses]
    assert row["fluctuation"] == pytest.approx(statistics.fmean(rolling), rel=1e-3)
    assert math.isnan(curves["fluctuation"].iloc[18])
    assert curves["accuracy"].notna().sum() == 3 * 6


def test_a_full_disk_leaves_the_tables_and_pictures_of_before(place, tmp_path, full_disk):
    drawn_of(place, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (place / "adamw/seed1/summary.json").unlink()
    results = comparison.read(place)
    with full_disk():
        with pytest.raises(OSError, match="No space left"):
            histories.write(results, tmp_path / "out")
        with pytest.raises(OSError, match="No space left"):
            figures.draw(tmp_path / "out")
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert after == before


def test_a_mean_without_one_seed_is_missing_and_n_says_why(place, tmp_path):
    path = place / "adamw/seed1/history.jsonl"
    rows = [r | ({"loss": None} if r["step"] > 40 and "loss" in r else {}) for r in rows_of(place, "adamw", 1)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    (place / "adamw/seed1/summary.json").write_text(
        json.dumps(json.loads((place / "adamw/seed1/summary.json").read_text()) | {"accuracy": None})
    )
    drawn = drawn_of(place, tmp_path / "out")
    curves = histories.read(tmp_path / "out", histories.CURVES)
    after = curves[(curves["arm"] == "adamw") & (curves["step"] > 40)]
    assert after["loss"].isna().all()
    assert set(after["loss_n"]) == {1}
    assert "differences.png" in [path.name for path in drawn]


def test_runs_of_other_settings_are_left_out(place):
    (place / "adamw/seed0/config.yaml").write_text("of: an earlier version")
    path = place / "emosens/seed1/config.yaml"
    path.write_text(path.read_text().replace("batch_size: 8", "batch_size: 4"))
    (place / "emosens/seed0").rename(place / "emosens/seed0.aside-1")
    assert list(comparison.read(place).folders) == [("emosens-unfed", 0), ("emosens-unfed", 1), ("adamw", 1)]


def test_tables_of_earlier_versions_are_read(place, tmp_path):
    reported(place, tmp_path)
    names = histories.CURVES, histories.TRAJECTORY
    tables = [histories.read(tmp_path, name) for name in names]
    for name in names:
        (tmp_path / name.removesuffix(".gz")).write_text(unzipped(tmp_path / name))
        (tmp_path / name).unlink()
    for name, table in zip(names, tables, strict=True):
        assert histories.read(tmp_path, name).equals(table)


def test_a_table_is_the_same_file_every_time(place, tmp_path):
    results = comparison.read(place)
    for out in ("one", "two"):
        histories.write(results, tmp_path / out)
    assert (tmp_path / "one" / histories.CURVES).read_bytes() == (tmp_path / "two" / histories.CURVES).read_bytes()


def test_broken_tables_are_one_message(place, tmp_path):
    reported(place, tmp_path)
    whole = (tmp_path / histories.CURVES).read_bytes()
    for content in (b"no gzip", whole[:100], whole[:50] + b"x" * 50 + whole[100:]):
        (tmp_path / histories.CURVES).write_bytes(content)
        with pytest.raises(RecipeError, match="is no table"):
            histories.read(tmp_path, histories.CURVES)


def test_long_runs_are_thinned_but_keep_every_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr(histories, "LARGEST", 5200)
    place = made_up_runs.write(tmp_path / "runs", made_up_runs.recipe())
    reported(place, tmp_path)
    text = unzipped(tmp_path / "curves.csv.gz")
    assert len(text) <= 5200
    assert text.startswith("# every 3 steps, and evaluations;")
    steps = histories.read(tmp_path, histories.CURVES).query("arm == 'adamw'")["step"]
    assert {1, 3, 6, 10, 20, 50, 60} <= set(steps)
    assert 7 not in set(steps)


def test_runs_say_what_a_figure_has_to_know(place, tmp_path):
    reported(place, tmp_path)
    runs = histories.runs(tmp_path).drop_duplicates("arm").set_index("arm")
    assert dict(runs["like"]) == {"emosens": "emosens", "emosens-unfed": "emosens", "adamw": "adamw"}
    assert list(runs["withheld"]) == [False, True, False]
    assert list(runs["emo"]) == [True, True, False]
    assert list(runs["baseline"]) == [False, False, True]
    assert list(runs["default_lr"]) == [1e-3, 1e-3, 5e-5]


def test_plane_of_the_trajectories(place, tmp_path):
    reported(place, tmp_path)
    table = histories.read(tmp_path, histories.TRAJECTORY)
    arms = list(dict.fromkeys(table["arm"]))
    weights = [np.load(place / arm / "seed0/trajectory.npz")["weights"] for arm in arms]
    points = np.concatenate(weights).astype(np.float64)
    centred = points - points.mean(0)
    variances = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    assert table["share1"].iloc[0] == pytest.approx(variances[0] / variances.sum(), rel=1e-3)
    assert table["share2"].iloc[0] == pytest.approx(variances[1] / variances.sum(), rel=1e-3)
    assert np.var(table["pc1"]) * len(table) == pytest.approx(variances[0], rel=1e-3)
    assert set(table["seed"]) == {0}
    starts = table[table["step"] == 0]
    assert starts["pc1"].nunique() == 1  # one seed, one start


def test_figures_that_apply_are_drawn_twice_alike(place, tmp_path):
    drawn = drawn_of(place, tmp_path / "one")
    assert [path.name for path in drawn] == ["loss.png", "trajectory.png", "differences.png"]
    for path in drawn:
        assert min(size_of_png(path)) > 200
        assert path.stat().st_size < 150_000
    again = drawn_of(place, tmp_path / "two")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in drawn]


def test_what_has_one_value_for_each_run_has_no_panel(place, tmp_path):
    reported(place, tmp_path)
    table = histories.read(tmp_path, histories.CURVES)
    at_the_end = table.assign(eval_loss=table["eval_loss"].where(table["step"] == table["step"].max()))
    earlier = at_the_end.drop(columns=["step_size", "step_size_sd"])  # versions kept no step sizes
    heights = []
    for curves in (table, at_the_end, earlier):
        curves.to_csv(tmp_path / histories.CURVES, index=False)
        figures.loss(tmp_path, tmp_path / "loss.png")
        heights.append(size_of_png(tmp_path / "loss.png")[1])
    panel = heights[1] - heights[2]
    assert heights[0] - heights[1] == panel > 200


def test_sweeps_are_drawn_as_a_basin(tmp_path):
    arms = {
        "emosens": {"optim": "emosens", "sweep": [0.1, 1.0, 10.0], "tuning": "untuned"},
        "adamw": {"optim": "adamw_torch", "sweep": [1e-5, 5e-5], "tuning": "untuned"},
    }
    content = made_up_runs.recipe({"arms": arms, "baseline": None, "rule": [], "measure": []})
    drawn = drawn_of(made_up_runs.write(tmp_path / "runs", content), tmp_path / "out")
    assert [path.name for path in drawn] == ["basin.png"]
    runs = histories.runs(tmp_path / "out")
    assert list(style.styles(runs, by="family")) == ["emosens", "adamw"]
    assert set(runs["like"]) == {"emosens-lr-0.1", "adamw-lr-1e-05"}


@pytest.mark.parametrize(("singles", "lines"), [(1, []), (2, ["loss.png"])])
def test_beside_sweeps_a_line_needs_another(tmp_path, singles, lines):
    arms = {"sens": {"optim": "emosens", "sweep": [0.1, 1.0], "tuning": "untuned"}}
    arms |= {f"single{n}": {"optim": "emosens", "lr": 1.0, "tuning": "untuned"} for n in range(singles)}
    content = made_up_runs.recipe({"arms": arms, "baseline": None, "rule": [], "measure": []})
    drawn = drawn_of(made_up_runs.write(tmp_path / "runs", content), tmp_path / "out")
    assert [path.name for path in drawn] == [*lines, "basin.png"]


def edited(folder, change):
    """Writes the curves in `folder` again, as `change` makes them."""
    table = histories.read(folder, histories.CURVES)
    change(table)
    table.to_csv(folder / histories.CURVES, index=False)


def test_no_fluctuation_is_drawn_of_fewer_steps_than_its_window(place, tmp_path):
    reported(place, tmp_path)

    def shorten(table):
        table["fluctuation"] = math.nan

    edited(tmp_path, shorten)
    with pytest.raises(RecipeError, match="has no fluctuation: expected runs with 20 logged losses"):
        figures.fluctuation(tmp_path, tmp_path / "x.png")


@pytest.mark.parametrize(("risen", "height", "inside"), [(1, 2.5, True), (2, 9.0, True), (1, 9.0, False)])
def test_only_an_outlier_leaves_the_frame(place, tmp_path, monkeypatch, risen, height, inside):
    """The validation losses of three arms are 1 at first; then those of one or two rise to `height`."""
    reported(place, tmp_path)

    def rise(table):
        evaluated, late = table["eval_loss"].notna(), table["step"] > 30
        table["eval_loss_sd"] = 0.0
        table.loc[evaluated, "eval_loss"] = 1.0
        table.loc[evaluated & late & table["arm"].isin(["emosens", "adamw"][:risen]), "eval_loss"] = height

    edited(tmp_path, rise)
    kept = []
    monkeypatch.setattr(panels, "save", lambda figure, path: kept.append(figure))
    figures.loss(tmp_path, tmp_path / "x.png")
    assert (kept[0].axes[-1].get_ylim()[1] > height) == inside
    assert kept[0].get_supxlabel().endswith("; what lies higher is cut off") != inside


def test_plot_commands(place, tmp_path, capsys):
    drawn_of(place, tmp_path / "trec")
    task = {"type": "causal-lm", "data": {"files": "tinyshakespeare"}}
    content = made_up_runs.recipe({"name": "lm", "task": task, "metric": "perplexity", "measure": []})
    drawn_of(made_up_runs.write(tmp_path / "runs", content, data_dir=tmp_path), tmp_path / "lm")
    out = tmp_path / "x.png"
    trec, lm = str(tmp_path / "trec"), str(tmp_path / "lm")
    for kind, folders in {"loss": [trec], "fluctuation": [lm], "three-panel": [trec, lm]}.items():
        assert main(["plot", kind, *folders, "-o", str(out)]) == 0
        assert size_of_png(out)[0] >= 750
        out.unlink()
    for kind, folders, message in (
        ("loss", [str(tmp_path)], "has no curves.csv.gz"),
        ("basin", [trec], "has no sweep"),
        ("three-panel", [lm, trec], "has no accuracy"),
    ):
        assert main(["plot", kind, *folders, "-o", str(out)]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
        assert not out.exists()


def test_unreadable_runs_are_one_message(place, tmp_path):
    (place / "adamw/seed0/history.jsonl").write_text('{"step": 1, "loss"')
    with pytest.raises(RecipeError, match="is no history of a run"):
        reported(place, tmp_path / "out")
    with pytest.raises(RecipeError, match=r"has no recipe\.yaml: expected RUNS/<recipe>/<size>"):
        histories.runs(tmp_path)


def test_paired_differences(place, tmp_path):
    reported(place, tmp_path)
    runs = histories.runs(tmp_path)
    table = histories.differences(runs)
    by = runs.set_index(["arm", "seed"])["value"]
    values = table[table["arm"] == "emosens"]["difference"]
    expected = [by["emosens", seed] - by["adamw", seed] for seed in (0, 1)]
    assert list(values) == pytest.approx(expected)


def test_labels_are_pushed_apart_but_stay_in_order_and_inside():
    table = style._spread([0.0, 0.0, 0.01, 0.5, 1.0, 1.0], 0.1)
    assert table == sorted(table)
    assert min(b - a for a, b in pairwise(table)) >= 0.1 - 1e-9
    assert table[0] >= 0
    assert table[-1] <= 1


def test_an_arm_and_its_twin_with_the_loss_withheld_share_a_colour(place, tmp_path):
    reported(place, tmp_path)
    styles = style.styles(histories.runs(tmp_path))
    assert styles["emosens"]["color"] == styles["emosens-unfed"]["color"]
    assert styles["emosens"]["linestyle"] != styles["emosens-unfed"]["linestyle"]
    assert styles["adamw"]["color"] == PALETTE[OWN["adamw"]][0]


def test_report_of_a_comparison_has_the_pictures_in_it(place, tmp_path, capsys, monkeypatch):
    assert main(["report", str(place)]) == 0
    folder = place / "report"
    names = {path.name for path in folder.iterdir()}
    assert {"curves.csv.gz", "trajectory.csv.gz", "loss.png", "trajectory.png", "differences.png"} <= names
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert main(["plot", "loss", str(folder), "-o", str(tmp_path / "again.png")]) == 0
    assert (tmp_path / "again.png").read_bytes() == (folder / "loss.png").read_bytes()
    assert main(["report", str(place)]) == 0
    assert (folder / "report.html").read_text() == page


def test_report_without_matplotlib_has_the_tables(place, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("emo_hf.lab.figures")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(lab, "figures")
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    assert main(["report", str(place)]) == 0
    assert "There are no new pictures: A picture needs matplotlib" in capsys.readouterr().out
    assert (place / "report/curves.csv.gz").exists()
    assert not list((place / "report").glob("*.png"))
