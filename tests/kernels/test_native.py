"""The C++ kernel for CPUs computes what the rules of `emo_hf.updates` say, and nobody needs it."""

import copy
import functools
import hashlib
import logging
import os
import shutil

import pytest
import torch

from emo_hf import geometry, registry, updates
from emo_hf.kernels import compensation, loop, native
from emo_hf.kernels.measuring import Sums
from tests.kernels.test_kernels import distance, drift, rescaled, trained
from tests.optimizer_contract import build, every_row, released, same, without_3_1_warning, without_16_bit_warning
from tests.test_updates import follow_the_traces

pytestmark = [without_3_1_warning, without_16_bit_warning]
FOUND, BUILT = native._found.__wrapped__, native._built.__wrapped__
OWN = [spec for spec in registry.specs() if spec.update.apply in native.RULES]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The kernel, built once in a folder of its own."""
    if not all(shutil.which(tool, path=native.search_path()) for tool in ("c++", "ninja")):
        pytest.skip("no compiler or no ninja")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.mktemp("extensions")))
        patch.setenv("EMO_HF_NATIVE", "1")
        assert FOUND() is None
        library = native._built()
        assert library is not None
        (path,), damaged = native._libraries()
        assert not damaged
        assert [each.stat().st_mode & 0o777 for each in (path, path.parent)] == [0o700, 0o700]
        assert os.listdir(path.parent) == [path.name]
    return library


@pytest.fixture
def kernel(built, monkeypatch):
    monkeypatch.setenv("EMO_HF_NATIVE", "1")
    monkeypatch.setattr(native, "_found", lambda: built)  # as a later process has it
    return built


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@released
def test_parameters_are_those_of_the_released_code(spec, dtype, kernel):
    follow_the_traces(spec, dtype, "fused")


@every_row
@pytest.mark.parametrize("shadow", [False, True])
def test_agrees_with_the_rules_in_float32(spec, shadow, kernel):
    assert distance(trained(spec, "auto", shadow=shadow), trained(spec, "forloop", shadow=shadow)) < 2e-5


@every_row
def test_loses_no_more_in_bfloat16_than_the_rule(spec, kernel):
    exact = trained(spec, "forloop", size=0.01)

    def error(implementation):
        params = trained(spec, implementation, torch.bfloat16, size=0.01)
        return sum((a.double() - b.double()).square().sum() for a, b in zip(params, exact, strict=True)).sqrt()

    assert error("auto") < 1.5 * error("forloop")


def group(shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator).to(dtype)
    return params


def lists_of(spec, params):
    return params, [param.grad for param in params], [spec.update.init(param) for param in params]


H = updates.Hyper(
    step=0.01, decay=0.1, lion_decay=0.2, beta1=0.9, beta2=0.99, eps=1e-8, scalar=0.5, freshness=0.7, age=3
)
LARGE = ((300, 301), (70_001,), (3,), (), (5, 40_000), (0,))  # more than one thread's share, and remainders


@pytest.mark.parametrize("spec", [*OWN, registry.find("emofact-3.0")], ids=lambda spec: spec.key)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_large_and_small_tensors_in_one_call(spec, dtype, kernel):
    ours, theirs = lists_of(spec, group(LARGE, dtype)), lists_of(spec, group(LARGE, torch.float64))
    for a, b in zip(ours[0], theirs[0], strict=True):
        b.data.copy_(a)
        b.grad.copy_(a.grad)
    with torch.no_grad():
        assert native.run(spec.update, ours, H, 1.01) == ([], [], [])
        for param, grad, state in zip(*theirs, strict=True):
            spec.update.apply(param.mul_(1.01), grad, state, H)
    close = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    for a, b in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=close, atol=close)
    for a, b in zip(ours[2], theirs[2], strict=True):
        torch.testing.assert_close({k: v.double() for k, v in a.items()}, b, rtol=close, atol=close)


@pytest.mark.parametrize("key", ["emosens-3.9", "emotion-3.9", "emofact-3.0", "emofree-1.0"])
def test_the_number_of_threads_changes_nothing(key, kernel):
    spec = registry.find(key)

    def after(threads):
        torch.set_num_threads(threads)
        sums = Sums()
        try:
            lists = lists_of(spec, group(LARGE))
            with torch.no_grad():
                for _ in range(3):
                    native.run(spec.update, lists, H, 1.0, sums)
            return lists[0], lists[2], native.l1_norm(lists[0]), sums.close() and sums.read()
        finally:
            torch.set_num_threads(1)

    assert same(after(1), after(3))


def test_what_it_cannot_take_goes_by_the_rule(kernel):
    spec = registry.find("emocats-3.9")

    def tensors():
        plain, strided, mixed, frozen, other = group([(70, 50)] * 5)
        strided.data, strided.grad = strided.data.mT.contiguous().mT, strided.grad.mT.contiguous().mT
        mixed.data, mixed.grad = mixed.data.double(), None
        mixed.grad = torch.ones_like(mixed)
        frozen.grad, other.grad = None, other.grad.mT.contiguous().mT
        return [plain, strided, mixed, frozen, other]

    ours, theirs = tensors(), tensors()
    for params, implementation in ((ours, "auto"), (theirs, "forloop")):
        optimizer = build(spec, params, implementation=implementation)
        for loss in (1.0, 2.0, 0.5):
            optimizer.step(loss=loss)
    assert same([ours[i] for i in (1, 3, 4)], [theirs[i] for i in (1, 3, 4)])
    assert distance(ours, theirs) < 1e-6


def test_autograd_notices_that_parameters_changed(kernel):
    (param,) = group([(4,)])
    product = (param * param).sum()
    build(registry.find("emosens-3.9"), [param], implementation="auto").step(loss=1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize("key", ["emosens-3.9", "emocats-3.9", "emoairy-3.9", "emotion-3.9"])
def test_kahan_keeps_the_steps_that_bfloat16_loses(key, kernel, monkeypatch):
    spec = registry.find(key)
    exact, _ = drift(spec, torch.float32)
    monkeypatch.setattr(compensation, "run", lambda *_: pytest.fail("not by the kernel"))
    kept, optimizer = drift(spec, torch.bfloat16, implementation="auto", compensation="kahan")
    (state,) = optimizer.state.values()
    kept = kept + state[compensation.KEY].double()
    assert (kept - exact).norm() < 0.05 * exact.norm()


def test_rescaling_is_of_the_whole_weight(kernel):
    assert rescaled("auto") < 2**-15


def test_compensated_and_plain_tensors_in_one_group(kernel):
    spec = registry.find("emocats-3.9")
    params, grads, states = lists_of(spec, group([(40, 25), (7,)], torch.bfloat16))
    states[1][compensation.KEY] = torch.zeros_like(params[1])
    before = [param.detach().clone() for param in params]
    assert native.run(spec.update, (params, grads, states), H._replace(step=1e-6, lion_decay=0.0)) == ([], [], [])
    assert same([param.detach() for param in params], before)
    torch.testing.assert_close(states[1][compensation.KEY], -1e-6 * grads[1].sign())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_norm(dtype, kernel):
    params = [param.detach() for param in group(LARGE, dtype)]
    exact = sum(param.double().abs().sum().item() for param in params)
    assert native.l1_norm(params) == pytest.approx(exact, rel=1e-12)
    assert native.l1_norm([*params, params[0].mT]) is None
    assert geometry.l1_norm(params) == pytest.approx(exact, rel=1e-7)


# -- measuring -------------------------------------------------------------------------------------------------------

FREE = registry.find("emofree")


def measured(lists, h, run, weight=1.0):
    """Takes a step by `run`; returns the three sums."""
    sums = Sums()
    sums.weight = weight
    with torch.no_grad():
        run(lists, h, sums)
    return sums.read()


def by_rule(lists, h, sums):
    sums.measure(loop, FREE.update, lists, h)


def by_kernel(lists, h, sums):
    assert native.run(FREE.update, lists, h, 1.0, sums) == ([], [], [])


def check_measured(ours, theirs, run, steps):
    """Takes steps by `run` from the same state as the rule, in float64, does; the sums agree."""
    close = 1e-12 if ours[0][0].dtype is torch.float64 else 1e-6
    for step in range(1, steps + 1):
        for param, other, state, twin in zip(ours[0], theirs[0], ours[2], theirs[2], strict=True):
            param.grad.copy_(torch.randn(param.shape, generator=torch.Generator().manual_seed(step)) + 0.3)
            other.grad.copy_(param.grad)
            for name, tensor in twin.items():
                tensor.copy_(state[name])
        h = H._replace(age=step)
        expected = measured(theirs, h, by_rule, weight=2.0)
        assert measured(ours, h, run, weight=2.0) == pytest.approx(expected, rel=close)
        assert (expected[0] == 0) == (step == 1)  # nothing was followed yet


@pytest.mark.parametrize("kahan", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_what_is_measured_is_what_the_rule_measures_in_float64(dtype, kahan, kernel):
    ours, theirs = lists_of(FREE, group(LARGE, dtype)), lists_of(FREE, group(LARGE, torch.float64))
    if kahan:
        ours[2][0][compensation.KEY] = torch.zeros_like(ours[0][0])  # of one tensor: they go in two calls
    check_measured(ours, theirs, by_kernel, steps=3)


def free_training(implementation, dtype=torch.float32, steps=50, stop=None, **options):
    """Trains a network that EmoFree sees whole; returns step sizes, weights and the optimizer.

    At the step `stop` it continues from what a checkpoint of optimizer and weights holds.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = ((20, 40), (40,), (40, 3))
    params = [torch.nn.Parameter((0.3 * torch.randn(shape, generator=generator)).to(dtype)) for shape in shapes]
    strided = torch.nn.Parameter(torch.zeros(3, 2).mT.to(dtype))  # which the kernel does not take
    inputs, target = torch.randn(256, 20, generator=generator), torch.randn(20, 3, generator=generator)
    make = functools.partial(build, FREE, implementation=implementation, total_steps=steps, **options)
    optimizer = make([*params, strided])
    sizes = []
    for t in range(steps):
        if t == stop:
            saved = copy.deepcopy(optimizer.state_dict())
            params = [torch.nn.Parameter(param.detach().clone()) for param in params]
            strided = torch.nn.Parameter(strided.detach().mT.clone().mT)
            optimizer = make([*params, strided])
            optimizer.load_state_dict(saved)
        batch = inputs[torch.randint(256, (16,), generator=generator)]
        noise = 0.3 * torch.randn(16, 3, generator=generator)
        first, bias, second = (param.float() for param in params)
        output = torch.tanh(batch @ first + bias) @ second + strided.float().sum(0).sum()
        optimizer.zero_grad()
        loss = (output - torch.tanh(batch @ target) - noise).square().mean()
        loss.backward()
        if t in (5, 30):  # a tensor goes without
            params[1].grad = None
        optimizer.step(loss=loss)
        sizes.append(optimizer.effective_lr)
    return sizes, [param.detach() for param in (*params, strided)], optimizer


