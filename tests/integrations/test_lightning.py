"""Lightning trains by what was differentiated, in automatic and manual optimization."""

import warnings

import pytest
import torch
from torch.nn.functional import cross_entropy

from emo_hf import registry

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of Lightning's own imports
    lightning = pytest.importorskip("lightning", reason="lightning is not installed (the extra `integrations`)")
    from emo_hf.integrations.lightning import EmotionCallback

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("UserWarning", "DeprecationWarning", "FutureWarning")
]


class Module(lightning.LightningModule):
    """One linear layer. `objectives` holds what each step differentiated, measured by a factor of 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(8, 2)
        self.one = torch.nn.Parameter(torch.ones(()))
        self.objectives, self.fed = [], []

    def loss(self, batch):
        features, labels = batch
        return cross_entropy(self.layer(features), labels) * self.one

    def training_step(self, batch, index):
        return self.loss(batch)

    def on_before_optimizer_step(self, optimizer):
        self.objectives.append(self.one.grad.item())

    def on_train_batch_end(self, *_):
        if self.ours.steps > len(self.fed):
            self.fed.append(self.ours.signals().loss)

    def configure_optimizers(self):
        frozen = [{"params": self.layer.parameters()}, {"params": [self.one], "lr": 1e-12}]
        self.ours = registry.build("emosens", frozen)
        return self.ours


class Explicit(Module):
    """Its step is told the loss."""

    automatic_optimization = False

    def training_step(self, batch, index):
        optimizer, loss = self.optimizers(), self.loss(batch)
        self.manual_backward(loss)
        optimizer.step(loss=loss)
        optimizer.zero_grad()


class Manual(Module):
    """The loss of a batch in two parts, a gradient thrown away before them, and a step every second batch."""

    automatic_optimization = False

    def training_step(self, batch, index):
        optimizer = self.optimizers()
        if index % 2 == 0:
            self.manual_backward(self.loss(batch) * 3)
            optimizer.zero_grad()
        for share in (0.75, 0.25):
            self.manual_backward(self.loss(batch) * share / 2)
        if index % 2:
            optimizer.step()
            optimizer.zero_grad()


def fit(module, **options):
    generator = torch.Generator().manual_seed(0)
    data = torch.utils.data.TensorDataset(
        torch.randn(40, 8, generator=generator), torch.randint(0, 2, (40,), generator=generator)
    )
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[EmotionCallback()], **options,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4))
    return module


@pytest.mark.parametrize("accumulation", [1, 4])
def test_automatic_optimization_is_fed_the_objective(accumulation, tmp_path):
    module = fit(Module(), accumulate_grad_batches=accumulation, default_root_dir=tmp_path)
    assert len(module.fed) == {1: 10, 4: 3}[accumulation]
    assert module.fed == pytest.approx(module.objectives, rel=1e-6)


def test_manual_optimization_is_fed_what_its_step_differentiated(tmp_path):
    module = fit(Manual(), default_root_dir=tmp_path)
    assert len(module.fed) == 5
    assert module.fed == pytest.approx(module.objectives, rel=1e-6)


def test_a_loss_that_is_told_counts_once(tmp_path):
    module = fit(Explicit(), default_root_dir=tmp_path)
    assert module.fed == pytest.approx(module.objectives, rel=1e-6)
