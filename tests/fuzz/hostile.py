"""Recipes and optimizer states as nobody should write them, made by chance from those that are right.

    python -m tests.fuzz.hostile --count 1000      1000 of each; the same seed makes the same ones

Each is tried in a process of its own, with 2 seconds and 6 GB. It may be refused with an error of ours, or work.
It must not end in a traceback or a crash, take more than 2 seconds of CPU time, or make weights that are not finite.
"""

import argparse
import copy
import datetime
import io
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from emo_hf import registry
from emo_hf.errors import EmoError
from emo_hf.lab.recipe import loading, sweep
from emo_hf.lab.recipe.schema import Recipe
from tests import ROOT
from tests.optimizer_contract import build, make_params, run

SECONDS, BYTES = 2, 6 * 2**30
OUTCOMES = ("works", "refused", "traceback", "slow", "not finite")  # by exit code; a signal is a crash

# -- recipes ---------------------------------------------------------------------------------------------------------

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        "",
        "x",
        "x" * 6000,
        "a-" * 20_000,
        "hf_-" * 15_000,
        0,
        -1,
        10**30,
        2**32,
        1e308,
        math.nan,
        math.inf,
    ),
    *([], {}, [[]], [None], {"a": {"b": {"c": 1}}}, [math.nan], list(range(3000)), {f"k{n}": n for n in range(3000)}),
    *(datetime.date(2001, 1, 1), datetime.datetime(2001, 1, 1, 12), b"bytes", {"set"}, ("pair", 1)),
    *("../../etc/passwd", "/etc/passwd", "a\0b", "\x1b[2J", "‮", "no/such", "lr", "emosens", "adamw_torch"),
)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Returns the paths of all values."""
    found = [path] if path else []
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        found += places(value, (*path, key))
    return found


def with_strange_values(chance: random.Random, text: str) -> str:
    content = copy.deepcopy(yaml.safe_load(text))
    for _ in range(chance.randint(1, 3)):
        *path, last = chance.choice(places(content))
        holder = content
        for key in path:
            holder = holder[key]
        if chance.random() < 0.2 and isinstance(holder, dict):
            holder[chance.choice((*VALUES[:12], "lr", "seeds"))] = holder.pop(last)
        else:
            holder[last] = copy.deepcopy(chance.choice(VALUES))
    return yaml.dump(content, sort_keys=False)


def with_strange_lines(chance: random.Random, text: str) -> str:
    lines = text.splitlines()
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(lines))
        match chance.randrange(6):
            case 0:
                lines[place] = "  " * chance.randint(1, 3) + lines[place]
            case 1:
                lines[place] = lines[place].lstrip()
            case 2:
                lines.insert(place, lines[chance.randrange(len(lines))])
            case 3:
                lines[place] = lines[place].replace(": ", ": &a ", 1) + " *a"
            case 4:
                lines[place] = lines[place][: chance.randint(0, len(lines[place]))]
            case 5:
                lines[place] += chance.choice(("[", "{", "*a", "!!binary aGk=", "!!set {a, b}", "\t", '"', "\x07"))
    return "\n".join(lines)


def a_bomb(chance: random.Random, text: str) -> str:
    size = chance.choice((10, 30, 300, 3000, 20_000))
    chain = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    chain += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, chance.randint(2, 12))]
    merged = ["m0: &m0 {a: 1, b: 2}"]
    merged += [
        f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}], k{n}: 1}}" for n in range(1, chance.randint(2, 8))
    ]
    bombs = (
        "loop: &a [*a]",
        "loop: &a {b: *a}",
        "arms: &a\n  emosens: *a",
        "\n".join(chain),
        "\n".join(merged),
        f"deep: {'[' * size}{']' * size}",
        "\n".join("  " * n + "k:" for n in range(size // 10)),
        f"seeds: [{', '.join(map(str, range(size)))}]",
        "arms:\n" + "\n".join(f"  a{n}: {{optim: emosens, lr: 1.0, tuning: untuned}}" for n in range(size)),
        f"description: {chance.choice(('hf_-', 'sk-', 'eyJ-', 'a1', '://a:', 'token='))}{'hf_-' * size}",
        f"rule: [{', '.join(['{arm: nobody, against: emosens, better_by: 0}'] * size)}]",
        f"name: {'a.' * size}",
        f"key{'y' * size}: 1",
        f"number: {'9' * size}",
        f"number: 1:{':'.join(['10'] * size)}",
    )
    first = chance.choice(bombs)
    key = first.partition(":")[0]
    rest = "\n".join(line for line in text.splitlines() if not line.startswith(f"{key}:"))
    return f"{rest}\n{first}\n"


def try_recipe(chance: random.Random, folder: Path) -> None:
    source = chance.choice(loading.shipped(ROOT / "recipes"))
    make = chance.choice((with_strange_values, with_strange_lines, a_bomb))
    path = folder / "recipe.yaml"
    path.write_text(make(chance, source.read_text()), encoding="utf-8", errors="replace")
    begun = time.process_time()
    try:
        found = loading.recipe(str(path))
        for size in found.sizes if isinstance(found, Recipe) else ():
            cells = found.run_configs(size, data_dir=folder if found.task.data.files else None)
            yaml.safe_dump(cells[0].model_dump(mode="json", exclude_none=True))
            sweep.text([cell for cell in cells if not cell.arm.replay] or cells, "recipe", found.description)
        [str(arm.tuning) for arm in found.arms.values()]
    except EmoError as error:
        if len(str(error)) > 50_000:
            raise RuntimeError("a message without end") from None
        raise
    finally:
        if time.process_time() - begun > SECONDS:
            raise TimeoutError


# -- states ----------------------------------------------------------------------------------------------------------

NUMBERS = (math.nan, math.inf, -math.inf, -1.0, 0.0, 0.5, 2.0, 1e300, None, "text", True, (1.0,), 10**400)


def strange_tensor(chance: random.Random, tensor: torch.Tensor) -> Any:
    return chance.choice(
        (
            *(
                tensor.flatten()[:-1].clone(),
                tensor[None],
                tensor.new_empty(0),
                tensor.new_zeros(()),
                tensor.new_zeros(3),
            ),
            *(tensor.long(), tensor.bool(), tensor.to(torch.complex64), tensor.to("meta"), tensor.to_sparse()),
            *(
                tensor.new_zeros(()).expand(tensor.shape),
                tensor.to(torch.bfloat16),
                tensor.mT if tensor.dim() > 1 else 1,
            ),
            *(None, 0.0, "text", [], {}, tensor.tolist()),
        )
    )


def strange_state(chance: random.Random, state: dict[str, Any]) -> None:
    """Changes a state dict in place."""
    tensors, group = state["state"], state["param_groups"][0]
    with_tensors = [key for key, own in tensors.items() if own]
    match chance.randrange(6):
        case 0 if with_tensors:
            own = tensors[chance.choice(with_tensors)]
            name = chance.choice(list(own))
            own[name] = strange_tensor(chance, own[name])
        case 1 if len(with_tensors) > 1:
            one, other = chance.sample(with_tensors, 2)
            tensors[one], tensors[other] = tensors[other], tensors[one]
        case 2 if with_tensors:
            own = tensors[chance.choice(with_tensors)]
            own[chance.choice(("strange", 3, None))] = own.pop(chance.choice(list(own)))
        case 3:
            values = list(group["emo"])
            for _ in range(chance.randint(1, 3)):
                values[chance.randrange(len(values))] = chance.choice(NUMBERS)
            group["emo"] = chance.choice(
                (tuple(values), tuple(values[: chance.randrange(len(values))]), None, "text", 1)
            )
        case 4:
            name = chance.choice([name for name in group if name != "optimizer"])
            if chance.random() < 0.3:
                del group[name]
            else:
                group[name] = chance.choice((*(number for number in NUMBERS if number != 1e300), [], {}, (0.9, 2.0)))
            if group.get("eps") == 0.0:  # is allowed, as in torch, and divides 0 by 0 where no gradient has been
                group["eps"] = 0.5
        case _:
            name = chance.choice(list(state))
            state[name] = chance.choice((None, [], {}, "text", 1, [{}], {99: {}}, {0: []}, [None]))


def try_state(chance: random.Random, folder: Path) -> None:
    spec = chance.choice(registry.specs())
    shapes = ((300, 301), (70_001,), (6, 4), (4, 6), ())
    options = {"implementation": chance.choice(("auto", "fused", "foreach", "forloop"))}
    params = make_params(shapes, torch.float32)
    optimizer = build(spec, params, shadow=chance.random() < 0.3, **options)
    run(optimizer, params, range(4))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file)
    strange_state(chance, state)
    optimizer.load_state_dict(state)
    run(optimizer, params, range(4, 7))
    if not all(param.isfinite().all() for param in params):
        raise FloatingPointError("not finite")


# -- counting --------------------------------------------------------------------------------------------------------

TRIED: dict[str, Callable[[random.Random, Path], None]] = {"recipes": try_recipe, "states": try_state}


def outcome(kind: str, seed: int, said: Path) -> str:
    """Tries one in a forked process; its traceback, if there is one, is added to the file `said`."""
    pid = os.fork()
    if not pid:
        os._exit(_tried(kind, seed, said))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "crash" if os.WIFSIGNALED(status) else OUTCOMES[os.WEXITSTATUS(status)]
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "slow"


def _tried(kind: str, seed: int, said: Path) -> int:
    def too_late(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGPROF, too_late)
    signal.setitimer(signal.ITIMER_PROF, 2 * SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TRIED[kind](random.Random(f"{kind} {seed}"), Path(folder))
    except TimeoutError:
        return OUTCOMES.index("slow")
    except FloatingPointError as error:
        return OUTCOMES.index("refused" if isinstance(error, EmoError) else "not finite")
    except EmoError:
        return OUTCOMES.index("refused")
    except BaseException:
        with said.open("a") as file:
            file.write(f"{kind} {seed}\n{traceback.format_exc()}\n")
        return OUTCOMES.index("traceback")
    return OUTCOMES.index("works")


def counts(kind: str, count: int, seed: int, said: Path) -> Counter[str]:
    """Tries `count` of a kind; returns how often each outcome came."""
    os.environ["EMO_HF_NATIVE"] = "0"  # each process would build the C++ kernel, which declines what does not fit
    torch.set_num_threads(1)  # threads do not survive a fork
    loading.recipe("quickstart").run_configs()  # what is imported late is imported here, once
    run(build(registry.find("emosens"), params := make_params()), params, range(2))
    return Counter(outcome(kind, number, said) for number in range(seed, seed + count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--said", type=Path, default=Path("hostile.txt"), help="where tracebacks go")
    args = parser.parse_args()
    for kind in TRIED:
        found = counts(kind, args.count, args.seed, args.said)
        sys.stdout.write(f"{kind}: {', '.join(f'{number} {name}' for name, number in found.most_common())}\n")


if __name__ == "__main__":
    main()
