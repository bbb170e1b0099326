"""Language models and image models: pieces, pixels, models and metrics, as a Trainer uses them."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import ResNetForImageClassification, Trainer, TrainingArguments, set_seed

from emo_hf.errors import RecipeError
from emo_hf.lab import sources, tasks
from emo_hf.lab.recipe import loading
from emo_hf.lab.tasks import language

LM = {"type": "causal-lm", "data": {"files": "tinyshakespeare"}}
VISION = {"type": "image-classification", "data": {"files": "fashion-mnist"}}
GPT2 = {"config": {"layers": 1, "heads": 2, "width": 16, "vocabulary": 300, "dropout": 0.0}}
RESNET = {"vision": {"widths": [8, 16]}}


@pytest.fixture
def run_config(recipe, write, data_folder):
    """Returns a run_config of another task and scale."""

    def run_config(task: dict, **scale):
        recipe["task"], recipe["sizes"] = task, {"smoke": {"steps": 20, "batch_size": 16, **scale}}
        recipe.pop("metric", None)
        recipe["default_size"] = "smoke"
        folder = data_folder if {"files", "json"} & task["data"].keys() else None
        return loading.recipe(write(recipe)).run_configs("smoke", data_dir=folder)[0]

    return run_config


def trained(parts, folder, steps=20, lr=0.01, **options) -> tuple[Trainer, dict]:
    args = TrainingArguments(
        str(folder), max_steps=steps, learning_rate=lr, per_device_train_batch_size=16, report_to="none",
        save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False, use_cpu=True, **options,
    )  # fmt: skip
    trainer = Trainer(args=args, **vars(parts))
    trainer.train()
    return trainer, trainer.evaluate()


def test_the_loss_is_on_the_completions(run_config, tmp_path):
    qa = [{"p": f"{a} and {b} make", "c": "much" if a + b > 9 else "little"} for a in range(10) for b in range(10)]
    (tmp_path / "data/qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in qa))
    data = {"json": "qa.jsonl", "prompt": "p", "completion": "c", "holdout": 0.2}
    chosen = run_config({"type": "causal-lm", "data": data}, model=GPT2, max_tokens=8)
    found = sources.examples(chosen)
    set_seed(0)
    parts = tasks.build(chosen, found)
    assert (len(parts.train_dataset), len(parts.eval_dataset)) == (80, 20)
    read = parts.processing_class
    for row, example in zip(parts.train_dataset, found.train, strict=True):
        answer = [*read(example.completion, add_special_tokens=False)["input_ids"], read.eos_token_id]
        assert [token for token in row["labels"] if token != -100] == answer[:7]
        prompt = read(example.prompt, add_special_tokens=False)["input_ids"]
        assert row["input_ids"] == [*prompt[-(8 - len(answer)) :], *answer]  # the beginning is left out
    batch = parts.data_collator([parts.train_dataset[0], {"input_ids": [5, 6], "labels": [-100, 6]}])
    longest = len(parts.train_dataset[0]["input_ids"])
    assert batch["input_ids"][1].tolist() == [5, 6, *[read.pad_token_id] * (longest - 2)]
    assert batch["attention_mask"].sum(1).tolist() == [longest, 2]
    assert batch["labels"][1].tolist() == [-100, 6, *[-100] * (longest - 2)]
    trainer, result = trained(parts, tmp_path / "out")
    loss = trainer.model(**parts.data_collator([*parts.eval_dataset])).loss  # of a token, over all examples
    assert math.log(result["eval_perplexity"]) == pytest.approx(loss.item(), rel=1e-3)
    assert result["eval_perplexity"] < 30  # 300 before


def test_pieces(run_config):
    chosen = run_config(LM, model=GPT2, max_tokens=10, train_examples=7, test_examples=3)
    found = sources.examples(chosen)
    parts = tasks.build(chosen, found)
    assert (len(parts.train_dataset), len(parts.eval_dataset)) == (7, 3)
    tokens = np.concatenate([row["input_ids"] for row in parts.train_dataset])
    lines = found.train.splitlines(keepends=True)
    whole = [token for line in lines for token in parts.processing_class(line, add_special_tokens=False)["input_ids"]]
    assert tokens.tolist() == whole[:70]
    assert all(row["labels"] == [-100, *row["input_ids"][1:]] for row in parts.train_dataset)


def test_all_pieces_but_an_incomplete_one(run_config):
    chosen = run_config(LM, model=GPT2, max_tokens=1000)
    found = sources.examples(chosen)
    parts = tasks.build(chosen, found)
    lines = parts.processing_class(found.train.splitlines(keepends=True), add_special_tokens=False, verbose=False)
    assert len(parts.train_dataset) == sum(map(len, lines["input_ids"])) // 1000


def test_held_out_pieces(run_config):
    held = run_config({**LM, "data": {"files": "tinyshakespeare", "holdout": 5}}, model=GPT2, train_examples=4)
    plain = run_config(LM, model=GPT2, train_examples=9)
    with_holdout, without = (tasks.build(c, sources.examples(c)) for c in (held, plain))
    both = [*with_holdout.eval_dataset["input_ids"], *with_holdout.train_dataset["input_ids"]]
    assert both == list(without.train_dataset["input_ids"])
    few = run_config({**LM, "data": {"files": "tinyshakespeare", "holdout": 5}}, model=GPT2, test_examples=2)
    assert len(tasks.build(few, sources.examples(few)).eval_dataset) == 2


@pytest.mark.parametrize(
    ("data", "scale", "message"),
    [
        ({}, {"train_examples": 10**6}, r"train_examples 1000000: the text has only \d+ pieces of 64 tokens"),
        ({}, {"test_examples": 10**6}, "test_examples 1000000: the text has only"),
        ({}, {"max_tokens": 10**6}, "the text has only 0 pieces of 1000000 tokens"),
        ({"holdout": 10**6}, {}, "holdout 1000000: there are only"),
        ({"holdout": 3}, {"test_examples": 4}, "test_examples 4: the holdout is only 3"),
        ({"holdout": 3}, {"train_examples": 10**6}, "holdout and train_examples together 1000003: the text has only"),
    ],
)
def test_text_is_too_short(run_config, data, scale, message):
    chosen = run_config({**LM, "data": {"files": "tinyshakespeare", **data}}, model=GPT2, **scale)
    with pytest.raises(RecipeError, match=message):
        tasks.build(chosen, sources.examples(chosen))


def test_text_of_the_sentences(run_config):
    chosen = run_config({"type": "causal-lm", "data": {"embedded": "sentences"}}, model=GPT2, train_examples=20)
    found = sources.examples(chosen)
    assert found.train.count("\n") == 3000
    assert len(tasks.build(chosen, found).train_dataset) == 20


def test_perplexity(run_config, tmp_path):
    chosen = run_config(LM, model=GPT2, train_examples=100, test_examples=21, max_tokens=16)
    set_seed(0)
    parts = tasks.build(chosen, sources.examples(chosen))
    trainer, result = trained(parts, tmp_path, per_device_eval_batch_size=8)  # 8, 8 and 5
    model = parts.model.eval()
    with torch.no_grad():
        pieces = torch.tensor(parts.eval_dataset["input_ids"][:])
        scores = model(pieces).logits[:, :-1].log_softmax(-1)
    losses = -scores.gather(-1, pieces[:, 1:, None]).double()
    assert result["eval_perplexity"] == pytest.approx(math.exp(losses.mean()), rel=1e-4)
    assert result["eval_perplexity"] == pytest.approx(math.exp(result["eval_loss"]), rel=1e-4)
    assert result["eval_perplexity"] < 100  # it learned: 300 tokens are known
    trainer.args.per_device_eval_batch_size = 3
    assert trainer.evaluate()["eval_perplexity"] == pytest.approx(result["eval_perplexity"], rel=1e-5)


def test_perplexity_of_a_broken_model(run_config, tmp_path):
    chosen = run_config(LM, model=GPT2, train_examples=20, test_examples=4)
    parts = tasks.build(chosen, sources.examples(chosen))
    torch.nn.init.constant_(parts.model.transformer.ln_f.weight, math.nan)
    args = TrainingArguments(str(tmp_path), report_to="none", disable_tqdm=True, use_cpu=True)
    assert math.isnan(Trainer(args=args, **vars(parts)).evaluate()["eval_perplexity"])
    compute = parts.compute_metrics.compute
    assert compute(predictions=[1e6], references=[1]) == {"perplexity": math.inf}


def test_dropped_pieces(run_config):
    assert language.dataset(np.arange(6).reshape(2, 3))[1] == {"input_ids": [3, 4, 5], "labels": [-100, 4, 5]}


def test_pixels(run_config):
    chosen = run_config(VISION, model=RESNET)
    found = sources.examples(chosen)
    parts = tasks.build(chosen, found)
    batch = parts.data_collator([parts.train_dataset[place] for place in range(2400)])
    assert batch["pixel_values"].shape == (2400, 1, 28, 28)
    assert batch["labels"].tolist() == found.train.classes.tolist()
    assert batch["pixel_values"].mean() == pytest.approx(0, abs=1e-4)
    assert batch["pixel_values"].std() == pytest.approx(1, abs=1e-3)
    back = batch["pixel_values"][5, 0] * found.std + found.mean
    assert np.array_equal((back * 255).round().numpy(), found.train.pixels[5])


def test_image_classification(run_config, tmp_path):
    chosen = run_config(
        VISION, model={"vision": {"widths": [8, 16], "blocks": 2}}, train_examples=600, test_examples=100
    )
    set_seed(0)
    parts = tasks.build(chosen, sources.examples(chosen))
    assert parts.model.config.id2label[9] == "Ankle boot"
    assert [len(stage.layers) for stage in parts.model.resnet.encoder.stages] == [2, 2]
    trainer, result = trained(parts, tmp_path / "run", steps=60, lr=0.003)
    assert result["eval_accuracy"] > 0.5
    trainer.save_model(str(tmp_path / "saved"))
    again = ResNetForImageClassification.from_pretrained(tmp_path / "saved").eval()
    batch = parts.data_collator([parts.eval_dataset[place] for place in range(4)])
    with torch.no_grad():
        assert torch.equal(again(batch["pixel_values"]).logits, parts.model.eval()(batch["pixel_values"]).logits)
    assert (again.config.image_mean, again.config.image_std) == (parts.data_collator.mean, parts.data_collator.std)


def test_a_vision_transformer_learns(run_config, tmp_path):
    vit = {"patch": 7, "layers": 2, "heads": 2, "width": 32}
    chosen = run_config(VISION, model={"vit": vit}, train_examples=600, test_examples=100)
    set_seed(0)
    parts = tasks.build(chosen, sources.examples(chosen))
    config = parts.model.config
    assert (config.image_size, config.patch_size, config.num_channels, config.intermediate_size) == (28, 7, 1, 128)
    assert (config.num_hidden_layers, config.num_attention_heads, config.hidden_size) == (2, 2, 32)
    _, result = trained(parts, tmp_path / "run", steps=60, lr=0.003)
    assert result["eval_accuracy"] > 0.5


def test_patches_fill_the_image(run_config):
    chosen = run_config(VISION, model={"vit": {"patch": 5, "layers": 1, "heads": 1, "width": 8}})
    with pytest.raises(RecipeError, match="patch: got 5, expected a divisor of the 28 pixels of a side"):
        tasks.build(chosen, sources.examples(chosen))
