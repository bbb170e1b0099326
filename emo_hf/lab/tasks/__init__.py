"""A cell's model, tokenizer, data sets and metric: what a Trainer needs, built from the recipe's words.

classification  sequence-classification: GPT-2 reads a text and names its class
language        causal-lm: a language model reads pieces of a text; perplexity
vision          image-classification: a ResNet names what it sees
"""

from emo_hf.lab.sources import Found
from emo_hf.lab.spec import Cell
from emo_hf.lab.tasks import adapters, classification, language, llama2c, pretrained, vision
from emo_hf.lab.tasks.parts import Parts

__all__ = ["Parts", "build", "check_model"]

BUILDERS = {
    "sequence-classification": classification.build,
    "causal-lm": language.build,
    "image-classification": vision.build,
}


def build(cell: Cell, found: Found) -> Parts:
    """Builds the task of `cell`. Seed the global generators before: a new model's weights are random.

    Raises:
        RecipeError: the model is not to be had, or it does not fit the data.
    """
    return BUILDERS[cell.task.type](cell, found)


def check_model(cell: Cell) -> None:
    """Looks for what the model of `cell` is made from, as far as that is little: of the hub's, the configuration.

    Raises:
        RecipeError: it is not to be had, or it cannot read so many tokens.
    """
    model = cell.scale.model
    if model.lora:
        adapters.peft()
    if model.llama2c:
        llama2c.load(cell)
    if model.hub:
        pretrained.check(model.hub, cell.scale.max_tokens)
