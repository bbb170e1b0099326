"""The table of EmoFree's constants is that of the runs on file, and names constants that there are."""

import pandas as pd

from emo_hf import free
from scripts import emofree_constants
from tests import ROOT


def test_page_is_up_to_date():
    runs = pd.read_csv(ROOT / emofree_constants.RUNS)
    page = (ROOT / emofree_constants.PAGE).read_text(encoding="utf-8")
    assert emofree_constants.filled(page, runs) == page


def test_every_run_is_there():
    runs = pd.read_csv(ROOT / emofree_constants.RUNS)
    assert sorted(runs[emofree_constants.COLUMNS[:-1]].itertuples(index=False, name=None)) == sorted(
        emofree_constants.wanted()
    )
    assert all(hasattr(free, name) for name in emofree_constants.CONSTANTS)
