"""The registry: every optimizer at every version.

    find("emosens")                     the spec of the newest EmoSens
    find("emosens-3.7")                 of a pinned one
    build("emosens", model.parameters(), lr=0.1)
    optimizer_class("emosens")          EmoSens, which is EmoSens(model.parameters(), version="3.7") in a loop

The specs are those of `emo_hf.versions`, the classes those of `emo_hf.families`.
"""

from collections.abc import Callable
from typing import Any

from torch.optim.optimizer import ParamsT

from emo_hf.families import CLASSES
from emo_hf.optimizer import EmoOptimizer
from emo_hf.versions import EXPERIMENTS, OWN, SPECS, families, find, names, specs

__all__ = ["EXPERIMENTS", "OWN", "SPECS", "build", "families", "find", "names", "optimizer_class", "specs"]


def optimizer_class(name: str) -> type[EmoOptimizer]:
    """Returns the class of a family, given its name or a pinned key."""
    return CLASSES[find(name).name]


def build(name: str, params: ParamsT, **options: Any) -> EmoOptimizer:
    """Builds "emosens" or "emosens-3.7" over `params`; see `find` and `OptimizerSpec.options`."""
    spec = find(name, options.pop("version", None))
    family: Callable[..., EmoOptimizer] = CLASSES[spec.name]
    return family(params, version=spec.version, **options)
