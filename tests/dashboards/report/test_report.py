"""Reports: what they read, how they arrange it, and what is in the file."""

import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from emo_hf.cli import main
from emo_hf.dashboards import report
from emo_hf.dashboards.colours import PALETTE
from emo_hf.dashboards.diagnosis import diagnose
from emo_hf.dashboards.metrics import METRICS
from emo_hf.dashboards.report import numbers, tables
from emo_hf.dashboards.report.page import arrange
from emo_hf.dashboards.report.runs import RecordedRun
from emo_hf.errors import EmoError, RecordError
from tests.dashboards.recorded_runs import row, write_cell, write_rows, write_run, write_sets, write_state


def test_a_run_folder(tmp_path: Path) -> None:
    (run,) = report.read([write_run(tmp_path / "out")])
    assert (run.name, run.optimizer, run.seed, run.steps, run.total_steps) == ("out", "emosens-3.9", 0, 60, 60)
    assert list(run.series["emo/loss"]) == list(range(1, 61))
    assert run.series["train/loss"][5] == 2.95
    assert run.series["eval/loss"] == {20: 3.3, 40: 3.1, 60: 2.9}
    assert run.series["emo/lr"][2] == 2e-4  # not Trainer's, which knows the schedule only
    assert {"eval/runtime", "train/learning_rate", "epoch"}.isdisjoint(run.series)


def test_losses_of_several_evaluation_sets(tmp_path: Path) -> None:
    (run,) = runs = report.read([write_sets(tmp_path / "out" / "trainer_state.json")])
    assert {key for key in run.series if key.startswith("eval/")} == {
        *("eval/a_loss", "eval/b_loss", "eval/a_accuracy", "eval/b_accuracy")
    }
    losses = arrange(runs).sections[0][2][0]
    assert [line.name for line in losses.lines] == ["train/loss", "eval/b_loss", "eval/a_loss"]
    assert [metric.meaning for metric in losses.metrics[1:]] == [
        "loss on the evaluation data b",
        "loss on the evaluation data a",
    ]
    summary = numbers.summary(run)
    assert summary["best eval a loss"] == pytest.approx(1 + 1 / 60)
    assert summary["best eval b loss"] == pytest.approx(2 + 1 / 60)
    assert [name for name in summary if name.startswith("last")] == ["last eval b_accuracy", "last eval a_accuracy"]
    run.series["eval/b_loss"][40] = math.nan
    assert diagnose(run)[0].text.startswith("eval/b_loss was not finite at 1 recorded steps")
    page = report.html(runs)
    assert "eval/a_loss" in page
    assert "runtime" not in page.split("<body")[1].split("<script")[0]
    report.write_png(runs, tmp_path / "picture.png")


def test_several_evaluation_sets_in_a_comparison(tmp_path: Path) -> None:
    runs = report.read([write_sets(tmp_path / name / "trainer_state.json") for name in ("one", "two")])
    titles = [chart.title for chart in arrange(runs).sections[0][2]]
    assert titles[:3] == ["Training loss", "Evaluation loss of b", "Evaluation loss of a"]


def test_the_signals_file_alone(tmp_path: Path) -> None:
    (run,) = report.read([write_run(tmp_path / "out") / "emo_signals.jsonl"])
    assert run.name == "out"
    assert "train/loss" not in run.series
    assert len(run.series["emo/loss"]) == 60


def test_the_newest_checkpoint_tells_what_trainer_logged(tmp_path: Path) -> None:
    for steps in (20, 40):
        write_state(tmp_path / "out" / f"checkpoint-{steps}" / "trainer_state.json", steps)
    (run,) = report.read([tmp_path / "out"])
    assert (run.name, run.steps) == ("out", 40)


def test_an_optimizer_without_emotion_has_the_step_size_of_trainer(tmp_path: Path) -> None:
    (run,) = report.read([write_state(tmp_path / "adamw" / "trainer_state.json", rate=3e-4)])
    assert run.name == "adamw"
    assert set(run.series["emo/lr"].values()) == {3e-4}
    assert "emo/loss" not in run.series


