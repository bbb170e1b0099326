"""What every run imports sooner or later, loaded once by the server that runs are forked from."""

import gc
import importlib
import sys
from importlib.util import find_spec

# accelerate imports deepspeed wherever it is installed
for name in ("scipy.stats", "transformers.models.gpt2.modeling_gpt2", "deepspeed"):
    if find_spec(name.partition(".")[0]):
        importlib.import_module(name)

gc.freeze()  # otherwise the collector of every run walks, and so copies, all that the server holds
sys.stdout.flush()  # otherwise every run prints again what a library printed while it was loaded
