"""Scripts that do not import emo_hf, run by ``python -m emo_hf.launch``; and a process with the wrap turned off."""

import pytest

from tests import ROOT

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from transformers import HfArgumentParser, TrainingArguments
import beside  # a module in the script's folder

def main():
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
    print("got", __name__, args.optim.value, args.output_dir, sys.argv[1:3])

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def script(tmp_path):
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "beside.py").write_text("")
    (folder / "script.py").write_text(SCRIPT)
    return folder


def test_script_runs_as_main_with_the_names_registered(script, run_python):
    arguments = ["--output_dir", "out", "--optim", "emosens-3.9"]
    result = run_python("-m", "emo_hf.launch", "scripts/script.py", *arguments)
    assert "got __main__ emosens-3.9 out ['--output_dir', 'out']" in result.stdout


def test_module_runs_as_main_with_the_names_registered(script, run_python):
    (script / "__init__.py").write_text("")
    (script / "script.py").write_text(SCRIPT.replace("import beside", "import scripts.beside"))
    result = run_python("-m", "emo_hf.launch", "-m", "scripts.script", "--output_dir", "out", "--optim", "emosens")
    assert "got __main__ emosens out ['--output_dir', 'out']" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "nothing to run"), (("-m",), "nothing to run"), (("gone.py",), "no such file or command: gone.py")],
)
def test_nothing_to_run(arguments, message, monkeypatch, capsys):
    from emo_hf import launch

    monkeypatch.setattr("sys.argv", ["launch", *arguments])
    with pytest.raises(SystemExit) as exit:
        launch.main()
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_help(monkeypatch, capsys):
    from emo_hf import launch

    monkeypatch.setattr("sys.argv", ["launch", "--help"])
    launch.main()
    assert "python -m emo_hf.launch (script.py | -m module | command)" in capsys.readouterr().out


def test_environment_turns_the_wrap_off(tmp_path, run_python):
    (tmp_path / "train.py").write_text(
        """
import sys
from pathlib import Path
from transformers import Trainer, TrainingArguments
create_optimizer = Trainer.create_optimizer

import emo_hf
from emo_hf.errors import MissingLossError
sys.path.insert(0, sys.argv[1])
from tests.hf.tiny_gpt2 import Meter, make_data, make_model

assert Trainer.create_optimizer is create_optimizer

def make(*callbacks):
    args = TrainingArguments("out", optim="emosens", lr_scheduler_type="constant", gradient_accumulation_steps=4,
                             per_device_train_batch_size=2, max_grad_norm=0, num_train_epochs=1, use_cpu=True,
                             save_strategy="no", report_to=[], disable_tqdm=True, logging_steps=1,
                             dataloader_pin_memory=False)
    return Trainer(make_model(), args, train_dataset=make_data(), callbacks=list(callbacks))

try:
    make().train()
except MissingLossError as error:
    assert "EmotionCallback" in str(error), error
else:
    raise SystemExit("a plain Trainer trained without a loss")

trainer = make(emo_hf.EmotionCallback())
meter = Meter(trainer)
trainer.train()
assert meter.fed == meter.truth and len(meter.fed) == 3, (meter.fed, meter.truth)
assert len(Path("out/emo_signals.jsonl").read_text().splitlines()) == 3
"""
    )
    run_python("train.py", str(ROOT), EMO_HF_PATCH="0")