def test_a_folder_of_runs_without_those_moved_aside(tmp_path: Path) -> None:
    for arm in ("emosens", "adamw"):
        for seed in (0, 1):
            write_cell(tmp_path, arm, seed, emo=arm != "adamw")
    aside = tmp_path / "quick" / "small" / "adamw" / "seed0.aside-1"
    write_rows(aside / "history.jsonl", [{"step": 1, "loss": 1.0}])
    runs = report.read([tmp_path, tmp_path / "quick"])  # the same twice counts once
    assert [(run.name, run.optimizer) for run in runs] == [
        (f"quick/small/{arm} seed {seed}", arm) for arm in ("adamw", "emosens") for seed in (0, 1)
    ]
    assert [group.label for group in arrange(runs).groups] == ["adamw", "emosens"]
    assert len(report.read([aside])) == 1


def test_links_that_lead_in_circles(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "round").symlink_to(tmp_path / "runs", target_is_directory=True)
    assert len(report.read([tmp_path])) == 1


def test_somebody_elses_config_does_no_harm(tmp_path: Path) -> None:
    for name, content in {"a": "model: {layers: 2}", "b": "{", "c": "- 1"}.items():
        (write_run(tmp_path / name) / "config.yaml").write_text(content, encoding="utf-8")
    assert [run.name for run in report.read([tmp_path])] == ["a", "b", "c"]


