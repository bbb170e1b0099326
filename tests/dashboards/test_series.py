"""Columns of a record: what a series keeps, and that blocks read at once say what lines read one by one say."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emo_hf.dashboards import series
from emo_hf.dashboards.report import runs
from emo_hf.dashboards.report.runs import RecordedRun, named
from emo_hf.dashboards.series import Series, joined, read_blocks
from emo_hf.errors import RecordError
from tests.dashboards.recorded_runs import row, write_rows

STEPS = st.lists(st.integers(0, 20), max_size=12)


@given(st.lists(STEPS, max_size=4))
def test_a_series_is_a_dictionary_in_the_order_of_its_steps(parts: list[list[int]]) -> None:
    kept, expected = Series(), dict[int, float]()
    for place, steps in enumerate(parts):
        values = [100.0 * place + at for at in range(len(steps))]
        kept.extend(np.array(steps, np.int64), np.array(values))
        expected.update(zip(steps, values, strict=True))
    assert list(kept) == sorted(expected)
    assert kept == expected
    assert [kept[step] for step in expected] == list(expected.values())
    assert list(kept.values()) == [expected[step] for step in sorted(expected)]
    assert kept.since(10).tolist() == [expected[step] for step in sorted(expected) if step > 10]
    assert 21 not in kept


def test_series_that_share_their_steps_grow_apart() -> None:
    steps = np.array([1, 2])
    one, two = Series(steps, [1.0, 2.0]), Series(steps, [3.0, 4.0])
    one[3] = 5.0
    one[1] = 0.0
    assert (dict(one), dict(two)) == ({1: 0.0, 2: 2.0, 3: 5.0}, {1: 3.0, 2: 4.0})


def odd_rows() -> st.SearchStrategy[list[dict]]:
    """Rows of a record with steps in any order, with keys less, values that are null, whole or not finite."""
    values = st.one_of(st.floats(-1e6, 1e6), st.integers(-5, 5), st.none())
    changes = st.dictionaries(
        st.sampled_from(["emo/loss", "emo/lr", "emo/scalar", "loss", "other"]), values, max_size=3
    )
    one = st.tuples(st.integers(0, 30), st.sampled_from([[], ["emo/loss"], ["emo/lr", "emo/pulse"]]), changes)
    return st.lists(one, max_size=8).map(
        lambda all_of: [
            {**{k: v for k, v in row(step).items() if k not in less}, **changed}
            | ({"nonfinite": less} if step % 7 == 0 and less else {})
            for step, less, changed in all_of
        ]
    )


@given(odd_rows())
def test_blocks_say_what_lines_say(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    path = tmp_path_factory.mktemp("run") / "emo_signals.jsonl"
    write_rows(path, rows)
    expected = RecordedRun(path, "", "")
    for each in rows:
        expected.add(each["step"], each)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series, "BLOCK", 1500)  # two lines
        found = RecordedRun(path, "", "")
        found.take(joined(read_blocks(path, named)))
    assert list(found.series) == list(expected.series) or found.series.keys() == expected.series.keys()
    for key, of_lines in expected.series.items():
        assert found.series[key].x.tolist() == of_lines.x.tolist()
        np.testing.assert_array_equal(found.series[key].y, of_lines.y)


def test_whole_blocks_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a million rows take seconds: no line of a record in order is looked at alone."""
    write_rows(tmp_path / "emo_signals.jsonl", [row(step) for step in range(1, 100)])
    monkeypatch.setattr(series, "parse_row", None)
    block = joined(read_blocks(tmp_path / "emo_signals.jsonl", named))
    assert block.end == (tmp_path / "emo_signals.jsonl").stat().st_size
    assert len({id(x) for x, _ in block.columns.values()}) == 1  # one array of steps for all of them


@pytest.mark.parametrize("at", [1, 2, 50, 99])
@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"step": 3, "emo/lr": "fast"}', "emo/lr: expected a number, got 'fast'"),
        (b'{"step": 3, "emo/lr": true}', "emo/lr: expected a number, got True"),
        (b'{"step": 3, "emo/lr": 1' + b"0" * 400 + b"}", "emo/lr: expected a number, got 1000"),
        (b'{"step": -3, "emo/lr": 1}', "the number of its step, got step -3"),
        (b'{"step": 3.5, "emo/lr": 1}', "the number of its step, got step 3.5"),
        (b'{"step": true}', "the number of its step, got step True"),
        (b'{"step": 3, "nonfinite": 4}', "nonfinite: expected a list of names, got 4"),
        (b'{"step": 3, "nonfinite": [4]}', "nonfinite: expected a list of names"),
        (b'{"step": 3, "eval_a_loss": {}}', "eval_a_loss: expected a number, got {}"),
        (b"\xff\xfe", "expected a row"),
        (b"[" * 100_000, "expected a row"),
        (b"[3]", "expected a row"),
        (b'{"step": 3}{"step": 4}', "expected a row"),
        (b"\x1b[2J", r"got b'\\x1b\[2J'"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, at: int, line: bytes, says: str) -> None:
    path = tmp_path / "emo_signals.jsonl"
    lines = [json.dumps(row(step)).encode() for step in range(1, 101)]
    lines[at - 1] = line
    path.write_bytes(b"\n".join([*lines, b""]))
    with pytest.raises(RecordError, match=rf"emo_signals\.jsonl, line {at}: .*{says}"):
        runs.read([tmp_path])


def test_values_that_only_others_know_may_be_anything(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "loss": 1.0, "eval_confusion": [[1, 2]], "note": {"a": None}},
        {"step": 2, "eval_loss": math.nan},
    ]
    write_rows(tmp_path / "history.jsonl", rows)
    (run,) = runs.read([tmp_path])
    assert run.series["train/loss"] == {1: 1.0}
    assert math.isnan(run.series["eval/loss"][2])
