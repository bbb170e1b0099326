"""Other people's trainers in three ways in, and the check that each of them feeds, records and trains."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast, Trainer

from emo_hf.hf import EmotionCallback, EmoTrainerMixin, registration
from tests.hf.tiny_gpt2 import Meter
from tests.integrations.tiny_text import make_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(params=["mixin", "callback", "wrap"])
def build(request: pytest.FixtureRequest) -> Callable[..., Trainer]:
    """Builds a Trainer of `kind`, connected in one way; only the last has Trainer.create_optimizer wrapped."""
    way = request.param

    def build(kind: type[Trainer], **parts: Any) -> Trainer:
        if way == "mixin":
            kind = type("Mine", (EmoTrainerMixin, kind), {})
        if way == "callback":
            parts["callbacks"] = [EmotionCallback()]
        return kind(**parts)

    if way != "wrap":
        registration.remove_patches()
    yield build
    registration.install_patches()


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Arguments for three steps over twelve examples, each of two batches; without clipping, which the meter needs."""
    return {
        "output_dir": str(tmp_path / "run"),
        "optim": "emosens",
        "lr_scheduler_type": "constant",
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }


@pytest.fixture
def check(read_signals: Callable[[Trainer], list[dict[str, Any]]]) -> Callable[[Trainer], list[float]]:
    """Trains; checks what was fed against the truth, the record, and the logs. Returns the losses."""

    def check(trainer: Trainer, steps: int = 3) -> list[float]:
        trainer.model.truth = torch.nn.Parameter(torch.ones(()))
        meter = Meter(trainer)
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
        trainer.train()
        assert len(meter.truth) == steps
        assert len(set(meter.truth)) > 1
        assert meter.fed == pytest.approx(meter.truth, rel=1e-6, abs=1e-9)
        rows = read_signals(trainer)
        assert [row["emo/loss"] for row in rows] == meter.fed
        logs = [log for log in trainer.state.log_history if "learning_rate" in log]
        assert [row["step"] for row in rows] == [log["step"] for log in logs] == list(range(1, steps + 1))
        assert [log["learning_rate"] for log in logs] == [row["emo/lr"] for row in rows]
        assert all(1e-8 < row["emo/lr"] <= 3e-3 for row in rows)
        moved = [name for name, p in trainer.model.named_parameters() if name in before and p.ne(before[name]).any()]
        assert len(moved) > 3
        return meter.fed

    return check


@pytest.fixture
def read_signals() -> Callable[[Trainer], list[dict[str, Any]]]:
    def read(trainer: Trainer) -> list[dict[str, Any]]:
        text = (Path(trainer.args.output_dir) / "emo_signals.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    return read
