"""The examples of docs/other-trainers.md run as they stand, on the CPU."""

import json
import re
from pathlib import Path

import pytest
from datasets import Dataset

from emo_hf.hf.feed import find_optimizer
from tests import ROOT
from tests.integrations.tiny_text import (
    OLD_NAMES,
    examples,
    make_encoder,
    make_llama,
    make_reward_model,
    make_seq2seq_model,
)

for package in ("trl", "peft", "sentence_transformers"):
    pytest.importorskip(package)
pytestmark = pytest.mark.filterwarnings(OLD_NAMES)

PAGE = ROOT / "docs" / "other-trainers.md"
EXAMPLES = [
    pytest.param(heading, code, id=f"{heading}-{i}")
    for heading, section in re.findall(r"^#+ (.+)\n((?:(?!#+ ).*\n)*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
]


def rows_for(heading, tokenizer):
    """What the trainer below `heading` trains on."""
    rows = examples(16)
    if heading.startswith("DPO"):
        return rows
    if heading.startswith("GRPO"):
        return [{"prompt": row["prompt"]} for row in rows[:2]]
    if heading.startswith("Reward"):
        return [{key: row["prompt"] + row[key] for key in ("chosen", "rejected")} for row in rows]
    if heading.startswith("sentence"):
        return [{"anchor": row["prompt"], "positive": row["prompt"] + row["chosen"]} for row in rows]
    if heading.startswith("Seq2Seq"):
        return [
            {**tokenizer(row["prompt"], return_token_type_ids=False), "labels": tokenizer(row["chosen"])["input_ids"]}
            for row in rows
        ]
    if heading.startswith("LoRA"):
        blocks = (tokenizer(row["prompt"] * 2)["input_ids"][:16] for row in rows)
        return [{"input_ids": block, "labels": block} for block in blocks if len(block) == 16]
    return [{"text": row["prompt"] + row["chosen"]} for row in rows]


def model_for(heading, folder, tokenizer):
    if heading.startswith("Reward"):
        return make_reward_model()
    if heading.startswith("Seq2Seq"):
        return make_seq2seq_model()
    if heading.startswith("sentence"):
        return make_encoder(folder, tokenizer)
    return make_llama(folder)  # from a folder: DPO loads its reference from there


def test_every_example_is_found():
    assert len(EXAMPLES) == PAGE.read_text(encoding="utf-8").count("```python") == 10


@pytest.mark.parametrize(("heading", "code"), EXAMPLES)
def test_example_runs(heading, code, tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {
        "model": model_for(heading, tmp_path / "model", tokenizer),
        "tokenizer": tokenizer,
        "dataset": Dataset.from_list(rows_for(heading, tokenizer)),
    }
    exec(
        re.sub(r'(\w(?:Config|Arguments)\(\s*"out",)', r"\1 use_cpu=True, disable_tqdm=True, report_to=[],", code),
        names,
    )
    rows = [json.loads(line) for line in Path("out/emo_signals.jsonl").read_text().splitlines()]
    assert len(rows) == names["trainer"].state.global_step >= 3
    assert find_optimizer(names["trainer"].optimizer).spec.key == "emosens-3.9"
    assert len({row["emo/loss"] for row in rows}) > 1
