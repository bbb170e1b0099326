"""Whether the optimizer that trains is the one that ``optim`` names."""

import types

import pytest
import torch
from transformers import Trainer

from emo_hf import EmoSens, EmoTrainer, attach
from emo_hf.errors import OptionError
from emo_hf.hf import registration
from emo_hf.hf.callback import EmotionCallback


class OwnAdamW(Trainer):
    """Builds what it likes."""

    def create_optimizer(self, *_):
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.args.learning_rate)
        return self.optimizer


class OwnGroups(Trainer):
    """Builds what is asked for, in groups of its own (LLaVA)."""

    def create_optimizer(self, *_):
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        weights = list(self.model.parameters())
        groups = [{"params": weights[:2], "lr": options["lr"] * 0.1}, {"params": weights[2:]}]
        self.optimizer = kind(groups, **options)
        return self.optimizer


class EmoOwnAdamW(EmoTrainer):
    def create_optimizer(self, *_):
        return OwnAdamW.create_optimizer(self)


@pytest.mark.parametrize("way", ["patch", "attach", "EmoTrainer"])
def test_another_optimizer_in_its_place_is_an_error(way, make_trainer):
    if way != "patch":
        registration.remove_patches()
    trainer = make_trainer(EmoOwnAdamW if way == "EmoTrainer" else OwnAdamW)
    if way == "attach":
        attach(trainer)
    with pytest.raises(OptionError, match=r"optim='emosens' was asked for, but AdamW would train.* The create_opt"):
        trainer.train()


def test_another_of_the_family_in_its_place_is_an_error(make_trainer):
    class OwnSens(Trainer):
        def create_optimizer(self, *_):
            self.optimizer = EmoSens(self.model.parameters())
            return self.optimizer

    with pytest.raises(OptionError, match=r"optim='emocats' was asked for, but emosens-3.9 would train"):
        make_trainer(OwnSens, optim="emocats").train()


def test_an_optimizer_section_of_deepspeed_is_named(make_trainer):
    trainer = make_trainer(OwnAdamW)
    trainer.args.hf_deepspeed_config = types.SimpleNamespace(config={"optimizer": {"type": "AdamW"}})
    with pytest.raises(OptionError, match=r"AdamW would train.* The DeepSpeed config has an optimizer section"):
        trainer.train()


def test_groups_of_its_own_are_fed_and_recorded(make_trainer, read_signals):
    trainer = make_trainer(OwnGroups, max_steps=3)
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert [row["emo/loss"] for row in read_signals(trainer.args.output_dir)] == pytest.approx(losses, rel=1e-4)
    rates = [log["learning_rate"] for log in trainer.state.log_history if "loss" in log]
    assert rates == [row["emo/lr"] for row in read_signals(trainer.args.output_dir)]


@pytest.mark.parametrize("way", ["optimizers", "optimizer_cls_and_kwargs", "later"])
def test_an_optimizer_that_the_user_gives_wins(way, make_trainer):
    trainer = make_trainer(max_steps=1)
    adamw = torch.optim.AdamW(trainer.model.parameters(), lr=1e-3)
    if way == "optimizer_cls_and_kwargs":
        trainer.optimizer_cls_and_kwargs = torch.optim.AdamW, {"lr": 1e-3}
    elif way == "optimizers":
        trainer.optimizer = adamw
    else:
        trainer.train()
        trainer.optimizer, trainer.lr_scheduler = adamw, None
    trainer.train()
    assert trainer.state.global_step == 1


def test_a_trainer_without_callbacks_yet_is_fed(make_trainer, caplog, read_signals):
    class Early(Trainer):
        """Builds its optimizer before its callbacks, as TRL's PPOTrainer does."""

        def train(self):
            handler = self.callback_handler
            del self.callback_handler
            self.create_optimizer()
            self.callback_handler = handler
            return super().train()

    trainer = make_trainer(Early, trainer={"callbacks": [EmotionCallback()]}, max_steps=2)
    trainer.train()
    assert "Early builds its optimizer before its callbacks: the loss arrives" in caplog.text
    assert len(read_signals(trainer.args.output_dir)) == 2
