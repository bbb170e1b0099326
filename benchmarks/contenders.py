"""The optimizers that are measured, by name."""

import functools
from collections.abc import Callable, Sequence

import torch
import transformers
from torch.optim import Optimizer

from emo_hf import registry

REFERENCE = "AdamW fused"
WEIGHT_DECAY = 0.01

OURS = {  # column of the table -> spec
    "EmoSens 3.9": "emosens-3.9",
    "EmoNavi 3.6": "emonavi-3.6",
    "EmoFree 1.0": "emofree-1.0",
    "EmoCats 3.9": "emocats-3.9",
    "EmoLynx 3.6": "emolynx-3.6",
    "EmoTion 3.9": "emotion-3.9",
    "EmoAiry 3.9": "emoairy-3.9",
    "EmoFact 3.6": "emofact-3.6",
    "EmoVoid 3.9": "emovoid-3.9",
    "EmoVoid 3.9, first 55 steps": "emovoid-3.9",
    "EmoFact 3.1": "emofact-3.1",
    "EmoAiry 2.0": "emoairy-2.0",
}
Make = Callable[[Sequence[torch.nn.Parameter]], Optimizer]


def ours(key: str, implementation: str = "auto", **options) -> Make:
    if "weight_decay" in registry.find(key).options:
        options["weight_decay"] = WEIGHT_DECAY
    return lambda params: registry.build(key, params, implementation=implementation, **options)


def adamw(**options) -> Make:
    return lambda params: torch.optim.AdamW(params, lr=1e-4, weight_decay=WEIGHT_DECAY, **options)


def others() -> dict[str, Make]:
    """Returns optimizers of other packages; those of pytorch_optimizer only if it is installed."""
    found: dict[str, Make] = {
        "AdamW foreach": adamw(foreach=True),
        "AdamW for-loop": adamw(foreach=False),
        "torch Adafactor": lambda params: torch.optim.Adafactor(params),
        "transformers Adafactor": lambda params: transformers.Adafactor(params),
    }
    try:
        import pytorch_optimizer
    except ImportError:
        return found
    for name in ("Lion", "EmoLynx", "EmoNavi", "EmoFact", "AdEMAMix", "Prodigy"):
        cls = getattr(pytorch_optimizer, name, None)
        if cls is not None:
            found[f"pytorch_optimizer {name}"] = lambda params, cls=cls: cls(params, lr=1e-4)
    for name in ("Lion", "EmoLynx", "EmoNavi"):
        found[f"pytorch_optimizer {name} compiled"] = functools.partial(_compiled, name)
    return found


def _compiled(name: str, params: Sequence[torch.nn.Parameter]) -> Optimizer:
    import pytorch_optimizer

    model = torch.nn.ParameterList(params)  # it wants a model
    return pytorch_optimizer.create_optimizer(
        model, name, lr=1e-4, weight_decay=WEIGHT_DECAY, wd_ban_list=(), compile=True
    )
