"""axolotl: a plugin that makes the names known in every process, and records.

    plugins: [emo_hf.integrations.axolotl.EmoPlugin]
    optimizer: emosens
    learning_rate: 1.0
    lr_scheduler: constant

axolotl imports a plugin in each of its workers before it reads ``optimizer``; that import registers the names. The
plugin attaches emo_hf to the trainer, whose own ``create_optimizer`` may not call that of `transformers.Trainer`.
"""

from typing import Any

from axolotl.integrations.base import BasePlugin

from emo_hf.hf.trainer import attach


class EmoPlugin(BasePlugin):
    """Feeds the loss to the emo optimizers of axolotl, and records their signals."""

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Attaches emo_hf to `trainer`; without an optimizer of ours that changes nothing."""
        attach(trainer)
