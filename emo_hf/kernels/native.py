"""The rules by a C++ kernel of our own for CPUs (`cpu.cpp`): one call per parameter group, one trip through memory.

    fused    builds it at its first step, unless it was built before: some ten seconds, once per machine and torch
    auto     uses it where it was built, and never starts a compiler

It is never needed: whatever goes wrong is logged once, and `emo_hf.kernels.fused` does the work. It is Linux only;
``EMO_HF_NATIVE=0`` switches it off. It is off where several processes train together as well: ranks that found it and
ranks that did not would drift apart in the last bits.

What lies there runs in this process. So the folder is this user's own, closed to all others, and a library's name ends
in its SHA-256: one of another user is refused, a damaged one is left alone, and `fused` builds it anew.

A build happens in a folder of its own and is then moved into place at once, so processes that build together do no
harm, and a killed one leaves nothing that anyone would wait for.
"""

import functools
import hashlib
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emo_hf import updates
from emo_hf.kernels import compensation, fused
from emo_hf.kernels.measuring import Sums
from emo_hf.updates import Hyper, TensorState, Update

Lists = tuple[list[Tensor], list[Tensor], list[TensorState]]

logger = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("cpu.cpp")
RULES = {  # rule -> its name in C++ and its state
    updates.adam_: ("adam", "exp_avg", "exp_avg_sq"),
    updates.corrected_adam_: ("adam", "exp_avg", "exp_avg_sq"),
    updates.lion_: ("lion", "exp_avg"),
    updates.momentum_sign_: ("momentum_sign", "exp_avg"),
    updates.sign_: ("sign",),
}
MATRICES = ("factored", "exp_avg_sq_row", "exp_avg_sq_col")
FLAGS = {
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
    "AVX2": ["-mavx2", "-mfma"],
}
PLAIN = {Tensor, torch.nn.Parameter}  # a DTensor is neither


def run(
    update: Update, lists: Lists, h: Hyper, scale: float = 1.0, sums: Sums | None = None, *, build: bool = False
) -> Lists:
    """Applies `update` to the tensors that it can take, after multiplying them by `scale`, and returns the others.

    What those that it took tell goes into `sums`.
    """
    params, grads, states = lists
    if not params or params[0].device.type != "cpu" or {*map(type, params), *map(type, grads)} - PLAIN:
        return lists
    if update.apply not in {*RULES, *fused.FACTORED}:
        return lists
    kernel = library(build)
    if kernel is None:
        return lists
    compensated = [compensation.KEY in state for state in states]
    if any(compensated) and not all(compensated):
        return _join(*(run(update, each, h, scale, sums, build=build) for each in _split(lists, compensated)))
    if update.apply is updates.corrected_adam_:
        return _take_corrected(kernel, lists, h, scale, sums)
    if update.apply in RULES:
        return _take(kernel, RULES[update.apply], lists, h, scale)[0]
    matrices, vectors = _split(lists, [param.dim() >= 2 for param in params])
    matrices, _ = _take(kernel, MATRICES, matrices, h, scale)
    if update.apply is updates.factored_:
        vectors, _ = _take(kernel, RULES[updates.adam_], vectors, h, scale)
    return _join(matrices, vectors)


def _take_corrected(kernel: Any, lists: Lists, h: Hyper, scale: float, sums: Sums | None) -> Lists:
    """Adam with bias correction, by its numbers; the sums are of directions without their factors."""
    (factor, eps), (factor_before, eps_before) = map(fused.correction, (h, h._replace(age=h.age - 1)))
    name, *keys = RULES[updates.corrected_adam_]
    rule = (name, *keys) if sums is None else (f"measured_{name}", *keys)
    left, found = _take(kernel, rule, lists, h._replace(step=h.step * factor, eps=eps), scale, eps_before)
    if sums is not None:
        following, magnitude, descent = found
        sums.add(following * factor_before, magnitude, descent * factor)
    return left


def _take(
    kernel: Any, rule: tuple[str, ...], lists: Lists, h: Hyper, scale: float, eps_before: float = 0.0
) -> tuple[Lists, list[float]]:
    params, grads, states = lists
    name, *keys = rule
    first, second = [[state[key] for state in states] for key in keys] + [[]] * (2 - len(keys))
    lost = [state[compensation.KEY] for state in states if compensation.KEY in state]
    decay = h.lion_decay if name == "lion" else h.decay
    beta1 = 1 - (1 - h.beta1) * h.freshness if name == "momentum_sign" else h.beta1
    numbers = h.step, decay, beta1, h.beta2, h.eps, scale, eps_before
    left, found = kernel.step(name, params, grads, first, second, lost, *numbers)
    return pick(lists, left), found


def pick(lists: Lists, places: Sequence[int]) -> Lists:
    """Returns the tensors of some places."""
    params, grads, states = lists
    return [params[i] for i in places], [grads[i] for i in places], [states[i] for i in places]


def _join(first: Lists, second: Lists) -> Lists:
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]


def _split(lists: Lists, chosen: list[bool]) -> tuple[Lists, Lists]:
    places = range(len(chosen))
    return pick(lists, [i for i in places if chosen[i]]), pick(lists, [i for i in places if not chosen[i]])


