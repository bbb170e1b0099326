"""The parts of ``python -m benchmarks gpu``: each gives its rows one by one, as soon as they are measured."""

import functools
import json
import re
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks import contenders, measure, trainer
from benchmarks.contenders import OURS, REFERENCE, Make
from benchmarks.models import MODELS, gpt2, make
from benchmarks.steps import warm_up
from emo_hf.hf import EmotionCallback

ROOT = Path(__file__).parents[1]
TESTS = ("tests/kernels/test_cuda.py", "tests/hf/test_cuda.py")  # pytest, hypothesis and no other package are needed
OUTCOMES = ("passed", "failed", "error", "skipped")
SHAPES = {**MODELS, "gpt2-xl": gpt2(48, 1600, 50257, 1024)}  # 580 tensors, 1.56 billion
SIZES = {"small": ("gpt2-small", "gpt2-mini"), "large": ("gpt2-xl", "gpt2-mini"), "lora": ("lora", "lora")}
NAMES = ("EmoSens 3.9", "EmoFree 1.0", "EmoCats 3.9", "EmoTion 3.9", "EmoAiry 3.9", "EmoVoid 3.9")
OTHERS = ("AdamW foreach", "pytorch_optimizer Lion", "pytorch_optimizer EmoLynx", "pytorch_optimizer EmoNavi")
RECORDED = ROOT / "recipes/finetune/results/trec6/runs.jsonl"
ARMS = {"adamw-untuned": ("adamw_torch", 5e-5, "linear"), "emosens-1": ("emosens", 1.0, "constant")}  # of that recipe
STEPS, BATCH = 171, 32
Rows = Iterator[dict[str, Any]]


def triton_version() -> str | None:
    try:
        return version("triton")
    except PackageNotFoundError:
        return None


# -- tests -----------------------------------------------------------------------------------------------------------


def tests(options: Namespace) -> Rows:
    if options.device != "cuda":
        yield {"missing": "no CUDA device"}
        return
    log = options.out / "gpu-tests.txt"
    command = [sys.executable, "-m", "pytest", "-m", "cuda", *TESTS, "-vv", "-rfE", "--tb=short"]
    command += ["-W", "default", "-p", "no:cacheprovider"]  # warnings of other versions are no failures
    late = ""
    with log.open("w") as file:
        try:
            status = subprocess.run(
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=options.limit - 15
            ).returncode
        except subprocess.TimeoutExpired:
            status, late = -1, "the others: the time was up"
    text = log.read_text(errors="replace")
    seen = re.findall(r"^(tests/\S+::.*) (PASSED|FAILED|ERROR|SKIPPED)", text, re.M)
    counts = {word: sum(outcome.lower() == word for _, outcome in seen) for word in OUTCOMES}
    names = [name.rpartition("::")[2] for name, outcome in seen if outcome in ("FAILED", "ERROR")]
    row = {**counts, "status": status, "names": names, "end": text[-6000:] if status else ""}
    if late or not seen:
        row["missing"] = late or text[-300:].strip().replace("\n", " ")
    yield row


# -- steps -----------------------------------------------------------------------------------------------------------


def makers() -> dict[str, Make]:
    """Returns the optimizers to time: ours, ours by list operations, and others that are installed."""
    found = {REFERENCE: contenders.adamw(fused=True)}
    for name in NAMES:
        found[name] = contenders.ours(OURS[name])
    for name in ("EmoSens 3.9", "EmoCats 3.9"):
        found[f"{name} foreach"] = contenders.ours(OURS[name], "foreach")
    found["EmoSens 3.9 Kahan"] = contenders.ours(OURS["EmoSens 3.9"], compensation="kahan")
    found |= {name: maker for name, maker in contenders.others().items() if name in OTHERS}
    try:
        import prodigyopt
    except ImportError:
        return found
    return {**found, "prodigyopt Prodigy": lambda params: prodigyopt.Prodigy(params, lr=1.0)}


def steps(size: str, options: Namespace) -> Rows:
    model = SIZES[size][options.device != "cuda"]
    for dtype in ("float32", "bfloat16"):
        row: dict[str, Any] = {"model": model, "dtype": dtype, "name": "all"}
        try:
            params = make(SHAPES[model], getattr(torch, dtype), options.device)
            rate = 2 * 512 * 2**20 / (measure.copy_probe(options.device) / 1e3)
        except RuntimeError as error:  # memory is short
            yield {**row, "missing": _first_line(error)}
            continue
        for name, maker in makers().items():
            if name.endswith("Kahan") and dtype == "float32":
                continue
            row = {"model": model, "dtype": dtype, "name": name, "copy_gb_per_s": rate / 1e9}
            try:
                row |= timed(params, name, maker, rate, options)
            except (RuntimeError, TypeError, ValueError) as error:  # memory is short, or it takes no such weights
                row["missing"] = _first_line(error)
            yield row
            if options.device == "cuda":
                torch.cuda.empty_cache()
        del params


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def timed(params: Any, name: str, maker: Make, rate: float, options: Namespace) -> dict[str, Any]:
    """Times an optimizer in turns with the reference; both hold the same weights, so that large models fit."""
    pair = {REFERENCE: contenders.adamw(fused=True)(params), name: maker(params)}
    for optimizer in pair.values():
        for i in range(warm_up(name)):
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


def trainer_share(options: Namespace) -> Rows:
    parts = trainer.run(options)
    reference = parts["reference_s"]
    plain = EmotionCallback._open_recorder
    EmotionCallback._open_recorder = lambda *_: None
    try:
        without = trainer.train("emosens", trainer.STEPS, options.device)
    finally:
        EmotionCallback._open_recorder = plain
    whole = {"AdamW fused": reference, "EmoSens": parts["ours_s"], "EmoSens without the record": without}
    for name, seconds in whole.items():
        yield {"name": f"a step with {name}", "us": seconds * 1e6, "share": seconds / reference}
    yield from parts["rows"]  # to wait for the loss is to wait for the device's forward pass as well


# -- training --------------------------------------------------------------------------------------------------------


def questions(path: Path, classes: list[str]) -> list[tuple[str, int]]:
    """Reads TREC as emo_hf.lab.sources.files does, whose packages need not be installed for a benchmark."""
    lines = path.read_bytes().decode("latin-1").rstrip("\n").split("\n")
    pairs = [line.partition(" ")[::2] for line in lines]
    names = [label.partition(":")[0] for label, _ in pairs]
    classes.extend(sorted(set(names) - set(classes)))
    return [(text.strip(), classes.index(name)) for name, (_, text) in zip(names, pairs, strict=True)]


def training(options: Namespace) -> Rows:
    if options.model_dir is None or options.data_dir is None:
        yield {"missing": "give --model-dir (all-MiniLM-L6-v2) and --data-dir (TREC)"}
        return
    recorded = [json.loads(line) for line in RECORDED.read_text().splitlines()] if RECORDED.exists() else []
    for arm, settings in ARMS.items():
        ends = [(row["accuracy"], row["eval_loss"]) for row in recorded if row["arm"] == arm]
        cpu = ", ".join(f"{accuracy:.3f} and {loss:.3f}" for accuracy, loss in ends)
        yield {"arm": arm, **trained(*settings, options), "cpu": cpu}


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


PARTS: dict[str, Callable[[Namespace], Rows]] = {
    "tests": tests,
    **{f"steps-{size}": functools.partial(steps, size) for size in SIZES},
    "trainer": trainer_share,
    "training": training,
}
