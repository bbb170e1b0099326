"""The drawing of a ramp: what it takes from a record, and what it draws."""

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from emo_hf.dashboards import report
from emo_hf.dashboards.diagnosis import diagnose
from emo_hf.dashboards.report import ramp
from emo_hf.dashboards.report.ramp import Ramp
from tests.dashboards.recorded_runs import row, write_rows, write_run

SVG = "{http://www.w3.org/2000/svg}"
AGREEMENTS = [0.0, 0.0, 0.7, 0.8, 0.5, 0.1]  # the last one is that of the first step after the ramp


def write_ramp(folder: Path, agreements: list[float] = AGREEMENTS, ended: bool = True, **more: Any) -> Path:
    """Writes a run whose step size doubles at every step of its ramp."""
    rows = []
    for step, agreement in enumerate(agreements, start=1):
        after = float(ended and step == len(agreements))
        own = {"agreement": agreement, "agreement_end": 0.2, "steering": after, "lr": 1e-4 * 2**step, **more}
        rows.append(row(step) | {f"emo/{name}": value for name, value in own.items()})
    write_rows(folder / "emo_signals.jsonl", rows)
    settings = {"emo_optimizer": "emofree", "emo_version": "1.0", "total_steps": 60}
    (folder / "emo_run.json").write_text(json.dumps(settings | ({"emo_found_lr": 1.6e-3} if ended else {})))
    return folder


def read(folder: Path) -> Ramp | None:
    (run,) = report.read([folder])
    return Ramp.of(run)


def test_each_agreement_stands_over_the_step_that_was_judged(tmp_path: Path) -> None:
    found = read(write_ramp(tmp_path / "out"))
    assert found.sizes == pytest.approx([4e-4, 8e-4, 1.6e-3, 3.2e-3])
    assert found.agreements == (0.7, 0.8, 0.5, 0.1)
    assert (found.title, found.end, found.found) == ("out", 0.2, 1.6e-3)


def test_a_ramp_under_way_is_drawn_without_a_find(tmp_path: Path) -> None:
    found = read(write_ramp(tmp_path, ended=False))
    assert found.found is None
    assert "of-found" not in ramp.svg([found])
    assert "not ended" in ramp.svg([found])


def test_a_long_title_keeps_its_end() -> None:
    drawn = ramp.svg([Ramp("tournament/" * 6 + "seed 10", (1e-4, 2e-4), (0.5, 0.1))])
    (title,) = (text.text for text in ET.fromstring(drawn).iter(f"{SVG}text") if text.get("class") == "title")
    assert (len(title), title[0], title[-8:]) == (ramp.LONGEST, "…", "/seed 10")


def test_what_has_no_ramp_has_none(tmp_path: Path) -> None:
    assert read(write_run(tmp_path / "emosens")) is None
    assert read(write_ramp(tmp_path / "begun", AGREEMENTS[:3], ended=False)) is None
    assert "The ramp" not in report.html(report.read([tmp_path / "emosens"]))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_picture_has_a_panel_for_each(tmp_path: Path, count: int) -> None:
    path = tmp_path / "new" / "ramp.svg"
    ramp.write([read(write_ramp(tmp_path / f"<{place}>")) for place in range(count)], path)
    root = ET.fromstring(path.read_text())
    titles = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "title"]
    assert titles == [f"<{place}>" for place in range(count)]
    assert int(root.get("width")) == min(count, ramp.COLUMNS) * ramp.WIDTH
    (style,) = root.iter(f"{SVG}style")
    assert "prefers-color-scheme: dark" in style.text


def test_everything_lies_within_the_axes(tmp_path: Path) -> None:
    wild = read(write_ramp(tmp_path, [0.0, 9.0, -7.0, 0.3, 0.2]))
    root = ET.fromstring(ramp.picture([wild]))
    (curve,) = root.iter(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in curve.get("points").split()]
    assert all(ramp.LEFT <= x <= ramp.WIDTH - ramp.RIGHT for x, _ in points)
    assert all(ramp.TOP <= y <= ramp.HEIGHT - ramp.BOTTOM for _, y in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    (found,) = (line for line in root.iter(f"{SVG}line") if line.get("class") == "found")
    share = math.log(wild.found / wild.sizes[0]) / math.log(wild.sizes[-1] / wild.sizes[0])
    assert float(found.get("x1")) == pytest.approx(points[0][0] + share * (points[-1][0] - points[0][0]), abs=0.2)


def test_the_report_shows_it(tmp_path: Path) -> None:
    write_ramp(tmp_path / "a")
    write_ramp(tmp_path / "b")
    one, two = report.html(report.read([tmp_path / "a"])), report.html(report.read([tmp_path]))
    assert one.count('<svg xmlns="http://www.w3.org/2000/svg" class="ramp"') == 1
    assert (one.count('class="curve"'), two.count('class="curve"')) == (1, 2)
    assert one.index("<h2>Health</h2>") < one.index("<h2>The ramp</h2>") < one.index("<h2>Numbers</h2>")
    assert "style=" not in one[one.index('class="ramp"') : one.index("</svg>")]  # the page's policy forbids it


@pytest.mark.parametrize(("steps", "braking", "expected"), [(6, 0.0, 0), (26, 0.0, 1), (6, 0.2, 1), (26, 0.2, 2)])
def test_what_is_wrong_with_it_stands_out(tmp_path: Path, steps: int, braking: float, expected: int) -> None:
    (run,) = report.read([write_ramp(tmp_path, [0.5] * steps, braking=braking)])
    found = [text for text, kind in diagnose(run) if kind != "good"]
    assert len(found) == expected
    assert any("In its ramp for over 40% of the training" in text for text in found) == (steps == 26)
    assert any("Brakes in 100% of the steps" in text for text in found) == bool(braking)
