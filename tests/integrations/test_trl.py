"""TRL's trainers: the fed loss is their objective, in every way in; and what policy gradients need."""

import pytest
import torch
from datasets import Dataset

from tests.integrations.tiny_text import OLD_NAMES, examples, make_model, make_reward_model

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings(OLD_NAMES)


def parts_of(name, options, tokenizer):
    """Returns the class of TRL's trainer `name` and what builds it; no dropout, bf16 as by TRL's default."""
    rows = examples()
    config = getattr(trl, f"{name}Config")
    parts = {"processing_class": tokenizer, "model": make_model()}
    if name == "SFT":
        parts |= {"args": config(**options)}
        rows = [{"text": row["prompt"] + row["chosen"]} for row in rows]
    elif name == "DPO":
        parts |= {"args": config(**options), "ref_model": make_model()}
    elif name == "Reward":
        parts |= {"args": config(**options), "model": make_reward_model()}
        rows = [{key: row["prompt"] + row[key] for key in ("chosen", "rejected")} for row in rows]
    else:
        # Beyond the first of two iterations the loss of RLOO is not 0.
        args = config(**options, num_generations=2, num_iterations=2, max_completion_length=48, beta=0.0)
        parts |= {"args": args, "reward_funcs": brevity}
        rows = [{"prompt": row["prompt"]} for row in rows]
    return getattr(trl, f"{name}Trainer"), {**parts, "train_dataset": Dataset.from_list(rows)}


def brevity(completions, **columns):
    return [-float(len(completion)) for completion in completions]


@pytest.mark.parametrize("name", ["SFT", "DPO", "Reward", "GRPO", "RLOO"])
def test_fed_loss_is_the_objective_of_trl(name, build, options, tokenizer, check):
    kind, parts = parts_of(name, options, tokenizer)
    check(build(kind, **parts))


def test_fed_loss_is_the_objective_of_sft_with_an_adapter(build, options, tokenizer, check):
    peft = pytest.importorskip("peft")
    kind, parts = parts_of("SFT", options, tokenizer)
    adapter = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    trainer = build(kind, **parts, peft_config=adapter)
    base = trainer.model.base_model.model.transformer.wte.weight.detach().clone()
    check(trainer)
    assert torch.equal(trainer.model.base_model.model.transformer.wte.weight, base)


@pytest.mark.parametrize("hold", [False, True])
def test_hold_pulse_keeps_the_step_size_of_a_policy_gradient(hold, options, tokenizer, read_signals, caplog):
    if hold:
        options["optim_args"] = "hold_pulse=true"
    kind, parts = parts_of("GRPO", {**options, "max_steps": 8}, tokenizer)
    trainer = kind(**parts)
    trainer.train()
    rows = read_signals(trainer)
    pulses = [row["emo/pulse"] for row in rows]
    assert len(pulses) == 8
    assert any(row["emo/scalar"] for row in rows)
    if hold:
        assert pulses == pytest.approx([1e-4] * 8)
    else:
        assert max(pulses) > 5 * min(pulses)
    assert caplog.text.count("belongs to a policy gradient") == (not hold)