def l1_norm(params: Sequence[Tensor], *, build: bool = False) -> float | None:
    """Sum of |p| over all entries of all tensors, added up in float64; None if that is not for this kernel."""
    if not params or params[0].device.type != "cpu" or set(map(type, params)) - PLAIN:
        return None
    kernel = library(build)
    return kernel and kernel.l1_norm(list(params))


# -- building --------------------------------------------------------------------------------------------------------


def library(build: bool) -> Any:
    """Returns the kernel's operations, or None. Only with `build` is a compiler started, at most once per process."""
    build = build or bool(_built.cache_info().currsize)  # what is there is for all
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if os.environ.get("EMO_HF_NATIVE") == "0" or sys.platform != "linux" or distributed:
        return None
    return _found() or (_built() if build else None)


def _folder() -> Path:
    """Where the libraries of this user lie, also where TORCH_EXTENSIONS_DIR is shared; it need not exist."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or os.path.join(cache, "torch_extensions")
    return Path(root, f"emo_hf-{os.getuid()}")


def _name() -> str:
    """What this source, torch and CPU are called; a home that several machines share is no hazard."""
    traits = f"{SOURCE.read_text()} {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {os.uname().machine}"
    return f"emo_hf_{hashlib.sha256(traits.encode()).hexdigest()[:16]}"


def _libraries() -> tuple[list[Path], list[Path]]:
    """Returns the whole libraries of this name, and the damaged ones.

    Raises:
        PermissionError: the folder or a library is not this user's alone.
    """
    folder = _folder()
    if not os.path.lexists(folder):
        return [], []
    _refuse_others(folder, stat.S_ISDIR)
    whole: list[Path] = []
    damaged: list[Path] = []
    for path in sorted(folder.glob(f"{_name()}-*.so")):
        _refuse_others(path, stat.S_ISREG)
        is_whole = path.stem.endswith(f"-{hashlib.sha256(path.read_bytes()).hexdigest()}")
        (whole if is_whole else damaged).append(path)
    return whole, damaged


def _refuse_others(path: Path, has_kind: Callable[[int], bool]) -> None:
    """Raises `PermissionError` unless `path` is of that kind, no link, this user's, and closed to others' writing."""
    found = path.lstat()
    if not has_kind(found.st_mode):
        raise PermissionError(f"{path} is a link, or not what emo_hf makes: remove it")
    if found.st_uid != os.getuid():
        raise PermissionError(
            f"{path} belongs to user {found.st_uid}, not to {os.getuid()}, and is not run: remove it"
        )
    if found.st_mode & 0o022:
        raise PermissionError(f"{path} can be written by others (mode {found.st_mode & 0o777:o}): remove it")


@functools.cache
def _found() -> Any:
    try:
        whole, damaged = _libraries()
        if whole:
            torch.ops.load_library(whole[0])
            return torch.ops.emo_hf
        if damaged:
            logger.warning("%s is damaged and not used: implementation='fused' builds it anew.", damaged[0])
    except (OSError, RuntimeError) as error:
        _without(error)
    return None


@functools.cache
def _built() -> Any:
    try:
        home = _folder()
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _, damaged = _libraries()
        folder = Path(tempfile.mkdtemp(prefix="emo_hf_", dir=home))
        try:
            _compile(folder, _name())
            library = folder / f"{_name()}.so"
            digest = hashlib.sha256(library.read_bytes()).hexdigest()
            library.chmod(0o700)
            library.replace(home / f"{library.stem}-{digest}.so")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        for path in damaged:
            if not path.stem.endswith(digest):  # else it has just been replaced
                path.unlink(missing_ok=True)
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        return _without(error)
    return torch.ops.emo_hf


def _compile(folder: Path, name: str) -> None:
    """Compiles into `folder` and loads."""
    from torch.utils.cpp_extension import load  # slow to import

    logger.info("Compiling %s, once on this machine.", SOURCE.name)
    flags = ["-O3", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
    flags += FLAGS.get(torch.backends.cpu.get_cpu_capability(), [])
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = search_path()
    try:
        load(name, [str(SOURCE)], extra_cflags=flags, build_directory=str(folder), is_python_module=False)
    finally:
        os.environ["PATH"] = path


def search_path() -> str:
    """Where to look for the compiler and ninja: in the environment of this Python too, which need not be activated."""
    return os.pathsep.join((os.environ.get("PATH", ""), os.path.dirname(sys.executable)))


def _without(error: Exception) -> None:
    lines = str(error).splitlines() or [type(error).__name__]
    _say(next((line for line in lines[1:] if "error:" in line or "not found" in line), lines[0])[:300])


@functools.cache  # once for each reason: what cannot be loaded often cannot be built either
def _say(reason: str) -> None:
    logger.warning(
        "emo_hf goes on with torch's own kernels: its C++ kernel could not be built or loaded (%s). It needs a C++"
        " compiler and ninja (pip install ninja) and a folder of its own to write to (below TORCH_EXTENSIONS_DIR)."
        " EMO_HF_NATIVE=0 switches it off.",
        reason,
    )
