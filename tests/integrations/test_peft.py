"""Adapters of PEFT: only they train, at the rates of their groups, and they resume bit for bit."""

import functools

import pytest
import torch
from transformers import Trainer, TrainingArguments

import emo_hf
from tests.integrations.tiny_text import OLD_NAMES, examples, make_model

peft = pytest.importorskip("peft")
optimizers = pytest.importorskip("peft.optimizers")
pytestmark = pytest.mark.filterwarnings(OLD_NAMES)

KINDS = {"LoRA": {}, "DoRA": {"use_dora": True}, "rsLoRA": {"use_rslora": True}}
RATIO = 16


def make_adapter(**changes):
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, **changes
    )
    torch.manual_seed(1)
    return peft.get_peft_model(make_model(), config)


def make_trainer(model, options, tokenizer, kind=Trainer, **parts):
    ids = [token for row in examples(24) for token in tokenizer(row["prompt"])["input_ids"]]
    blocks = torch.tensor(ids[: 24 * 16]).view(24, 16)
    data = [{"input_ids": block, "labels": block} for block in blocks]
    return kind(model=model, args=TrainingArguments(**options), train_dataset=data, **parts)


def lora_plus(model, optimizer=emo_hf.EmoSens, lr=0.1):
    return optimizers.create_loraplus_optimizer(
        model, optimizer_cls=optimizer, lr=lr, loraplus_lr_ratio=RATIO, weight_decay=0.0
    )


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def adapters(model):
    return {name: p for name, p in weights(model).items() if "lora_" in name}


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapter_trains_and_is_loaded_again(kind, options, tokenizer, check, tmp_path):
    model = make_adapter(**KINDS[kind])
    before = weights(model)
    check(make_trainer(model, options, tokenizer))
    after = weights(model)
    del model.truth
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "lora_" in name}
    assert any("magnitude" in name for name in moved) == (kind == "DoRA")

    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(make_model(), tmp_path / "adapter")
    ids = torch.arange(3, 20).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(ids).logits, model.eval()(ids).logits)
        assert not torch.equal(make_model().eval()(ids).logits, model.eval()(ids).logits)


def test_fed_loss_is_the_objective_of_an_adapter(build, options, tokenizer, check):
    model = make_adapter()
    check(make_trainer(model, options, tokenizer, functools.partial(build, Trainer)))


@pytest.mark.parametrize("optimizer", [emo_hf.EmoAiry, emo_hf.EmoCats])
def test_lora_plus_takes_steps_in_the_ratio_of_its_groups(optimizer, options, tokenizer, read_signals):
    """Both update by signs, so that a step is the same for every weight of a group."""
    model = make_adapter()
    steps = []
    driven = lora_plus(model, optimizer)
    driven.register_step_pre_hook(lambda *_: steps.append(weights(model)))
    driven.register_step_post_hook(lambda *_: steps.append(weights(model)))
    trainer = make_trainer(model, options, tokenizer, optimizers=(driven, None))
    trainer.train()

    rows = read_signals(trainer)
    assert len(rows) == 3
    for row, before, after in list(zip(rows, steps[::2], steps[1::2], strict=True))[1:]:  # A rests while B is 0
        for letter, times in (("A", 1), ("B", RATIO)):
            names = [name for name in before if f"lora_{letter}" in name]
            moves = torch.cat([(after[name] - before[name]).abs().flatten() for name in names])
            assert len(names) == 2
            assert moves.max().item() == pytest.approx(times * row["emo/lr"], rel=1e-2)


def test_resume_with_lora_plus_is_bit_exact(options, tokenizer, tmp_path):
    def make(name):
        model = make_adapter(lora_dropout=0.1)
        mine = {"output_dir": str(tmp_path / name), "max_steps": 6, "save_strategy": "steps", "save_steps": 3}
        return make_trainer(model, {**options, **mine}, tokenizer, optimizers=(lora_plus(model), None))

    straight = make("straight")
    straight.train()
    resumed = make("resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    expected, found = adapters(straight.model), adapters(resumed.model)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    states = [trainer.optimizer.state_dict()["param_groups"] for trainer in (straight, resumed)]
    assert [group["emo"] for group in states[0]] == [group["emo"] for group in states[1]]
    assert [group["lr"] for group in states[1]] == [0.1, 1e-6, RATIO * 0.1, RATIO * 0.1]
