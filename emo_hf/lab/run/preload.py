"""What every run would import by itself, some of it late: loaded once by the server that runs are forked from."""

import gc
import importlib
import sys
from importlib.util import find_spec

# accelerate imports deepspeed wherever it is installed
for name in ("evaluate", "scipy.stats", "transformers.models.gpt2.modeling_gpt2", "deepspeed"):
    if find_spec(name.partition(".")[0]):
        importlib.import_module(name)

gc.freeze()  # else the collector of every run walks, and so copies, all that the server holds
sys.stdout.flush()  # else every run inherits, and prints again, what a library printed while it was loaded
