"""What an arm may ask for beyond an optimizer and its rate, trained for real on a few sentences."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification

from emo_hf.dashboards import read_signals
from emo_hf.errors import MissingLossError, RecipeError
from emo_hf.lab.recipe import baselines, loading
from emo_hf.lab.recipe.rules import METRICS
from emo_hf.lab.recipe.task import Lora
from emo_hf.lab.run import measures, replay
from emo_hf.lab.run.training import train
from emo_hf.lab.tasks import adapters
from emo_hf.run_folder import RunFolder

pytestmark = pytest.mark.slow

ARMS = {
    "emosens": {"optim": "emosens", "lr": 1.0},
    "adamw": {"optim": "adamw_torch", "lr": 1e-3},
}


@pytest.fixture
def run(recipe, write, tmp_path):
    """Trains arms in turn; returns their summaries by name."""
    recipe["sizes"]["smoke"] |= {"steps": 8, "evaluations": 2, "train_examples": 64}
    del recipe["sizes"]["smoke"]["epochs"], recipe["sizes"]["small"]["arms"]

    def run(arms: dict, seed: int = 0, **content) -> dict[str, dict]:
        recipe.update(content, arms={name: {"tuning": "untuned", **arm} for name, arm in arms.items()})
        summaries = {}
        for run_config in loading.recipe(write(recipe)).run_configs("smoke", seeds=[seed]):
            folder = tmp_path / "runs" / run_config.name / f"seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            summaries[run_config.name] = json.loads(
                json.dumps(train(run_config, RunFolder(folder), "none"), allow_nan=False)
            )
            (folder / "summary.json").write_text(json.dumps(summaries[run_config.name]))
        return summaries

    return run


@pytest.fixture
def signals(tmp_path):
    return lambda arm: read_signals(tmp_path / "runs" / arm / "seed0/emo_signals.jsonl")


def test_withheld_loss_is_heard_as_zero(run, signals):
    done = run({"withheld": {"optim": "emosens-2.0", "lr": 1e-3, "withhold_loss": True}, **ARMS})
    assert [row["emo/loss"] for row in signals("withheld")] == [0.0] * 8
    assert {row["emo/lr"] for row in signals("withheld")} == {1e-3}
    assert all(row["emo/loss"] > 0.5 for row in signals("emosens"))
    assert done["withheld"]["state_ratio"] == done["emosens"]["state_ratio"] == 2


def test_changed_loss_is_heard(run, signals):
    same = {"optim": "emosens", "lr": 1.0}
    run({"plain": same, "changed": {**same, "loss_transform": {"scale": 8.0, "offset": 0.5}}})
    first, other = signals("plain")[0]["emo/loss"], signals("changed")[0]["emo/loss"]
    assert other == pytest.approx(8 * first + 0.5)


def test_replay_of_the_same_sizes_is_the_same_run(run, signals):
    same = {"optim": "emosens", "lr": 1.0}
    orders = ("recorded", "shuffled", "constant", "cosine")
    done = run({"live": same} | {order: {**same, "replay": {"of": "live", "order": order}} for order in orders})
    assert done["recorded"]["eval_loss"] == done["live"]["eval_loss"]
    sizes = {arm: [row["emo/lr"] for row in signals(arm)] for arm in ("live", *orders)}
    assert sizes["recorded"] == pytest.approx(sizes["live"], rel=1e-12)
    assert sizes["shuffled"] != sizes["live"]
    assert sorted(sizes["shuffled"]) == pytest.approx(sorted(sizes["live"]))
    for order in ("constant", "cosine"):
        assert sum(sizes[order]) == pytest.approx(sum(sizes["live"]))
    assert len(set(sizes["constant"])) == 1
    assert sizes["cosine"] == sorted(sizes["cosine"], reverse=True)


def test_replay_needs_its_run(run):
    with pytest.raises(RecipeError, match=r"again replays live with seed 0, which has recorded 0 of 8 steps"):
        run({"again": {"optim": "emosens", "lr": 1.0, "replay": {"of": "live"}}, "live": ARMS["emosens"]})


def test_cosine_of_no_sum():
    assert replay.arranged([0.0, 0.0], "cosine", 0) == [0.0, 0.0]


def test_handovers(run):
    whole = {"optim": "emosens", "lr": 1.0}
    arms = {"whole": whole}
    arms |= {name: {**whole, "handover": {"optimizer": name}} for name in ("kept", "fresh")}
    arms["stacked"] = {**whole, "handover": {"optimizer": "fresh", "data": "halves"}}
    done = run(arms)
    assert done["kept"]["eval_loss"] == done["whole"]["eval_loss"]
    assert done["fresh"]["eval_loss"] != done["whole"]["eval_loss"]
    assert 0 <= done["stacked"]["earlier_accuracy"] <= 1
    assert "earlier_accuracy" not in done["fresh"]


def test_a_fresh_optimizer_sees_the_batches_of_an_uncut_training(run):
    sgd = {"optim": "sgd", "lr": 0.1}  # has no state
    done = run({"whole": sgd, "fresh": {**sgd, "handover": {"optimizer": "fresh"}}})
    assert done["fresh"]["eval_loss"] == done["whole"]["eval_loss"]


def test_corrupted_batches(run, signals):
    same = {"optim": "emosens", "lr": 1.0}
    run({"clean": same, "corrupted": {**same, "condition": {"corrupted_every": 3}}})
    clean, corrupted = ([row["emo/loss"] for row in signals(arm)] for arm in ("clean", "corrupted"))
    assert corrupted[:2] == clean[:2]
    assert corrupted[2] != clean[2]


def test_sixteen_bits(run):
    done = run({"half": {"optim": "emosens", "lr": 1.0, "weights": "bfloat16", "options": {"compensation": "kahan"}}})
    assert done["half"]["state_ratio"] == 3  # and the compensation
    assert math.isfinite(done["half"]["eval_loss"])


def test_driven_by_the_pulse(run, signals):
    run({"driven": {"optim": "adamw_torch", "lr": 1e-4, "driven_by": "emopulse"}, **ARMS})
    sizes = [row["emo/lr"] for row in signals("driven")]
    assert sizes[0] == pytest.approx(signals("emosens")[0]["emo/lr"])  # the same loss so far
    assert len(set(sizes)) > 1


def test_a_driven_optimizer_may_hear_another_loss(run, signals):
    driven = {"optim": "adamw_torch", "lr": 1e-4, "driven_by": "emopulse"}
    run(
        {
            "plain": driven,
            "changed": {**driven, "loss_transform": {"offset": 0.5}},
            "withheld": {**driven, "withhold_loss": True},
        }
    )
    first, changed = signals("plain")[0]["emo/loss"], signals("changed")[0]["emo/loss"]
    assert changed == pytest.approx(first + 0.5)
    assert {row["emo/loss"] for row in signals("withheld")} == {0.0}


def test_trajectory(run, tmp_path):
    run({"emosens": ARMS["emosens"]}, measure=["trajectory"])
    found = np.load(tmp_path / "runs/emosens/seed0/trajectory.npz")
    assert found["steps"].tolist() == [0, 4, 8]
    assert found["weights"].shape == (3, 3 * 16)  # classes x width


def test_moments_and_the_stop_signal(run):
    done = run({"logged": {"optim": "emosens", "lr": 1.0, "options": {"moments": "log"}}})["logged"]
    assert -1 <= done["skewness_correlation"] <= 1
    assert -1 <= done["kurtosis_correlation"] <= 1
    assert (done["stop_step"], done["stop_share"]) == (None, 1)  # it never came
    assert done["stop_regret"] == done["overfit"] >= 0
    known = {name for name in METRICS if name in done}
    assert {"accuracy", "best_eval_loss", "state_ratio", "state_share", "peak_memory"} <= known


@pytest.mark.filterwarnings("ignore:More than one param group:UserWarning")  # momo, of a list nobody reads
@pytest.mark.parametrize("name", baselines.ALIASES)
def test_every_alias_trains(run, name):
    pytest.importorskip(baselines.ALIASES[name].package)
    before = run({"start": {"optim": name, "lr": 1e-12}})["start"]["eval_loss"]
    lr = {"prodigy": 1.0, "dadapt-adam": 1.0}.get(name, 1e-2)
    done = run({"arm": {"optim": name, "lr": lr}})["arm"]
    assert math.isfinite(done["eval_loss"])
    assert done["eval_loss"] != before


@pytest.fixture
def classifier():
    config = GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=5, n_positions=4, num_labels=2)
    return GPT2ForSequenceClassification(config)


def test_muon_gets_the_matrices_between_embeddings_and_head(classifier):
    classifier.transformer.h[0].mlp.c_proj.weight.requires_grad = False
    names = {weight: name for name, weight in classifier.named_parameters()}
    found = {
        (group["use_muon"], group["weight_decay"]): {names[weight] for weight in group["params"]}
        for group in baselines.ALIASES["muon"].groups(classifier, 0.1)
    }
    hidden = {f"transformer.h.0.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc")}
    assert found[True, 0.1] == hidden
    assert found[False, 0.1] == {"transformer.wte.weight", "transformer.wpe.weight", "score.weight"}
    assert found[False, 0.0] == {name for weight, name in names.items() if weight.ndim == 1}


def test_muon_finds_the_head_of_an_adapted_model(classifier):
    pytest.importorskip("peft")
    model = adapters.adapt(classifier, Lora(rank=1, alpha=1, targets=["c_attn"]), "SEQ_CLS")
    names = {weight: name for name, weight in model.named_parameters()}
    (hidden, rest) = baselines.ALIASES["muon"].groups(model, 0.0)
    assert (hidden["use_muon"], rest["use_muon"]) == (True, False)
    assert all("lora_" in names[weight] for weight in hidden["params"])
    assert ["score" in names[weight] for weight in rest["params"]] == [True]


def test_every_rate_of_an_optimizer_is_the_arms():
    assert baselines.keywords("muon", 1e-3, {"momentum": 0.9}) == {
        "lr": 1e-3,
        "adamw_lr": 1e-3,
        "use_adjusted_lr": True,
        "momentum": 0.9,
    }


def test_a_decay_that_the_groups_decide_is_no_option():
    pytest.importorskip("pytorch_optimizer")
    with pytest.raises(ValueError, match="muon has no option adamw_wd"):
        baselines.check("muon", {"adamw_wd": 0.5})


def test_a_group_without_parameters_is_left_out():
    model = torch.nn.Linear(2, 3)
    decaying, others = baselines.without_empty(model, 0.1)
    assert (decaying["params"], decaying["weight_decay"]) == ([model.weight], 0.1)
    assert (others["params"], others["weight_decay"]) == ([model.bias], 0.0)
    model.bias.requires_grad = False
    (only,) = baselines.without_empty(model, 0.1)
    assert only["params"] == [model.weight]


def test_momo_hears_the_loss():
    momo = pytest.importorskip("momo")
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = momo.MomoAdam([weight], lr=1e-2)
    hearing = baselines.Hearing(optimizer)
    weight.grad = torch.ones(2)
    hearing.observe(torch.tensor(0.5))
    optimizer.step()
    assert float(weight.detach()[0]) < 1
    with pytest.raises(MissingLossError, match=r"MomoAdam.step\(\) got no loss"):
        optimizer.step()


def test_hearing_bears_a_scheduler():
    momo = pytest.importorskip("momo")
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = momo.MomoAdam([weight], lr=1e-2)
    hearing = baselines.Hearing(optimizer)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)  # replaces optimizer.step
    weight.grad = torch.ones(2)
    hearing.observe(torch.tensor(0.5))
    optimizer.step()
    scheduler.step()
    assert float(weight.detach()[0]) < 1


def test_unknown_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(baselines.ALIASES, "lion", baselines.Alias("no_such_package", "Lion", "x"))
    with pytest.raises(RecipeError, match=r"pip install 'emo-hf\[baselines\]'"):
        baselines.load("lion")


def test_gap_at_equal_training_loss():
    rows = [{"step": k, "loss": 1.0 - 0.1 * k} for k in range(5)]
    rows.insert(2, {"step": 1, "eval_loss": 2.0})
    rows += [{"step": 5, "eval_loss": 3.0}, {"step": 6, "eval_loss": 9.0}]
    assert measures.gap(rows, 0.95) == pytest.approx(2.0 - 0.95)
    assert measures.gap(rows, 0.9) == pytest.approx(3.0 - 0.8)
    assert measures.gap(rows, 0.1) is None


def test_a_stop_at_the_last_step_is_told_from_none(tmp_path):
    path, rows = tmp_path / "emo_signals.jsonl", [{"step": 4, "eval_loss": 2.0}, {"step": 8, "eval_loss": 3.0}]
    for ready, expected in ((9, None), (8, 8), (3, 3)):
        signals = ({"step": step, "emo/stop_share": float(step >= ready)} for step in range(1, 9))
        path.write_text("".join(json.dumps(row) + "\n" for row in signals))
        found = measures.of_signals(path, rows)
        assert found == {"stop_step": expected, "stop_share": (expected or 8) / 8, "stop_regret": float(ready > 4)}


def test_the_counter_of_the_earlier_mechanisms_is_read(run, recipe):
    recipe["sizes"]["smoke"]["steps"] = 40
    done = run({"navi": {"optim": "emonavi-3.6", "lr": 6e-5}, **ARMS})
    assert (done["navi"]["stop_step"], done["navi"]["stop_share"]) == (32, 32 / 40)
    assert (done["emosens"]["stop_step"], done["emosens"]["stop_share"]) == (None, 1)


def test_standardized_moments():
    values = np.random.default_rng(0).gamma(2.0, size=100_000)
    skewness, kurtosis = measures.standardized(*(float((values**k).mean()) for k in range(1, 5)))
    assert skewness == pytest.approx(2 / math.sqrt(2), rel=0.05)
    assert kurtosis == pytest.approx(3 + 6 / 2, rel=0.1)
    assert measures.standardized(1.0, 1.0, 1.0, 1.0) is None


def test_what_emofree_found_is_a_number_of_its_run(run):
    (found,) = run({"free": {"optim": "emofree", "lr": 1.0}}, sizes=long_enough()).values()
    assert 0 < found["found_lr"] < 1


def long_enough():
    """The size smoke, with steps for a ramp."""
    model = {"config": {"layers": 1, "heads": 2, "width": 16, "vocabulary": 300}}
    scale = {"steps": 24, "batch_size": 8, "train_examples": 64, "test_examples": 16}
    return {"smoke": {"model": model, **scale}, "small": {"model": model, **scale}}
