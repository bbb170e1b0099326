"""All that a CUDA machine can tell, in one command: ``python -m benchmarks gpu --out DIR``.

    tests       pytest -m cuda
    steps       step time against torch's fused AdamW and against what the memory allows; peak memory
    trainer     what the feed, the mechanism and the record cost in a Trainer
    training    an encoder learns TREC-6 (--model-dir, --data-dir), beside what the recipe recorded on a CPU

A part that fails, or that this machine has nothing for, says so in its place. On a CPU it runs with small shapes.
"""

import functools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks import contenders, measure, trainer
from benchmarks.contenders import OURS, REFERENCE, Make
from benchmarks.models import MODELS, gpt2, make
from emo_hf import kernels
from emo_hf.hf import EmotionCallback

SHAPES = {**MODELS, "gpt2-xl": gpt2(48, 1600, 50257, 1024)}  # 580 tensors, 1.56 billion
SETS = {"cuda": ("gpt2-small", "gpt2-xl", "lora"), "cpu": ("gpt2-mini", "lora")}
NAMES = ("EmoSens 3.9", "EmoCats 3.9", "EmoTion 3.9", "EmoAiry 3.9", "EmoVoid 3.9")
OTHERS = ("AdamW foreach", "pytorch_optimizer Lion", "pytorch_optimizer EmoLynx", "pytorch_optimizer EmoNavi")
RECORDED = Path(__file__).parents[1] / "recipes/finetune/results/trec6/runs.jsonl"
ARMS = {"adamw-untuned": ("adamw_torch", 5e-5, "linear"), "emosens-1": ("emosens", 1.0, "constant")}  # of that recipe
STEPS, BATCH = 171, 32


def run(options: Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {"versions": versions(options.device)}
    for part in (tests, steps, trainer_share, training):
        try:
            result[part.__name__] = part(options)
        except Exception as error:  # the other parts count
            result[part.__name__] = {"missing": f"{type(error).__name__}: {error}"[:500]}
        print(f"{part.__name__}: {json.dumps(result[part.__name__])[:2000]}", flush=True)
    return {**result, "table": table(result)}


def versions(device: str) -> dict[str, Any]:
    found: dict[str, Any] = {"transformers": transformers.__version__, "cuda": torch.version.cuda, "cards": 0}
    if device == "cuda":
        names = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True
        )
        found |= {"cards": torch.cuda.device_count(), "driver": names.stdout.strip()}
    kernel = kernels.triton_kernel()
    return {**found, "triton": kernel.triton.__version__ if kernel else None}


# -- tests -----------------------------------------------------------------------------------------------------------


