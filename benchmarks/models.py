"""Shapes of parameters to step over."""

import torch

Shapes = list[tuple[int, ...]]


def gpt2(layers: int, width: int, vocabulary: int, positions: int) -> Shapes:
    """A GPT-2: 4 + 12 per layer tensors."""
    block = [
        *((width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,)),
        *((width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,)),
    ]
    return [(vocabulary, width), (positions, width), *block * layers, (width,), (width,)]


MODELS: dict[str, Shapes] = {
    "gpt2-small": gpt2(12, 768, 50257, 1024),  # 148 tensors, 124.4 M
    "gpt2-mini": gpt2(4, 256, 50257, 512),  # 52 tensors, 16.2 M
    "lora": [(768, 8), (8, 768)] * 96,  # 192 tensors, 1.2 M: rank 8 on every matrix of a 24-layer model
}


def square_layers(parameters: int) -> Shapes:
    """Layers of 4 M parameters (2048 x 2048), or one smaller square one."""
    side = min(2048, round(parameters**0.5))
    return [(side, side)] * max(round(parameters / side**2), 1)


def make(shapes: Shapes, dtype: torch.dtype, device: str) -> list[torch.nn.Parameter]:
    """Returns weights of a Transformer's size with gradients, the same at every call."""
    generator = torch.Generator(device).manual_seed(0)
    params = []
    for shape in shapes:
        weight = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        params.append(torch.nn.Parameter((0.02 * weight).to(dtype)))
        params[-1].grad = (
            torch.randn(shape, generator=generator, device=device, dtype=torch.float32).mul_(1e-3).to(dtype)
        )
    return params