@pytest.mark.parametrize(
    ("dtype", "options", "close"),
    [(torch.float64, {}, 1e-9), (torch.float32, {}, 1e-4), (torch.bfloat16, {"compensation": "kahan"}, 0.1)],
)
def test_a_training_is_that_of_the_written_rule(dtype, options, close, kernel):
    sizes, params, optimizer = free_training("auto", dtype, **options)
    expected, others, other = free_training("forloop", dtype, **options)
    assert optimizer.found.steps == other.found.steps < 30
    assert sizes == pytest.approx(expected, rel=close)
    assert optimizer.signals().log() == pytest.approx(other.signals().log(), rel=close, abs=close)
    for ours, theirs in zip(params, others, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=close, atol=close)


def test_a_training_resumes_bit_for_bit_in_the_ramp(kernel):
    sizes, params, optimizer = free_training("auto")
    assert optimizer.found.steps > 7
    resumed, others, other = free_training("auto", stop=7)
    assert resumed == sizes
    assert same(others, params)
    assert same(other.state_dict(), optimizer.state_dict())


# -- building --------------------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_built(tmp_path, monkeypatch):
    monkeypatch.setenv("EMO_HF_NATIVE", "1")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(native, "_found", functools.cache(FOUND))
    monkeypatch.setattr(native, "_built", functools.cache(BUILT))
    monkeypatch.setattr(native, "_say", functools.cache(native._say.__wrapped__))
    return tmp_path


