import pytest
import torch

from emo_hf import kernels


@pytest.fixture
def interpreted(monkeypatch):
    """The kernel takes the tensors of a CPU, and rounds to bfloat16 as a GPU does: the interpreter cuts off."""
    pytest.importorskip("triton", reason='no triton: pip install "emo-hf[cuda]"')
    from triton.runtime import interpreter

    from emo_hf.kernels import cuda

    plain = interpreter._convert_float

    def convert(source, source_type, target_type, rounding):
        if (source_type.name, target_type.name) != ("fp32", "bf16"):
            return plain(source, source_type, target_type, rounding)
        return torch.from_numpy(source.copy()).bfloat16().view(torch.uint16).numpy()

    monkeypatch.setattr(interpreter, "_convert_float", convert)
    monkeypatch.setattr(kernels, "triton_kernel", lambda params: cuda)
