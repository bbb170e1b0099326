"""The tests. `emo_hf/a/b.py` is tested by `tests/a/test_b.py`; modules without `test_` make what tests use."""

from pathlib import Path

ROOT = Path(__file__).parents[1]  # of the checkout
