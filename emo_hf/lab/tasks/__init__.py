"""Model, tokenizer, data sets and metric of a `RunConfig`: what a Trainer needs.

classification  sequence-classification: GPT-2 reads a text and names its class
language        causal-lm: a language model reads pieces of a text; perplexity
vision          image-classification: a ResNet or a vision transformer names what it sees
first_recipe    a recipe for data of one's own
"""

from collections.abc import Callable
from typing import Any

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.sources import TaskData
from emo_hf.lab.tasks import adapters, classification, language, llama2c, pretrained, vision
from emo_hf.lab.tasks.parts import Parts

__all__ = ["Parts", "build", "check_model"]

BUILDERS: dict[str, Callable[[RunConfig, Any], Parts]] = {
    "sequence-classification": classification.build,
    "causal-lm": language.build,
    "image-classification": vision.build,
}


def build(run_config: RunConfig, data: TaskData) -> Parts:
    """Builds the task of `run_config`. Seed the global generators before, as a new model's weights are random.

    Raises:
        RecipeError: the model is missing, or does not fit the data.
    """
    return BUILDERS[run_config.task.type](run_config, data)


def check_model(run_config: RunConfig) -> None:
    """Checks that the model of `run_config` is there. For a model of the hub, only its configuration is read.

    Raises:
        RecipeError: the model is missing, or cannot read that many tokens.
    """
    model = run_config.scale.model
    if model.lora:
        adapters.peft()
    if model.llama2c:
        llama2c.load(run_config)
    if model.hub:
        pretrained.check(run_config)
        if model.hub.gguf and not model.lora:
            raise RecipeError("model.lora: missing: transformers trains no weights in GGUF, but adapters beside them.")
