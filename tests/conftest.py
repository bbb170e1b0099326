"""Every test runs on one thread, offline, and in a home of its own."""

import os
import tempfile

from tests import ROOT

_HUB = tempfile.TemporaryDirectory(prefix="emo-hf-tests-")  # transformers and datasets read HF_HOME once, on import
os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", HF_HOME=_HUB.name)
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])  # of children
os.environ["EMO_HF_NATIVE"] = "0"  # no test builds or finds the C++ kernel unless it asks for it

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)
if torch.cuda.is_available():
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS is deterministic only so
else:
    os.environ["TRITON_INTERPRET"] = "1"  # Triton decides at its import whether to interpret
settings.register_profile("emo_hf", derandomize=True, database=None, deadline=None, max_examples=40)
settings.load_profile("emo_hf")


@pytest.fixture
def device() -> str:
    """The device of tests marked `cuda`. EMO_HF_CUDA_TESTS=cpu has a CPU run them, as far as it can."""
    device = os.environ.get("EMO_HF_CUDA_TESTS", "cuda")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU: python -m benchmarks gpu runs it where there is one")
    return device


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """HOME and all of W&B's folders are a new temporary folder; W&B is offline."""
    home = str(tmp_path_factory.mktemp("home"))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, home)
    monkeypatch.setenv("WANDB_MODE", "offline")
