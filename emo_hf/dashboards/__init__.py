"""What the optimizer saw, on record: one row of signals for each step, or window of steps, to every sink.

    Recorder -> Window -> emo_signals.jsonl   always: the truth, which survives kill -9 and is rewound on resume
                       -> W&B, trackio, ...   if ``report_to`` names it

A sink that fails never ends a training. Vendors' packages are imported here alone, and only when they are used.
"""

from emo_hf.dashboards.jsonl import read_signals
from emo_hf.dashboards.recorder import Recorder

__all__ = ["Recorder", "read_signals"]
