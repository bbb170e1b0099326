"""LoRA through peft: small trained matrices beside frozen ones."""

import warnings
from types import ModuleType
from typing import Any

from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.task import Lora


def peft() -> ModuleType:
    """Returns the package; `RecipeError` if it is not installed."""
    try:
        import peft
    except ImportError:
        raise RecipeError(
            "model.lora needs peft, which is not installed: pip install 'emo-hf[integrations]'"
        ) from None
    return peft


def adapt(model: PreTrainedModel, lora: Lora | None, kind: str) -> Any:
    """Puts adapters into `model` in place, if there is a `lora`; `kind` is peft's task type."""
    if lora is None:
        return model
    library = peft()
    modules = {name.rpartition(".")[2]: module for name, module in model.named_modules()}
    if missing := [target for target in lora.targets if target not in modules]:
        linear = sorted(
            name for name, module in modules.items() if hasattr(module, "weight") and module.weight.ndim == 2
        )
        raise RecipeError(
            f"model.lora.targets: the {type(model).__name__} has no {', '.join(missing)}, only {', '.join(linear)}."
        )
    config = library.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.targets,
        lora_dropout=lora.dropout,
        fan_in_fan_out=any(isinstance(modules[target], Conv1D) for target in lora.targets),  # GPT-2's are transposed
        task_type=kind,
    )
    with warnings.catch_warnings():  # peft uses a name that transformers 5.23 has changed
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return library.get_peft_model(model, config)