def test_an_offline_wandb_run(tmp_path: Path, session: Any) -> None:
    config = {"emo_optimizer": "emosens", "emo_version": "3.9", "seed": 1, "optim": "adamw_torch"}
    logged = session.init(project="p", name="mine", dir=tmp_path, config=config)
    for step in range(1, 6):
        signals = {name: value for name, value in row(step).items() if name != "step"}
        logged.log({**signals, "train/global_step": step, "eval/loss": math.nan if step == 3 else 1.0})
    session.finish()
    session.teardown()
    (run,) = report.read([tmp_path / "wandb"])
    assert (run.name, run.group, run.seed, run.steps) == ("mine", "emosens-3.9", 1, 5)
    assert run.optimizer == "emosens-3.9"
    assert run.series["emo/loss"][5] == row(5)["emo/loss"]
    assert math.isnan(run.series["eval/loss"][3])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "There is no"),
        ("trainer_state.json", "[1]", "expected a JSON object"),
        ("trainer_state.json", "{", "is not JSON"),
        ("trainer_state.json", '{"log_history": [{"loss": 1}]}', "no state of Trainer"),
        ("trainer_state.json", '{"log_history": []}', "holds no step yet"),
        ("emo_signals.jsonl", "nonsense\n", "line 1"),
        ("emo_signals.jsonl", "", "holds no step yet"),
        ("emo_signals.jsonl", "\xff\n", "line 1"),
        ("run.wandb", "nonsense", "W&B cannot read"),
        ("run.wandb", "", "holds no step yet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(RecordError, match=message) as caught:
        report.read([path])
    assert str(path) in str(caught.value)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no run"):
        report.read([tmp_path])


def test_runs_without_a_step_are_left_out_of_a_folder(tmp_path: Path, caplog) -> None:
    write_cell(tmp_path, "emosens", 0)
    for seed in (1, 2):
        write_rows(write_cell(tmp_path, "adamw", seed, emo=False) / "history.jsonl", [{"step": 0, "total_steps": 9}])
    assert [run.name for run in report.read([tmp_path])] == ["quick/small/emosens seed 0"]
    assert "seed1 holds no step yet" in caplog.text
    with pytest.raises(RecordError, match=r"No run in .* holds a step yet"):
        report.read([tmp_path / "quick" / "small" / "adamw"])


def test_a_run_under_way_with_a_torn_last_row(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    with (folder / "emo_signals.jsonl").open("a") as file:
        file.write('{"step": 61, "emo/lo')
    assert report.read([folder])[0].steps == 60


def test_what_is_not_finite_is_a_gap_and_is_said(tmp_path: Path) -> None:
    rows = [row(step) for step in range(1, 10)]
    del rows[4]["emo/loss"]
    rows[4]["nonfinite"] = ["emo/loss"]
    rows[6]["emo/lr"] = math.inf
    write_rows(tmp_path / "emo_signals.jsonl", rows)
    (run,) = report.read([tmp_path])
    charts = {chart.title: chart for _, _, charts in arrange([run]).sections for chart in charts}
    assert charts["Loss and its averages"].lines[0].y[4] is None
    assert charts["Step size used"].lines[0].y[6] is None
    assert diagnose(run)[0].text == "emo/loss was not finite at 1 recorded steps, first at step 5."
    data(report.html([run]))


def test_long_runs_are_reduced_with_a_band(tmp_path: Path) -> None:
    write_rows(tmp_path / "emo_signals.jsonl", [row(step) for step in range(1, 3001)])
    page = arrange(report.read([tmp_path]))
    assert page.bucket == 2
    line = page.sections[0][2][0].lines[0]
    assert line.name == "emo/lr"
    assert line.x == list(range(2, 3001, 2))
    assert line.y[4] == pytest.approx(9.5e-4)  # steps 9 and 10
    assert (line.low[4], line.high[4]) == (pytest.approx(4.5e-4), pytest.approx(2e-3))  # of emo/lr_min and _max


def test_the_mean_ends_where_the_first_run_breaks_off(tmp_path: Path) -> None:
    for seed, steps in ((0, 60), (1, 40)):
        write_cell(tmp_path, "emosens", seed, steps=steps)
    one, two, mean = arrange(report.read([tmp_path])).sections[0][2][0].lines
    assert (one.kind, two.kind, mean.kind) == ("seed", "seed", "main")
    assert (one.x[-1], two.x[-1], mean.x[-1]) == (60, 40, 40)
    assert mean.y[0] == pytest.approx((one.y[0] + two.y[0]) / 2)


def test_the_same_seed_twice_is_not_a_repetition(tmp_path: Path) -> None:
    runs = report.read([write_run(tmp_path / name, seed=7) for name in ("a", "b")])
    assert [group.label for group in arrange(runs).groups] == ["a", "b"]
    runs = report.read([write_run(tmp_path / name, seed=seed) for seed, name in enumerate("cd")])
    assert [(group.label, len(group.runs)) for group in arrange(runs).groups] == [("emosens-3.9", 2)]


def test_different_optimizers_are_never_one_group(tmp_path: Path) -> None:
    runs = [
        RecordedRun(tmp_path / name, name, "mine/train", name, seed)
        for seed, name in enumerate(("emosens-3.9", "adamw"))
    ]
    for run in runs:
        run.add(1, row(1))
    assert [group.label for group in arrange(runs).groups] == ["emosens-3.9", "adamw"]


def test_labels(tmp_path: Path) -> None:
    def labels(*names: str) -> list[str]:
        runs = [RecordedRun(tmp_path / name, name, name) for name in names]
        for run in runs:
            run.add(1, row(1))
        return [group.label for group in arrange(runs).groups]

    assert labels("quick/small/a", "quick/small/b") == ["a", "b"]
    assert labels("quick/small/a", "quick/paper/a") == ["small/a", "paper/a"]
    assert labels("mine", "mine/again", "other") == ["mine", "mine/again", "other"]
    assert labels("mine", "mine/again") == ["mine", "mine/again"]
    assert labels("quick/small/a") == ["a"]


def test_the_step_size_is_shown_between_the_bounds_of_its_pulse(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    settings = json.loads((folder / "emo_run.json").read_text())
    bounds = {"emo_pulse_floor": 1e-8, "emo_pulse_base": 1e-4, "emo_pulse_ceiling": 3e-3}
    (folder / "emo_run.json").write_text(json.dumps(settings | bounds))
    rows = [row(step) for step in range(1, 61)]
    write_rows(folder / "emo_signals.jsonl", [each | {"emo/lr": each["emo/pulse"] / each["step"]} for each in rows])
    (chart,) = (chart for chart in arrange(report.read([folder])).sections[0][2] if chart.title == "Step size used")
    assert [(line.name, line.kind) for line in chart.lines] == [
        ("emo/lr", "main"),
        ("ceiling", "bound"),
        ("base", "bound"),
        ("floor", "far"),
    ]
    assert chart.lines[1].y == pytest.approx([3e-3 / step for step in range(1, 61)])  # a schedule takes them along
    page = report.html(report.read([folder]))
    assert page.count('<i class="swatch bound">') == 3
    report.write_png(report.read([folder]), tmp_path / "picture.png")


def test_no_chart_repeats_another(tmp_path: Path) -> None:
    def titles(*runs: Path) -> list[str]:
        return [chart.title for _, _, charts in arrange(report.read(runs)).sections for chart in charts]

    folders = [write_cell(tmp_path, "emosens", seed) for seed in (0, 1)]
    assert "Pulse before the schedule" not in titles(folders[0])  # it is the step size
    assert {"Loss and its averages", "Training loss"} <= set(titles(*folders))
    for seed, folder in enumerate(folders):  # the optimizer hears what Trainer logs
        write_rows(folder / "emo_signals.jsonl", [row(s) | {"emo/loss": 2 - s / 100 + seed} for s in range(1, 61)])
    assert "Loss and its averages" in titles(folders[0])
    assert {"Loss and its averages", "Pulse before the schedule"}.isdisjoint(titles(*folders))
    write_rows(folders[1] / "emo_signals.jsonl", [row(s) | {"emo/lr": 1e-4} for s in range(1, 61)])
    assert {"Loss and its averages", "Pulse before the schedule"} <= set(titles(*folders))


def test_a_band_of_other_steps_is_left_out(tmp_path: Path) -> None:
    rows = [row(step) for step in range(1, 9)]
    del rows[3]["emo/lr_min"]
    write_rows(tmp_path / "emo_signals.jsonl", rows)
    assert arrange(report.read([tmp_path])).sections[0][2][0].lines[0].low == []


def test_the_summary_of_a_run(tmp_path: Path) -> None:
    found = numbers.summary(report.read([write_run(tmp_path)])[0])
    assert found["best eval loss"] == 2.9
    assert found["last eval accuracy"] == 0.5
    assert found["loss, last tenth"] == pytest.approx((2.40 + 2.45) / 2)
    assert found["median step size"] == pytest.approx(30.5e-4)
    assert found["share at the ceiling"] == 0
    assert found["steps"] == 60
    first = next(step for step in range(1, 61) if row(step)["emo/stop_share"]) if row(60)["emo/stop_share"] else None
    assert found["first ready at step"] == first


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of each kind."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag
        self.text.setdefault(tag, []).append("")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.text[self._open][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


def data(page: str) -> dict[str, Any]:
    """The JSON in a page; NaN and Infinity, which are no JSON, fail."""

    def fail(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(Elements(page).text["script"][0], parse_constant=fail)


def test_the_policy_lets_only_this_file_run(tmp_path: Path) -> None:
    page = Elements(report.html(report.read([write_run(tmp_path)])))
    policy = next(attrs["content"] for tag, attrs in page.found if attrs.get("http-equiv"))
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.keys() == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    assert rules["default-src"] == "'none'"
    for kind, of in (("style-src", page.text["style"][0]), ("script-src", page.text["script"][1])):
        digest = base64.b64encode(hashlib.sha256(of.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    attributes = {name for _, attrs in page.found for name in attrs}
    assert not {name for name in attributes if name.startswith("on") or name in ("style", "src", "srcdoc")}
    assert [attrs["href"] for _, attrs in page.found if "href" in attrs] == ["data:,"]


def test_the_licence_of_uplot_goes_along(tmp_path: Path) -> None:
    page = report.html(report.read([write_run(tmp_path)]))
    assert "Copyright (c) 2022 Leon Sorokin" in page
    assert "The above copyright notice and this permission notice shall be included" in page


def test_names_cannot_break_out(tmp_path: Path) -> None:
    """Names of runs, groups, optimizers, folders and metrics: no element is there but those of a plain report."""
    name = "</script><script>alert(1)</script><meta http-equiv=refresh><b onload=x><!-- & '\" $title"
    runs = [RecordedRun(tmp_path / name, name, f"{name}{place}", optimizer=name) for place in range(2)]
    for run in runs:
        for step in range(1, 4):
            run.add(step, row(step) | {f"eval_{name}_loss": math.nan, f"eval_{name}": 1.0})
    for shown in (runs[:1], runs):
        page = report.html(shown)
        elements = Elements(page)
        assert "<script>alert" not in page
        assert "<meta http-equiv=refresh" not in page
        assert len([attrs for tag, attrs in elements.found if tag == "meta"]) == 4
        assert not any(name.startswith("on") for _, attrs in elements.found for name in attrs)
        assert len(elements.text["script"]) == 2
        assert "<" not in elements.text["script"][0]
        assert "Step size used" in [chart["title"] for chart in data(page)["charts"]]
    assert data(page)["charts"][0]["lines"][0]["name"].endswith("& '\" $title0")


def test_captions_come_from_the_declarations(tmp_path: Path) -> None:
    terms = Elements(report.html(report.read([write_run(tmp_path)]))).text
    told = " ".join(terms["dd"])
    for key in terms["dt"]:
        if key in METRICS:
            assert METRICS[key].healthy in told
            assert METRICS[key].act in told
    assert {"emo/lr", "emo/scalar", "train/loss", "emo/stop_margin_loss"} <= set(terms["dt"])


def test_the_tables_hold_the_numbers(tmp_path: Path) -> None:
    one = report.html(report.read([write_run(tmp_path / "one")]))
    assert re.search(r'<th scope="row">emo/lr</th><td>0.0001</td><td>0.0001</td><td>0.00305</td><td>0.006</td>', one)
    assert "<dt>best eval loss</dt><dd>2.9</dd>" in one
    for arm, seed in (("emosens", 0), ("emosens", 1), ("adamw", 0)):
        write_cell(tmp_path / "many", arm, seed, emo=arm != "adamw")
    rows = re.findall(r"<tr>(.*?)</tr>", report.html(report.read([tmp_path / "many"])))
    texts = [re.sub(r"<[^>]+>", "|", each).replace("||", "|") for each in rows]
    assert any(re.match(r"\|+adamw\|+1\|+1.5\|", text) for text in texts)
    assert any(re.match(r"\|+emosens\|+2\|+2 \|± 0.71\|", text) for text in texts)
    assert any(re.match(r"\|+emosens seed 1\|+2.5\|", text) for text in texts)


def test_20000_steps_fit_into_a_megabyte(tmp_path: Path) -> None:
    rows = []
    for place, each in enumerate(row(step) for step in range(4, 20001, 4)):  # 5,000 rows, as Recorder writes them
        noise = 1 + math.sin(place * 12.9898) * 0.43758  # so that no digit is saved
        rows.append({key: value * noise if key != "step" else value for key, value in each.items()})
    write_rows(tmp_path / "emo_signals.jsonl", rows)
    page = report.html(report.read([tmp_path]))
    assert 300_000 < len(page.encode()) < 1_000_000
    assert len(data(page)["grids"][0]) <= 1500


def test_a_comparison_stays_small(tmp_path: Path) -> None:
    for seed in range(6):
        write_cell(tmp_path, "emosens", seed, steps=2000)
    assert len(report.html(report.read([tmp_path])).encode()) < 1_000_000


def test_the_same_runs_give_the_same_file(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    assert report.html(report.read([folder])) == report.html(report.read([folder]))


def test_more_optimizers_than_colours(tmp_path: Path) -> None:
    runs = report.read([write_run(tmp_path / str(place), steps=5, optimizer=f"emo{place}") for place in range(20)])
    page = report.html(runs)
    assert len({line["colour"] for line in data(page)["charts"][0]["lines"]}) == 20
    assert len(re.findall(r'<th scope="row"><i class="swatch c\d+ more">', page)) == 2 * (20 - len(PALETTE))


def test_a_picture(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_cell(tmp_path / "many", "emosens", seed)
    for name, place in {"one": write_run(tmp_path / "one"), "many": tmp_path / "many"}.items():
        report.write_png(report.read([place]), tmp_path / "pictures" / f"{name}.png")
        assert (tmp_path / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "emo_hf.dashboards.report.figures", raising=False)
    monkeypatch.delattr(report, "figures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(EmoError, match=r'A picture needs matplotlib: pip install "emo-hf\[recipes\]"'):
        report.write_png(report.read([write_run(tmp_path)]), tmp_path / "x.png")


def test_the_command(tmp_path: Path, capsys) -> None:
    folder = write_run(tmp_path / "out")
    assert main(["report", str(folder), "-o", str(tmp_path / "new" / "r.html"), "--png"]) == 0
    assert (tmp_path / "new" / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (tmp_path / "new" / "r.png").exists()
    assert main(["report", str(tmp_path / "nothing")]) == 2
    assert "There is no" in capsys.readouterr().err


def test_reports_need_neither_torch_nor_wandb(alone, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from emo_hf.dashboards import report
assert len(report.html(report.read([sys.argv[1]]))) > 100_000
assert not sys.modules.keys() & {"torch", "transformers", "wandb", "matplotlib"}
"""
    subprocess.run(alone(script, write_run(tmp_path)), check=True, timeout=60)


def test_texts_that_differ_in_their_numbers_alone_become_one_with_their_ranges() -> None:
    texts = [
        f"eval/b2_loss is {rise} above its least, of step {step}: stop."
        for rise, step in (("9%", "1,200"), ("18%", "94"))
    ]
    assert tables._with_ranges(texts) == "eval/b2_loss is 9% to 18% above its least, of step 94 to 1,200: stop."
    assert tables._with_ranges(texts[:1]) == texts[0]


def test_the_diagnosis_is_on_top_and_runs_that_share_it_share_a_line(tmp_path: Path) -> None:
    for arm, emo in (("adamw_torch", False), ("emosens", True)):
        for seed in (0, 1):
            folder = write_cell(tmp_path, arm, seed, emo=emo)
    history = folder / "history.jsonl"
    history.write_text(history.read_text() + '{"step": 60, "loss": NaN}\n')
    page = report.html(report.read([tmp_path]))
    found = re.findall(r'<li class="(good|advice|alarm)">(.*?)</li>', page)
    (kind, text), *others = found
    assert kind == "advice"
    assert re.fullmatch(
        r"<b>adamw_torch</b>: The loss still falls at the end, by (\d+)% to (\d+)% in the last tenth: .*", text
    )
    assert [(kind, re.sub(r"\d+%", "#", text)) for kind, text in others] == [
        ("advice", "<b>emosens seed 0</b>: The loss still falls at the end, by # in the last tenth: train longer."),
        ("alarm", "<b>emosens seed 1</b>: train/loss was not finite at 1 recorded steps, first at step 60."),
        ("advice", "<b>emosens seed 1</b>: The loss still falls at the end, by # in the last tenth: train longer."),
    ]
    assert page.index(found[0][1]) < page.index("<figure")
    one = report.html(report.read([write_run(tmp_path / "one")]))
    assert re.findall(r'<li class="(\w+)">', one) == ["advice"]