def tests(options: Namespace) -> dict[str, Any]:
    if options.device != "cuda":
        return {"missing": "no CUDA device"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "cuda",
        "tests",
        "-q",
        "-rfE",
        "--tb=short",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", done.stdout)}
    return {**counts, "status": done.returncode, "end": done.stdout[-4000:] if done.returncode else ""}


# -- steps -----------------------------------------------------------------------------------------------------------


def makers() -> dict[str, Make]:
    """Returns the optimizers to time: ours, ours without our own kernel, and others that are installed."""
    found = {REFERENCE: contenders.adamw(fused=True)}
    for name in NAMES:
        found[name] = contenders.ours(OURS[name])
    for name in ("EmoSens 3.9", "EmoCats 3.9"):
        found[f"{name} foreach"] = contenders.ours(OURS[name], "foreach")
    found |= {name: maker for name, maker in contenders.others().items() if name in OTHERS}
    try:
        import prodigyopt
    except ImportError:
        return found
    return {**found, "prodigyopt Prodigy": lambda params: prodigyopt.Prodigy(params, lr=1.0)}


def steps(options: Namespace) -> list[dict[str, Any]]:
    rows = []
    for model in SETS[options.device]:
        for dtype in ("float32", "bfloat16"):
            params = make(SHAPES[model], getattr(torch, dtype), options.device)
            rate = 2 * 512 * 2**20 / (measure.copy_probe(options.device) / 1e3)
            for name, maker in makers().items():
                row = {"model": model, "dtype": dtype, "name": name, "copy_gb_per_s": rate / 1e9}
                try:
                    row |= timed(params, name, maker, rate, options)
                except (RuntimeError, TypeError, ValueError) as error:  # memory is short, or it takes no such weights
                    row["missing"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                rows.append(row)
                if options.device == "cuda":
                    torch.cuda.empty_cache()
            del params
    return rows


def timed(params: Any, name: str, maker: Make, rate: float, options: Namespace) -> dict[str, Any]:
    """Times an optimizer in turns with the reference; both hold the same weights, so that large models fit."""
    pair = {REFERENCE: contenders.adamw(fused=True)(params), name: maker(params)}
    for optimizer in pair.values():
        for i in range(60 if name.startswith("EmoVoid") else 3):  # it holds its norm in the first 55 steps
            measure.step(optimizer, i)
    times = measure.interleave(pair, options.rounds, options.device)
    size = sum(param.numel() * param.element_size() for param in params)
    state = {each: measure.state_bytes(optimizer) for each, optimizer in pair.items()}
    temporary = measure.temporary_bytes(pair[name], options.device)
    seconds = statistics.median(times[name])
    return {
        "ms": seconds * 1e3,
        "ratio": measure.ratios(times, REFERENCE)[name],
        "of_bandwidth": (3 * size + 2 * state[name]) / rate / seconds,  # weights and states both ways, gradients once
        "peak_of_adamw": (2 * size + state[name] + temporary) / (2 * size + state[REFERENCE]),
        "temporary_mb": temporary / 2**20,
    }


# -- trainer ---------------------------------------------------------------------------------------------------------


def trainer_share(options: Namespace) -> dict[str, Any]:
    parts = trainer.run(options)
    plain = EmotionCallback._open_recorder
    EmotionCallback._open_recorder = lambda *_: None
    try:
        without = trainer.train("emosens", 30, options.device)
    finally:
        EmotionCallback._open_recorder = plain
    found = {key: parts[key] for key in ("rows", "reference_s", "ours_s")}
    return {**found, "without_record_s": without}


# -- training --------------------------------------------------------------------------------------------------------


def questions(path: Path, classes: list[str]) -> list[tuple[str, int]]:
    lines = path.read_bytes().decode("latin-1").rstrip("\n").split("\n")
    pairs = [line.partition(" ")[::2] for line in lines]
    names = [label.partition(":")[0] for label, _ in pairs]
    classes.extend(sorted(set(names) - set(classes)))
    return [(text.strip(), classes.index(name)) for name, (_, text) in zip(names, pairs, strict=True)]


def training(options: Namespace) -> dict[str, Any]:
    if options.model_dir is None or options.data_dir is None:
        return {"missing": "give --model-dir (all-MiniLM-L6-v2) and --data-dir (TREC)"}
    recorded = [json.loads(line) for line in RECORDED.read_text().splitlines()] if RECORDED.exists() else []
    rows = {}
    for arm, settings in ARMS.items():
        cpu = [(row["accuracy"], row["eval_loss"]) for row in recorded if row["arm"] == arm]
        rows[arm] = {**trained(*settings, options), "cpu_accuracy_loss": cpu}
    return rows


def trained(optim: str, lr: float, schedule: str, options: Namespace) -> dict[str, Any]:
    classes: list[str] = []
    train = questions(options.data_dir / "train_5500.label", classes)
    test = questions(options.data_dir / "TREC_10.label", classes)
    steps = STEPS if options.device == "cuda" else 3
    if options.device != "cuda":
        test = test[:64]
    transformers.set_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model_dir)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        options.model_dir, num_labels=len(classes), dtype=torch.float32
    )
    encode: Callable[..., Any] = functools.partial(tokenizer, truncation=True, max_length=64)
    sets = [[{**encode(text), "labels": label} for text, label in each] for each in (train, test)]
    with tempfile.TemporaryDirectory() as folder:
        args = transformers.TrainingArguments(
            folder, optim=optim, learning_rate=lr, lr_scheduler_type=schedule, max_steps=steps, seed=0,
            per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH, report_to=[], save_strategy="no",
            disable_tqdm=True, logging_steps=10, use_cpu=options.device == "cpu",
            dataloader_pin_memory=options.device != "cpu",
        )  # fmt: skip
        runner = transformers.Trainer(
            model, args, train_dataset=sets[0], eval_dataset=sets[1],
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda found: {"accuracy": float((found[0].argmax(-1) == found[1]).mean())},
        )  # fmt: skip
        seconds = measure.seconds(lambda: runner.train(), options.device)
        found = runner.evaluate()
    return {"steps": steps, "accuracy": found["eval_accuracy"], "loss": found["eval_loss"], "seconds": seconds}


# -- table -----------------------------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """Returns everything as one Markdown table."""
    lines = ["| part | what | figures |", "|---|---|---|"]
    for part in ("tests", "steps", "trainer_share", "training"):
        lines += [f"| {part} | {what} | {figures} |" for what, figures in PARTS[part](result[part])]
    return "\n".join(lines)


def _missing(rows: Callable[[Any], list[tuple[str, str]]]) -> Callable[[Any], list[tuple[str, str]]]:
    def complete(found: Any) -> list[tuple[str, str]]:
        return [("", f"missing: {found['missing']}")] if "missing" in found else rows(found)

    return complete


def _tests(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [("pytest -m cuda", ", ".join(f"{n} {word}" for word, n in found.items() if word not in ("end", "status")))]


def _steps(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    text = "{ms:.2f} ms, {ratio:.2f} of AdamW fused, {of_bandwidth:.0%} of bandwidth, memory {peak_of_adamw:.2f}"
    return [
        (
            f"{row['model']}, {row['dtype']}: {row['name']}",
            f"missing: {row['missing']}" if "missing" in row else text.format(**row),
        )
        for row in found
    ]


def _trainer(found: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"reference_s": "AdamW fused", "ours_s": "EmoSens", "without_record_s": "EmoSens without the record"}
    rows = [(f"step of a GPT-2 mini with {name}", f"{found[key] * 1e3:.2f} ms") for key, name in names.items()]
    return rows + [(row["name"], f"{row['us']:.0f} us, {row['share']:.3%} of a step") for row in found["rows"]]


def _training(found: dict[str, Any]) -> list[tuple[str, str]]:
    text = "{steps} steps in {seconds:.0f} s: accuracy {accuracy:.3f}, loss {loss:.3f}; on a CPU, 171 steps: "
    return [
        (arm, text.format(**row) + ", ".join(f"{a:.3f} and {b:.3f}" for a, b in row["cpu_accuracy_loss"]))
        for arm, row in found.items()
    ]


PARTS = {"tests": _missing(_tests), "steps": _missing(_steps), "trainer_share": _missing(_trainer)}
PARTS["training"] = _missing(_training)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
