"""What every run would import by itself, some of it late: loaded once by the server that runs are forked from."""

import contextlib
import gc
import importlib
import sys
from importlib.util import find_spec

# transformers 4.57 prints a line if W&B is offline: left in the buffer, each run would inherit it and print it again
with contextlib.redirect_stdout(sys.stderr):
    # accelerate imports deepspeed wherever it is installed
    for name in ("emo_hf.lab.child", "evaluate", "scipy.stats", "transformers.models.gpt2.modeling_gpt2", "deepspeed"):
        if find_spec(name.partition(".")[0]):
            importlib.import_module(name)

gc.freeze()  # else the collector of every run walks, and so copies, all that the server holds
