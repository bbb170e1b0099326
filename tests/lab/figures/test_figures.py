"""Pictures and the numbers in them: they come from the optimizers' own formulas, and are real images."""

import math
import struct
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from emo_hf import lab, registry
from emo_hf.cli import main
from emo_hf.lab import figures
from emo_hf.lab.figures import responses
from tests.lab import made_up_runs


def size_of_png(path: Path) -> tuple[int, int]:
    """Returns width and height; fails on anything but a PNG."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def test_every_generation_is_drawn():
    drawn = {mechanism.version for mechanism in (*responses.DAMPERS.values(), *responses.PULSES.values())}
    mechanisms = {row.mechanism for row in registry.SPECS}
    # one curve stands for all generations that share a factor
    factors = {mechanism.damper for mechanism in responses.DAMPERS.values()}
    assert {mechanism.damper for mechanism in mechanisms if mechanism.pulse is None} == factors
    pulses = {mechanism.pulse for mechanism in responses.PULSES.values()}
    assert {mechanism.pulse for mechanism in mechanisms if mechanism.pulse} == pulses
    assert {"3.1", "3.6", "3.7.0", "3.7", "3.8", "3.9"} <= drawn


def test_factors_known_from_the_released_code():
    mechanism = responses.DAMPERS["3.6, 3.7.0 (emoDrive)"]
    scalars = (0.26, 0.30, 0.35, 0.40, 0.45, 0.49, -0.26, -0.30)
    expected = (6.36, 5.99, 5.54, 5.09, 4.64, 4.29, 5.48, 5.21)
    assert responses.factors(mechanism, scalars) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("version", responses.PULSES)
@pytest.mark.parametrize("loss", responses.LOSSES)
def test_step_sizes_are_those_of_the_optimizer(version, loss):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = registry.build("emosens", [weight], version=version)
    seen = []
    for value in responses.LOSSES[loss]:
        weight.grad = torch.ones(1)
        optimizer.step(loss=value)
        seen.append(optimizer.effective_lr)
    assert responses.step_sizes(responses.PULSES[version], responses.LOSSES[loss]) == seen


def test_shapes_of_the_losses():
    fall, plateau, spike, rise = responses.LOSSES.values()
    assert {len(losses) for losses in responses.LOSSES.values()} == {responses.STEPS}
    assert all(a >= b for a, b in pairwise(fall))
    assert fall[-1] == fall[0] / 2
    assert all(a <= b for a, b in pairwise(rise))
    assert rise[-1] == rise[0] * 2
    assert [loss for loss in spike if loss != 1.0] == [3.0]
    assert all(abs(loss - 1.0) <= 0.1 for loss in plateau)


@pytest.mark.parametrize("version", ["3.7", "3.8", "3.9"])
def test_what_the_documentation_says_about_the_picture(version):
    sizes = {
        name: responses.step_sizes(responses.PULSES[version], losses) for name, losses in responses.LOSSES.items()
    }
    fall, plateau, spike, rise = sizes.values()
    assert min(spike[responses.EVENT + 20 :]) > 2.7e-3  # one spike lifts the pulse to its cap of 3e-3, where it stays
    assert rise[-1] > 2 * plateau[-1]  # a loss that rose ends in larger steps than a calm one
    assert fall[-1] > 2 * plateau[-1]


def test_plot_coefficients(tmp_path):
    path = tmp_path / "new" / "coefficients.png"
    assert main(["plot", "coefficients", "-o", str(path)]) == 0
    width, height = size_of_png(path)
    assert width > 1000
    assert height > 800


def test_plot_signals(tmp_path, capsys):
    comparison = made_up_runs.write(tmp_path / "runs", made_up_runs.recipe())
    for arm in ("emosens", "adamw"):
        run = comparison / arm / "seed0"
        assert main(["plot", "signals", str(run)]) == 0
        assert size_of_png(run / "figures/signals.png")[0] > 900
        assert (run / "summary.json").exists()
    assert main(["plot", "signals", str(comparison / "emosens/seed0"), "-o", str(tmp_path / "new/one.png")]) == 0
    assert size_of_png(tmp_path / "new/one.png")[0] > 1000
    capsys.readouterr()
    assert main(["plot", "signals", str(comparison)]) == 2
    assert "holds 6 runs: give one of them" in capsys.readouterr().err
    assert not (comparison / "figures").exists()


def test_curves_leave_gaps_where_they_jump():
    scalars = [step / 1000 for step in range(-1000, 1001)]
    broken = figures.broken(responses.factors(responses.DAMPERS["3.6, 3.7.0 (emoDrive)"], scalars))
    assert len(broken) == len(scalars)
    assert [scalars[i] for i, value in enumerate(broken) if math.isnan(value)] == pytest.approx(
        [-0.751, -0.5, -0.251, 0.25, 0.499, 0.75]
    )


def test_without_matplotlib(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    for name in [name for name in sys.modules if name.startswith("emo_hf.lab.figures")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(lab, "figures")
    path = tmp_path / "new/x.png"
    assert main(["plot", "coefficients", "-o", str(path)]) == 2
    assert 'pip install "emo-hf[recipes]"' in capsys.readouterr().err
    assert not path.parent.exists()
