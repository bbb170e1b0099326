"""EmoFree takes the steps of its written rule, in every form, and keeps what its page promises.

`Reference` is the rule once more, for a list of tensors and with whole histories in place of running averages.
"""

import copy
import math

import pytest
import torch

from emo_hf import EmoFree, free, registry
from emo_hf.mechanism import GradientStatistics
from tests import branch_counter
from tests.optimizer_contract import same

STEPS = 120


class Problem:
    """A noisy least-squares problem in float64, the same in every run."""

    def __init__(self, noise=0.3, scale=1.0, offset=0.0, curvature=1.0):
        generator = torch.Generator().manual_seed(0)
        shapes = ((6, 5), (7,), ())
        draws = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in (*shapes, *shapes)]
        self.params, self.targets = [torch.nn.Parameter(draw) for draw in draws[:3]], draws[3:]
        self.noise, self.scale, self.offset, self.curvature = noise, scale, offset, curvature

    def loss(self, t):
        generator = torch.Generator().manual_seed(t + 1)
        total = torch.zeros((), dtype=torch.float64)
        for param, target in zip(self.params, self.targets, strict=True):
            shaken = target + self.noise * torch.randn(param.shape, generator=generator, dtype=torch.float64)
            total = total + self.curvature * (param - shaken).square().sum()
        return self.scale * total + self.offset


def train(optimizer, problem, steps, schedule=None):
    """Takes the steps; returns the step sizes."""
    sizes = []
    for t in steps:
        if schedule:
            for group in optimizer.param_groups:
                group["lr"] = group["scope"] * schedule(t)
        optimizer.zero_grad()
        loss = problem.loss(t)
        loss.backward()
        optimizer.step(loss=loss)
        sizes.append(optimizer.effective_lr)
    return sizes


def weighted(values, span):
    """An exponential average of a whole history, its bias corrected."""
    keep = 1 - 1 / span
    weights = [keep**age for age in range(len(values))][::-1]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def mean_age(span, count):
    keep = 1 - 1 / span
    weights = [keep**age for age in range(count)]
    return sum(w * age for age, w in enumerate(weights)) / sum(weights)


class Reference:
    """The rule of docs/emofree.md, step by step."""

    def __init__(self, problem, total_steps, lr=1.0, weight_decay=0.01, anneals=None):
        self.problem, self.lr, self.decay, self.anneals = problem, lr, weight_decay, anneals
        self.warmup = 2 * math.sqrt(total_steps)
        self.span = max(2, round(self.warmup / 5))
        self.loss_span = max(5, self.span)
        self.m = [torch.zeros_like(p) for p in problem.params]
        self.v = [torch.zeros_like(p) for p in problem.params]
        self.u = None
        self.losses, self.falls, self.following, self.descents, self.schedules = [], [], [], [], []
        self.size = self.found = None
        self.highest = -math.inf

    def step(self, t, schedule=1.0, paused=None):
        """Takes a step, the tensor number `paused` without gradient; returns its size."""
        params = self.problem.params
        loss = self.problem.loss(t)
        grads = [None if i == paused else g for i, g in enumerate(torch.autograd.grad(loss, params))]
        self.losses.append(loss.item())
        self.schedules.append(schedule)
        if self.size is None:
            self.unit = loss.item() / sum(g.abs().sum().item() for g in grads)
            self.size = 0.02 * self.unit
        else:
            self.falls.append(self.size * self.lr * self.descents[-1])
            self.decide(schedule)
        if self.u is not None:
            self.following.append(self.inner(grads, self.u))
        self.m = [m if g is None else 0.9 * m + (1 - 0.9) * g for m, g in zip(self.m, grads, strict=True)]
        self.v = [v if g is None else 0.999 * v + (1 - 0.999) * g * g for v, g in zip(self.v, grads, strict=True)]
        count = len(self.losses)
        self.u = [
            m / (1 - 0.9**count) / ((v / (1 - 0.999**count)).sqrt() + 1e-8)
            for m, v in zip(self.m, self.v, strict=True)
        ]
        self.descents.append(self.inner(grads, self.u))
        size = self.size * self.lr * schedule
        with torch.no_grad():
            for param, u, g in zip(params, self.u, grads, strict=True):
                if g is not None:
                    param.mul_(1 - size * self.decay).sub_(size * u)
        return size

    @staticmethod
    def inner(grads, directions):
        return sum((g * u).sum().item() for g, u in zip(grads, directions, strict=True) if g is not None)

    def decide(self, schedule):
        pairs = len(self.following)
        if self.found is None:
            used = self.size * self.lr * schedule
            if not used:
                return
            if pairs >= min(4, self.span):
                descents = self.descents[:pairs]
                agreement = weighted(self.following, self.span) / weighted(descents, self.span)
                self.highest = max(self.highest, agreement)
                bound = self.unit if self.highest > 0.2 else 0.07 * self.unit
                if self.highest > 0.2 and agreement < max(0.12, 0.25 * self.highest):
                    self.found = used * 0.5
                elif agreement < -0.2:
                    self.found = used * 0.3
                elif used >= bound:
                    self.found = bound
            self.size = self.found or self.size * 10 ** (1 / self.warmup)
            return
        long, n = 3.3 * self.loss_span, len(self.losses)
        rise = weighted(self.losses, self.loss_span) - weighted(self.losses, long)
        seen = -rise / (mean_age(long, n) - mean_age(self.loss_span, n))
        predicted = weighted(self.falls, self.loss_span)
        trust = seen / predicted if predicted > 0 else 0.0
        anneals = self.anneals if self.anneals is not None else min(self.schedules) < max(self.schedules)
        trusted = 0.12 * math.sqrt(self.warmup / max(n, self.warmup)) if anneals else 0.12
        jumps = [(b - a) ** 2 / 2 for a, b in zip(self.losses, self.losses[1:], strict=False)]
        noise = math.sqrt(weighted(jumps, long) / (2 * self.loss_span - 1))
        grow = min(max(trust / trusted - 1, 0), 1)
        shrink = 0 if anneals else 0.2 * min(max(1 - trust / trusted, 0), 1)
        brake = min(max(rise / (2 * noise) - 1, 0), 1)
        self.size *= 10 ** ((grow - shrink - brake) / self.warmup)


