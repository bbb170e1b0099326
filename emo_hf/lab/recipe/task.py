"""What is learned: the data, the model, and how much of both."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from emo_hf.lab.recipe.data import Data, Hub, TaskType, misfit
from emo_hf.lab.recipe.fields import LARGEST_COUNT, Count, Positive, Share, StrictModel, Text, one_of

METRICS: dict[TaskType, str] = {
    "sequence-classification": "accuracy",
    "causal-lm": "perplexity",
    "image-classification": "accuracy",
}


class HubModel(Hub):
    """A trained model of the hub, or a copy of it in the folder that ``--model-dir`` names.

    Attributes:
        gguf: the file with its weights, where they are in GGUF.
        config: values of its configuration (``hidden_size: 384``) that tell it from others. A copy must have them.
    """

    gguf: Text | None = None
    config: dict[Text, int | str] = {}

    @property
    def folder(self) -> str:
        """Its folder below that of all models."""
        return self.name.rpartition("/")[2]


class Task(StrictModel):
    """What is learned from which data.

    Attributes:
        type: classes of texts, language, or classes of images.
        data: where the examples come from.
    """

    type: TaskType
    data: Data

    @model_validator(mode="after")
    def _reads(self) -> "Task":
        if problem := misfit(self.type, self.data):
            raise ValueError(problem)
        return self

    @property
    def metric(self) -> str:
        """What its evaluation gives besides the loss."""
        return METRICS[self.type]


class Transformer(StrictModel):
    """The size of a transformer.

    Attributes:
        layers: of attention and feed-forward.
        heads: per layer; divide `width`.
        width: of the hidden state.
    """

    layers: Count
    heads: Count
    width: Count

    @model_validator(mode="after")
    def _divisible(self) -> "Transformer":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Config(Transformer):
    """A GPT-2 from its configuration, with a byte-level BPE tokenizer trained on the training examples.

    Attributes:
        vocabulary: tokens, at most: 256 bytes, two special tokens, and merges.
        dropout: the share of activations that are dropped in training.
        lowercase: whether the tokenizer reads capitals as small letters.
    """

    vocabulary: Annotated[int, Field(ge=300, le=10**6)]
    dropout: Share = 0.1
    lowercase: bool = False


class Vision(StrictModel):
    """A ResNet of basic blocks from its configuration, for images of one channel.

    Attributes:
        widths: channels of each stage. Every stage but the first halves the sides of the image.
        blocks: per stage.
    """

    widths: Annotated[list[Count], Field(min_length=1)]
    blocks: Count = 1


class Vit(Transformer):
    """A vision transformer from its configuration, for square images of one channel.

    Attributes:
        patch: pixels along a side of a patch.
    """

    patch: Count


class Llama2c(StrictModel):
    """A trained Llama in llama2.c's format: ``stories260K.bin`` and ``tok512.bin``, from the hub or ``--data-dir``.

    Attributes:
        hub: its repository.
        files: the set of its two files, in the folder that ``--data-dir`` names.
    """

    hub: Hub
    files: Literal["stories260k"]


class Lora(StrictModel):
    """Adapters of low rank in linear layers. All other weights are frozen.

    Attributes:
        rank: of the two small matrices beside each layer.
        alpha: their product is multiplied by `alpha` / `rank`.
        targets: the last parts of the layers' names, as in [q_proj, v_proj].
        dropout: the share of their input that is dropped in training.
    """

    rank: Count
    alpha: Positive
    targets: Annotated[list[Text], Field(min_length=1)]
    dropout: Share = 0.0


class Model(StrictModel):
    """The model: one of `config`, `vision`, `vit`, `hub` and `llama2c`.

    Attributes:
        config: a new GPT-2.
        vision: a new ResNet.
        vit: a new vision transformer.
        hub: a trained model of the hub.
        llama2c: a trained Llama in llama2.c's format.
        lora: beside one of the last two: only adapters are trained.
    """

    config: Config | None = None
    vision: Vision | None = None
    vit: Vit | None = None
    hub: HubModel | None = None
    llama2c: Llama2c | None = None
    lora: Lora | None = None

    _source = one_of("config", "vision", "vit", "hub", "llama2c")

    @property
    def sees_images(self) -> bool:
        return bool(self.vision or self.vit)

    @model_validator(mode="after")
    def _pretrained(self) -> "Model":
        if self.lora and not (self.hub or self.llama2c):
            raise ValueError("lora adapts a trained model: give hub or llama2c")
        return self


class Scale(StrictModel):
    """How much of the task: model, steps and examples.

    Attributes:
        model: which one is trained.
        epochs: passes over the training examples; a size gives either these or `steps`.
        steps: optimizer steps.
        batch_size: examples per optimizer step, of all processes together.
        max_tokens: longer texts are cut. For causal-lm, the length of every piece of the text.
        evaluations: how many, evenly spread. The last one, at the end, is the result.
        train_examples: the number of training examples that are used, from the first on.
        test_examples: the same for evaluation examples.
    """

    model: Model
    epochs: Annotated[Positive, Field(le=LARGEST_COUNT)] | None = None
    steps: Count | None = None
    batch_size: Count
    max_tokens: Annotated[int, Field(ge=8, le=LARGEST_COUNT)] = 64
    evaluations: Count = 1
    train_examples: Count | None = None
    test_examples: Count | None = None

    _length = one_of("epochs", "steps")
