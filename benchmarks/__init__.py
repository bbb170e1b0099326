"""Speed and memory against torch's fused AdamW: ``python -m benchmarks``. Needs ``pip install -e ".[baselines]"``."""
