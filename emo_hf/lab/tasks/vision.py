"""A ResNet or a vision transformer from its configuration names what it sees.

The ResNet's stem, transformers' own, quarters the sides of the image (28 -> 7). Each stage but the first halves them.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from transformers import (
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from emo_hf.errors import RecipeError
from emo_hf.lab.recipe.schema import RunConfig
from emo_hf.lab.recipe.task import Vision, Vit
from emo_hf.lab.sources import Images
from emo_hf.lab.sources.kinds import Pictures
from emo_hf.lab.tasks import metrics
from emo_hf.lab.tasks.classification import class_options
from emo_hf.lab.tasks.parts import Parts


class Pixels:
    """Collates the bytes of images into a normalized batch, (batch, 1, height, width)."""

    def __init__(self, height: int, width: int, mean: float, std: float) -> None:
        self.shape, self.mean, self.std = (-1, 1, height, width), mean, std

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        raw = bytearray().join(row["pixel_values"] for row in rows)
        pixels = torch.frombuffer(raw, dtype=torch.uint8).view(self.shape).float().div_(255)
        return {
            "pixel_values": pixels.sub_(self.mean).div_(self.std),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }


def build(run_config: RunConfig, data: Images) -> Parts:
    """Builds an image classification task."""
    chosen = run_config.scale.model
    height, width = data.train.pixels.shape[1:]
    if chosen.vit:
        model = vision_transformer(chosen.vit, data)
    else:
        assert chosen.vision is not None  # `emo_hf.lab.recipe.validation` asks for one of them
        model = resnet(chosen.vision, data)
    return Parts(
        model=model,
        processing_class=None,
        train_dataset=dataset(data.train),
        eval_dataset=dataset(data.test),
        data_collator=Pixels(height, width, data.mean, data.std),
        compute_metrics=metrics.Accuracy(),
    )


def resnet(vision: Vision, data: Images) -> PreTrainedModel:
    """Returns a ResNet of basic blocks with new random weights. Its configuration holds mean and std of its input."""
    config = ResNetConfig(
        num_channels=1,
        embedding_size=vision.widths[0],
        hidden_sizes=vision.widths,
        depths=[vision.blocks] * len(vision.widths),
        layer_type="basic",
        **class_options(data.labels),
    )
    config.image_mean, config.image_std = data.mean, data.std
    return ResNetForImageClassification(config)


def vision_transformer(vit: Vit, data: Images) -> PreTrainedModel:
    """Returns a vision transformer without dropout, with new random weights."""
    side = data.train.pixels.shape[1]
    if side % vit.patch:
        raise RecipeError(
            f"sizes: model.vit.patch: got {vit.patch}, expected a divisor of the {side} pixels of a side."
        )
    config = ViTConfig(
        image_size=side,
        patch_size=vit.patch,
        num_channels=1,
        hidden_size=vit.width,
        num_hidden_layers=vit.layers,
        num_attention_heads=vit.heads,
        intermediate_size=4 * vit.width,
        **class_options(data.labels),
    )
    config.image_mean, config.image_std = data.mean, data.std
    return ViTForImageClassification(config)


def dataset(part: Pictures) -> Dataset:
    """Returns the images as bytes, which are quick to read and to batch, under the name of the model's input."""
    count, height, width = part.pixels.shape
    ends = np.arange(count + 1, dtype=np.int64) * height * width
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(part.pixels))]
    images = pa.Array.from_buffers(pa.large_binary(), count, buffers)
    return Dataset.from_dict({"pixel_values": images, "labels": part.classes})