def one_step(implementation):
    params = group([(8, 8)])
    build(registry.find("emocats-3.9"), params, implementation=implementation).step(loss=1.0)
    return params


def test_auto_never_builds(nothing_built, monkeypatch):
    monkeypatch.setattr(native, "_compile", lambda *_: pytest.fail("auto started a compiler"))
    one_step("auto")
    one_step("forloop")
    assert not list(nothing_built.iterdir())


@pytest.mark.parametrize(
    "error", [RuntimeError("Ninja is required"), ImportError("setuptools"), FileNotFoundError("c++"), OSError("full")]
)
def test_without_a_compiler_the_work_is_done_and_one_message_says_so(error, nothing_built, monkeypatch, caplog):
    def fail(folder, name):
        (folder / "half").write_text("")
        raise error

    monkeypatch.setattr(native, "_compile", fail)
    with caplog.at_level(logging.WARNING, "emo_hf"):
        ours = [one_step("fused") for _ in range(3)]
    assert distance(ours[-1], one_step("forloop")) < 1e-6
    assert [record.message for record in caplog.records if str(error) in record.message and "ninja" in record.message]
    assert len(caplog.records) == 1
    assert not list(native._folder().iterdir())


def put(content, digest=None):
    """Puts a library of `content` where it belongs, under its own SHA-256 or another."""
    native._folder().mkdir(mode=0o700)
    path = native._folder() / f"{native._name()}-{digest or hashlib.sha256(content).hexdigest()}.so"
    path.write_bytes(content)
    path.chmod(0o700)
    return path


