"""TRL's own command, which starts Pythons that never import emo_hf."""

import json
import os
import subprocess
import sys

import pytest

from tests.integrations.tiny_text import examples, make_model, make_tokenizer

pytest.importorskip("trl", reason="trl is not installed (the extra `integrations`)")


@pytest.mark.slow
def test_trl_sft_trains_with_an_emo_optimizer(tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    rows = [json.dumps({"text": row["prompt"] + row["chosen"]}) for row in examples(16)]
    (tmp_path / "data/train.jsonl").write_text("\n".join(rows))
    options = {
        "model_name_or_path": "model", "dataset_name": "data", "optim": "emosens", "output_dir": "out",
        "lr_scheduler_type": "constant", "max_steps": 3, "use_cpu": "true", "bf16": "false", "report_to": "none",
        "logging_steps": 1, "save_strategy": "no", "per_device_train_batch_size": 2,
    }  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "emo_hf.launch", "trl", "sft", *arguments],
        cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len((tmp_path / "out/emo_signals.jsonl").read_text().splitlines()) == 3
