"""A cell's model, tokenizer, data sets and metric: what a Trainer needs, built from the recipe's words.

classification  sequence-classification: GPT-2 reads a text and names its class
language        causal-lm: a language model reads pieces of a text; perplexity
vision          image-classification: a ResNet names what it sees
"""

from emo_hf.lab.sources import Found
from emo_hf.lab.spec import Cell
from emo_hf.lab.tasks import classification, language, vision
from emo_hf.lab.tasks.parts import Parts

__all__ = ["Parts", "build"]

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
