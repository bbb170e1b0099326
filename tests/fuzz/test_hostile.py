"""A few hostile recipes and states; ``python -m tests.fuzz.hostile`` tries as many as wanted."""

import sys

import pytest

from tests.fuzz import hostile


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("kind", hostile.TRIED)
def test_hostile_input_is_refused_or_works(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("EMO_HF_NATIVE", "0")
    said = tmp_path / "said.txt"
    found = hostile.counts(kind, 25, seed=10_000, said=said)
    assert set(found) <= {"refused", "works"}, (found, said.read_text() if said.exists() else "")
    assert found["refused"] > 12


def test_there_are_outcomes_of_every_kind(tmp_path, monkeypatch):
    def end(chance, folder):
        raise {0: ValueError, 1: TimeoutError, 2: FloatingPointError, 3: hostile.EmoError}[ends.pop()]

    monkeypatch.setitem(hostile.TRIED, "recipes", end)
    for number, name in enumerate(("traceback", "slow", "not finite", "refused")):
        ends = [number]
        assert hostile.outcome("recipes", 0, tmp_path / "said.txt") == name
    assert "ValueError" in (tmp_path / "said.txt").read_text()