def linear(t):
    return 1 - t / STEPS


CASES = {
    "constant": ({}, {}, None),
    "linear": ({}, {"lr": 0.5}, linear),
    "told to anneal": ({}, {"anneals": True}, None),
    "noise": ({"noise": 30.0}, {}, None),
    "far too large a start": ({"curvature": 1.0, "offset": 1e4}, {}, None),
    "without noise": ({"noise": 0.0}, {"lr": 2.0}, linear),
}


@pytest.mark.parametrize("implementation", ["forloop", "foreach", "fused", "auto"])
@pytest.mark.parametrize("case", CASES)
def test_it_takes_the_steps_of_the_written_rule(case, implementation):
    options, how, schedule = CASES[case]
    reference = Reference(Problem(**options), STEPS, **how)
    problem = Problem(**options)
    optimizer = EmoFree(problem.params, how.get("lr", 1.0), total_steps=STEPS, implementation=implementation)
    if how.get("anneals"):
        optimizer.plan(STEPS, anneals=True)
    expected = [reference.step(t, schedule(t) if schedule else 1.0) for t in range(STEPS)]
    assert train(optimizer, problem, range(STEPS), schedule) == pytest.approx(expected, rel=1e-8)
    assert optimizer.found.size == pytest.approx(reference.found, rel=1e-8)
    for ours, theirs in zip(problem.params, reference.problem.params, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_every_branch_is_entered(monkeypatch):
    monkeypatch.setattr(branch_counter, "MODULES", (*branch_counter.MODULES, "free"))
    counting, hits = branch_counter.instrumented(monkeypatch)
    for options, how, schedule in CASES.values():
        for total in (STEPS, None):
            problem = Problem(**options)
            optimizer = counting.build("emofree", problem.params, lr=how.get("lr", 1.0), total_steps=total)
            if how.get("anneals"):
                optimizer.plan(STEPS, anneals=True)
            for loss in (0.0, 1.0):  # nothing to start from
                optimizer.zero_grad()
                optimizer.step(loss=loss)
            train(optimizer, problem, range(STEPS), schedule)
            str(optimizer.found), optimizer.signals()
    broken(counting.build("emofree", (problem := Problem(noise=0.0)).params, total_steps=STEPS), problem)
    warming = counting.build("emofree", (problem := Problem()).params, total_steps=STEPS)
    train(warming, problem, range(9), lambda t: max(t - 1, 0) / 8)
    linear_loss(counting)
    mechanism = counting.find("emofree").mechanism
    feed(mechanism.configure(total_steps=4), [(1, 0.0, 0.0)])  # no gradient
    feed(mechanism.configure(total_steps=4), [(0, 1.0, 1.0)])  # a loss of 0
    feed(mechanism.configure(total_steps=4), [(1, -1.0, 1.0)] * 8 + [(1, 0.0, 0.0)] * 6)  # a loss that stands still
    feed(mechanism.configure(total_steps=4), [(1, 0.4, 1.0)] * 8 + [(1, 0.0, 1.0)] * 8)  # an agreement that is weak
    feed(mechanism.plan(10_000, True), [(1, -1.0, 1.0)] * 16)  # a ramp that ends early
    of_free = {(branch, outcome) for branch, outcome in hits.missed() if branch[0].startswith("free.")}
    assert of_free == set()


def feed(mechanism, steps):
    """Takes steps of (loss, following, descent)."""
    state = mechanism.start()
    for loss, following, descent in steps:
        mechanism.note(state, GradientStatistics(following, abs(descent), descent))
        mechanism.advance(state, float(loss))
        mechanism.signals(state, loss, mechanism.rate(state, 1.0, 1.0))


def linear_loss(built_by):
    """A slope that never ends; returns the optimizer."""
    param = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = built_by.build("emofree", [param], total_steps=50, weight_decay=0.0)
    for _ in range(50):
        optimizer.zero_grad()
        loss = 100 + param.sum()
        loss.backward()
        optimizer.step(loss=loss)
    return optimizer


def broken(optimizer, problem):
    """Trains, and then lets the loss rise; returns the step sizes of the second part."""
    train(optimizer, problem, range(60))
    sizes = []
    for t in range(60, 75):
        optimizer.zero_grad()
        loss = problem.loss(t)
        loss.backward()
        optimizer.step(loss=loss.item() + 50.0 * (t - 59))
        sizes.append(optimizer.effective_lr)
    return sizes


def test_the_brake_takes_the_step_down_where_the_loss_rises():
    sizes = broken(EmoFree((problem := Problem(noise=0.0)).params, total_steps=STEPS), problem)
    assert sizes[-1] < 0.5 * sizes[0]


def test_a_slope_that_never_ends_ends_the_ramp_at_the_unit():
    optimizer = linear_loss(registry)
    assert optimizer.found.size == pytest.approx(100 / 3)
    assert optimizer.found.steps <= optimizer.mechanism.longest_ramp


# -- invariance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [8.0, 1 / 8])
def test_the_scale_of_the_loss_changes_nothing(scale):
    sizes = []
    for factor in (1.0, scale):
        problem = Problem(scale=factor)
        sizes.append(train(EmoFree(problem.params, total_steps=STEPS, eps=0.0), problem, range(STEPS)))
    assert sizes[1] == pytest.approx(sizes[0], rel=1e-9)


def test_clipped_gradients_change_nothing_if_told():
    """Half of each gradient: Adam takes the same steps."""
    sizes = []
    for divisor in (1.0, 2.0):
        problem = Problem()
        optimizer = EmoFree(problem.params, total_steps=STEPS, eps=0.0)
        sizes.append([])
        for t in range(STEPS):
            optimizer.zero_grad()
            loss = problem.loss(t)
            loss.backward()
            for param in problem.params:
                param.grad /= divisor
            optimizer.note_clipping(torch.tensor(divisor))
            optimizer.step(loss=loss)
            sizes[-1].append(optimizer.effective_lr)
    assert sizes[1] == pytest.approx(sizes[0], rel=1e-9)


@pytest.mark.parametrize("way", ["zeroed", "left out"])
def test_what_was_clipped_is_forgotten_with_its_gradients(way):
    seen = []
    for clipped in (False, True):
        problem = Problem()
        optimizer = EmoFree(problem.params, total_steps=STEPS)
        train(optimizer, problem, range(50))
        if clipped:
            optimizer.note_clipping(7.0)
            optimizer.zero_grad() if way == "zeroed" else optimizer.step(loss=math.nan)
        for t in (50, 51):
            for param in problem.params:
                param.grad = None  # as a model's zero_grad does
            loss = problem.loss(t)
            loss.backward()
            optimizer.step(loss=loss)
        seen.append(optimizer.signals())
    assert seen[0] == seen[1]


def test_a_step_that_a_grad_scaler_skips_is_not_counted():
    """In the ramp and after it: agreement, trust and weights are those of a training without it."""
    alone, problem = Problem(), Problem()
    plain, optimizer = (EmoFree(each.params, total_steps=STEPS) for each in (alone, problem))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    skipped = []
    for t in range(STEPS):
        for overflows in (True, False) if t in (1, 7, 60) else (False,):
            optimizer.zero_grad()
            loss = problem.loss(t) * (3 if overflows else 1)  # a loss that is not to be heard
            scaler.scale(loss).backward()
            if overflows:
                problem.params[0].grad[0] = math.inf
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(problem.params, 1e9)
            optimizer.observe(loss)
            if overflows:
                optimizer.note_clipping(norm)
            before = optimizer.steps
            scaler.step(optimizer)
            scaler.update()
            skipped.append(optimizer.steps == before)
    train(plain, alone, range(STEPS))
    assert sum(skipped) == 3
    assert same([p.detach() for p in problem.params], [p.detach() for p in alone.params])
    assert same(optimizer.state_dict(), plain.state_dict())
    assert optimizer.signals() == plain.signals()


def test_a_loss_that_differs_by_1e_12_changes_the_steps_by_about_that():
    sizes = [train(EmoFree(p.params, total_steps=STEPS), p, range(STEPS)) for p in (Problem(), Problem(offset=1e-12))]
    assert sizes[1] == pytest.approx(sizes[0], rel=1e-9)


def test_the_learning_rate_multiplies_what_was_found():
    found, steps = [], []
    for lr in (1.0, 0.5):
        problem = Problem(noise=0.0)
        optimizer = EmoFree(problem.params, lr, total_steps=STEPS)
        while optimizer.found is None:
            size = train(optimizer, problem, [0])[0]
        found.append(optimizer.found.size)
        steps.append(size)
        assert size == pytest.approx(lr * optimizer.found.size)
    assert found[1] == pytest.approx(found[0], rel=0.5)


def test_the_length_of_the_training_sets_the_pace_of_the_ramp():
    told = [EmoFree(Problem().params, total_steps=n).mechanism.warmup for n in (100, 2500, None)]
    assert told == [20, 100, 50]
    planned, given = EmoFree(Problem().params), EmoFree(Problem().params, total_steps=100)
    for optimizer in (planned, given):
        optimizer.plan(400)
    assert (planned.mechanism.warmup, given.mechanism.warmup) == (40, 20)


# -- state ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [1, 2, 6, 20, 100])
@pytest.mark.parametrize("way", ["saved", "copied"])
def test_it_continues_bit_for_bit_in_the_ramp_and_after_it(done, way):
    whole = Problem()
    straight = EmoFree(whole.params, total_steps=STEPS)
    train(straight, whole, range(STEPS))
    part = Problem()
    optimizer = EmoFree(part.params, total_steps=STEPS)
    train(optimizer, part, range(done))
    assert (optimizer.found is None) == (done < 33)
    if way == "saved":
        resumed, fresh = copy.deepcopy(part), None
        fresh = EmoFree(resumed.params, total_steps=STEPS)
        fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    else:
        resumed, fresh = copy.deepcopy((part, optimizer))
    for ours, problem in ((fresh, resumed), (optimizer, part)):  # and saving changes nothing
        train(ours, problem, range(done, STEPS))
        assert same([p.detach() for p in problem.params], [p.detach() for p in whole.params])
        assert same(ours.state_dict(), straight.state_dict())
        assert ours.signals() == straight.signals()


def test_a_packed_state_is_plain_floats_and_comes_back():
    state = free.FREE.start()
    for step in range(3):
        free.FREE.note(state, GradientStatistics(1.0, 2.0, 3.0 + step, 1.5))
        packed = state.pack()
        assert all(type(value) is float for value in packed)
        assert len(packed) == len(free.FREE.start().pack())
        assert same(free.FREE.restore(packed).pack(), packed)
        free.FREE.advance(state, 1.0 + step)


def test_statistics_that_are_not_finite_are_left_out():
    state = free.FREE.start()
    free.FREE.note(state, GradientStatistics(0.0, math.inf, 0.0))
    free.FREE.advance(state, 1.0)
    assert not free.FREE.has_started(state)


# -- parameters -------------------------------------------------------------------------------------------------------


def test_groups_keep_their_ratio():
    problem = Problem()
    groups = [{"params": problem.params[:1]}, {"params": problem.params[1:], "lr": 4.0}]
    optimizer = EmoFree(groups, total_steps=STEPS)
    for _ in train(optimizer, problem, range(STEPS)):
        first, second = optimizer.param_groups
        assert second["effective_lr"] == pytest.approx(4 * first["effective_lr"])
    assert optimizer.found is not None


def test_a_frozen_group_does_not_count():
    alone, beside = Problem(), Problem()
    optimizer = EmoFree(alone.params[:2], total_steps=STEPS)
    frozen = {"params": beside.params[2:], "lr": 0.0}
    other = EmoFree([{"params": beside.params[:2]}, frozen], total_steps=STEPS)
    assert train(optimizer, alone, range(STEPS)) == pytest.approx(train(other, beside, range(STEPS)), rel=1e-12)


@pytest.mark.parametrize("late", ["a group", "a tensor"])
def test_what_joins_late_takes_no_longer_steps_than_the_others(late):
    """Without correction its first steps would be 3 to 6 times as long."""
    problem = Problem()
    first, joining = problem.params[:2], problem.params[2]
    optimizer = EmoFree(first if late == "a group" else problem.params, total_steps=STEPS, weight_decay=0.0)
    joining.requires_grad_(False)
    train(optimizer, problem, range(60))
    if late == "a group":
        optimizer.add_param_group({"params": [joining]})
    joining.requires_grad_(True)
    before = joining.item()
    for t in range(60, 70):
        (size,) = train(optimizer, problem, [t])
        assert abs(joining.item() - before) < 1.5 * size
        before = joining.item()
    assert before != problem.targets[2].item()


@pytest.mark.parametrize("implementation", ["forloop", "fused"])
def test_a_tensor_may_go_without_gradient_for_a_while(implementation):
    """In the ramp and after it. When it comes back, it is measured along its own last step."""
    problem, twin = Problem(), Problem()
    optimizer = EmoFree(problem.params, total_steps=STEPS, implementation=implementation)
    reference = Reference(twin, STEPS)
    sizes, expected = [], []
    for t in range(STEPS):
        pauses = t == 9 or 20 <= t < 40 or t == 60
        expected.append(reference.step(t, paused=1 if pauses else None))
        problem.params[1].requires_grad_(not pauses)
        sizes += train(optimizer, problem, [t])
    assert sizes == pytest.approx(expected, rel=1e-8)
    for ours, theirs in zip(problem.params, twin.params, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)
    assert (problem.params[1] - problem.targets[1]).abs().max() < 0.5


def test_a_step_without_any_gradient_is_no_start():
    problem = Problem()
    optimizer = EmoFree(problem.params, total_steps=STEPS)
    optimizer.step(loss=1.0)
    assert optimizer.effective_lr == 0.0
    assert train(optimizer, problem, [0]) != [0.0]


def test_bfloat16_weights_with_kahan_train():
    problem = Problem(noise=0.0)
    for param in problem.params:
        param.data = param.data.bfloat16()
    optimizer = EmoFree(problem.params, total_steps=STEPS, compensation="kahan")
    first = problem.loss(0).item()
    train(optimizer, problem, range(STEPS))
    assert problem.loss(0).item() < 0.2 * first


def test_it_is_ready_to_stop_once_the_loss_falls_no_more():
    problem, ready = Problem(noise=0.3), []
    optimizer = EmoFree(problem.params, total_steps=300)
    for t in range(300):
        train(optimizer, problem, [t], lambda t: 1 - t / 300)
        ready.append(optimizer.should_stop)
    assert not any(ready[:100])
    assert sum(ready) > 40