def test_a_broken_library_is_no_disaster(nothing_built, caplog):
    put(b"not a library")
    one_step("auto")
    assert "could not be built or loaded" in caplog.text


def replaced_by_a_link(path, monkeypatch):
    path.rename(path.with_suffix(".other"))
    path.symlink_to(path.with_suffix(".other"))


def owned_by_another(path, monkeypatch):
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    path.parent.rename(native._folder())


def folder_is_a_link(path, monkeypatch):
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to(path.parent.with_name("elsewhere"))


REFUSED = {
    "a link": (replaced_by_a_link, "is a link"),
    "another user's": (owned_by_another, "belongs to user"),
    "a folder that is a link": (folder_is_a_link, "is a link"),
    "a folder open to others": (lambda path, _: path.parent.chmod(0o777), "can be written by others"),
    "a library open to others": (lambda path, _: path.chmod(0o720), "can be written by others"),
}


@pytest.mark.parametrize("implementation", ["auto", "fused"])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_another_user_may_have_put_there_is_not_run(kind, implementation, nothing_built, monkeypatch, caplog):
    monkeypatch.setattr(native, "_compile", lambda *_: pytest.fail("built into it"))
    monkeypatch.setattr(torch.ops, "load_library", lambda path: pytest.fail("loaded"))
    path = put(b"a library")
    change, message = REFUSED[kind]
    change(path, monkeypatch)
    with caplog.at_level(logging.WARNING, "emo_hf"):
        ours = [one_step(implementation) for _ in range(2)]
    assert distance(ours[-1], one_step("forloop")) < 1e-6
    (record,) = caplog.records
    assert message in record.message


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"", lambda content: b"x" + content])
def test_a_damaged_library_is_never_loaded_and_built_anew(damage, nothing_built, monkeypatch, caplog):
    content, loaded = b"a library", []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    monkeypatch.setattr(native, "_compile", lambda folder, name: (folder / f"{name}.so").write_bytes(content + b"2"))
    path = put(damage(content), hashlib.sha256(content).hexdigest())
    assert native.library(build=False) is None
    assert "is damaged and not used" in caplog.text
    assert path.exists()
    assert not loaded
    assert native.library(build=True) is not None
    (whole,), damaged = native._libraries()
    assert whole.read_bytes() == content + b"2"
    assert not damaged
    FOUND()
    assert loaded == [whole]


@pytest.mark.parametrize("why", ["switched off", "several processes"])
def test_it_can_be_off(why, nothing_built, monkeypatch):
    monkeypatch.setattr(native, "_compile", lambda *_: pytest.fail("built"))
    if why == "switched off":
        monkeypatch.setenv("EMO_HF_NATIVE", "0")
    else:
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    one_step("fused")
