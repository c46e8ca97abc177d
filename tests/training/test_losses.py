"""Losses: every stated constant both ways, values at both ends of the range, and what they ask of targets."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

from zeroloss import Dataset, descend
from zeroloss.training import LOSSES, find_loss
from zeroloss.training.targets import accuracy, classes_of

GRID = torch.cat([torch.linspace(-12, 12, 240_001), torch.linspace(-0.05, 0.05, 2001)]).double()
OF_RESIDUAL = ("squared", "quartic", "log_cosh", "sine", "welsch")
CURVATURE = {  # the second derivative's range, by hand
    "squared": (1.0, 1.0),
    "quartic": (0.0, 1.25),
    "log_cosh": (0.0, 1.0),
    "sine": (-4.0, 8.0),
    "welsch": (-2 * math.exp(-1.5), 1.0),
    "logistic": (0.0, 0.25),
}
EXACT = {
    "squared": lambda r: r**2 / 2,
    "quartic": lambda r: r**4 / (2 * (1 + r**2)),
    "log_cosh": lambda r: mpmath.log(mpmath.cosh(r)),
    "sine": lambda r: r**2 + 3 * mpmath.sin(r) ** 2,
    "welsch": lambda r: -mpmath.expm1(-(r**2) / 2),
    "logistic": lambda r: mpmath.log1p(mpmath.exp(-r)),
}


def column(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs that are the residuals (of targets 0), or, for the logistic loss, the margins (of targets 1)."""
    return values[:, None], torch.zeros_like(values)[:, None]


def at(name: str, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    outputs, targets = column(values)
    targets = targets + 1 if name == "logistic" else targets
    return LOSSES[name].value(outputs, targets), LOSSES[name].gradient(outputs, targets)[:, 0]


@pytest.mark.parametrize("name", [*OF_RESIDUAL, "logistic"])
def test_value_and_gradient_are_those_of_the_formula(name):
    mpmath.mp.dps = 40
    points = [-1000.0, -30.0, -1.0, -0.999, -1e-3, 1e-9, 0.3, 1.0, 2.0, 17.0, 40.0, 345.0, 1000.0]
    values, slopes = at(name, torch.tensor(points, dtype=torch.float64))
    for r, value, slope in zip(points, values.tolist(), slopes.tolist(), strict=True):
        assert value == pytest.approx(float(EXACT[name](mpmath.mpf(r))), rel=1e-13)
        assert slope == pytest.approx(float(mpmath.diff(EXACT[name], mpmath.mpf(r))), rel=1e-11, abs=1e-35)


@pytest.mark.parametrize("name", CURVATURE)
def test_smoothness_and_convexity_are_the_range_of_the_second_derivative(name):
    loss, (low, high) = LOSSES[name], CURVATURE[name]
    slopes = at(name, GRID[:240_001])[1]
    second = slopes.diff() / GRID[:240_001].diff()
    assert float(second.max()) <= high + 1e-7
    assert float(second.max()) >= high - 1e-4  # tight: no smaller constant would do
    assert float(second.min()) >= low - 1e-7
    assert float(second.min()) <= low + 1e-3
    assert loss.smoothness == pytest.approx(max(abs(low), abs(high)))
    assert loss.convex == (low >= 0)


def test_dominance_of_the_squared_loss_is_an_equality():
    value, slope = at("squared", GRID)
    assert torch.allclose(slope.square(), 2 * value, rtol=1e-14)
    assert LOSSES["squared"].dominance == 2.0


def test_dominance_of_sine_is_proved_and_tight():
    """h = f'^2 - sigma f >= 0 everywhere: by series at 0, by a grid finer than h's slope allows, and by size beyond 5."""
    loss = LOSSES["sine"]
    sigma = loss.dominance
    value, slope = at("sine", GRID[GRID.abs() > 1e-6])
    assert float((slope.square() / value).min()) < 1.005 * sigma  # no constant half a percent larger would do
    # |r| <= 0.1: sin 2r / 2r >= 1 - (2r)^2/6 and sin^2 r <= r^2 give f' >= r (8 - 4 r^2), f <= 4 r^2
    assert sigma * 4 < (8 - 4 * 0.01) ** 2
    # |r| >= 5: f' >= 2r - 3 and f <= r^2 + 3
    assert sigma * (25 + 3) < (2 * 5 - 3) ** 2
    assert sigma * 2 * 5 < 2 * 2 * (2 * 5 - 3)  # and the left side grows faster from there
    assert sigma < 2**2
    # between, |h'| = |f'| |2f'' - sigma| <= (10 + 3)(16 + sigma), so a grid of spacing s needs h > |h'| s/2
    grid = torch.arange(0.1, 5.0, 1e-6, dtype=torch.float64)
    value, slope = at("sine", grid)
    assert float((slope.square() - sigma * value).min()) > 13 * (16 + sigma) * 0.5e-6 + 1e-12


def test_log_cosh_is_dominant_on_bounded_ranges_alone():
    loss = LOSSES["log_cosh"]
    assert loss.dominance is None
    for radius in (1e-4, 0.1, 1.0, 5.0, 12.0):
        inside = GRID[(GRID.abs() <= radius) & (GRID != 0)] if radius > 0.1 else radius * torch.linspace(0.01, 1, 100).double()
        value, slope = at("log_cosh", inside)
        ratio = slope.square() / value
        assert float(ratio.min()) >= loss.dominance_within(radius) * (1 - 1e-12)
        assert float(ratio.min()) <= loss.dominance_within(radius) * 1.01
    assert loss.dominance_within(1e-6) == pytest.approx(2.0)
    assert loss.dominance_within(1000.0) == pytest.approx(1 / (1000 - math.log(2)))
    assert LOSSES["squared"].dominance_within(3.0) == 2.0


def test_losses_without_dominance_have_none():
    """The ratio ||f'||^2/f is as small as one likes, near the minimum or far from it."""
    for name, where in (("quartic", 1e-4), ("log_cosh", 1e6), ("welsch", 12.0), ("logistic", 40.0)):
        value, slope = at(name, torch.tensor([where], dtype=torch.float64))
        assert float(slope.square() / value) < 1e-5
        assert LOSSES[name].dominance is None
    out, y = torch.tensor([[30.0, 0.0, 0.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    loss = LOSSES["cross_entropy"]
    assert float(loss.gradient(out, y).square().sum() / loss.value(out, y)) < 1e-5
    assert loss.dominance is None


def test_cross_entropy_is_torchs_and_keeps_its_digits():
    loss = LOSSES["cross_entropy"]
    out = 5 * torch.randn(50, 4, dtype=torch.float64)
    y = torch.nn.functional.one_hot(torch.randint(4, (50,)), 4).double()
    expected = torch.nn.functional.cross_entropy(out, y, reduction="none")
    assert torch.allclose(loss.value(out, y), expected, rtol=1e-12)
    assert torch.allclose(loss.gradient(out, y), out.softmax(dim=1) - y, atol=1e-14)
    far, own = torch.tensor([[1e4, 0.0, -1e4], [80.0, 0.0, 0.0]], dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    assert loss.value(far[:1], own[1:2]).tolist() == [1e4]
    assert loss.value(far[:1], own[:1]).tolist() == [0.0]
    assert float(loss.value(far[1:], own[:1])) == pytest.approx(2 * math.exp(-80), rel=1e-12)  # torch's own gives 0
    assert float(loss.gradient(far[1:], own[:1])[0, 0]) == pytest.approx(-2 * math.exp(-80), rel=1e-12)


def test_cross_entropy_is_half_smooth_and_no_less():
    loss = LOSSES["cross_entropy"]
    y = torch.eye(3, dtype=torch.float64)[:1]

    def hessian(out: torch.Tensor) -> torch.Tensor:
        p = out.softmax(dim=0)
        return torch.diag(p) - torch.outer(p, p)

    top = [float(torch.linalg.eigvalsh(hessian(4 * torch.randn(3, dtype=torch.float64)))[-1]) for _ in range(300)]
    assert max(top) <= 0.5
    even = torch.tensor([0.0, 0.0, -40.0], dtype=torch.float64)
    assert float(torch.linalg.eigvalsh(hessian(even))[-1]) == pytest.approx(0.5)
    step = 1e-6 * torch.tensor([[1.0, -1.0, 0.0]], dtype=torch.float64)
    moved = loss.gradient(even[None] + step, y) - loss.gradient(even[None] - step, y)
    assert float(moved.norm() / (2 * step.norm())) == pytest.approx(0.5, rel=1e-6)


def test_a_total_cross_entropy_below_log_2_means_every_row_is_right():
    loss = LOSSES["cross_entropy"]
    seen = 0
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        y = torch.nn.functional.one_hot(torch.randint(3, (4,), generator=generator), 3).double()
        out = 3 * torch.randn(4, 3, dtype=torch.float64, generator=generator) + 3 * y
        if float(loss.value(out, y).sum()) < math.log(2):
            seen += 1
            assert accuracy(out, y, "one-hot") == 1
    assert seen > 20
    # and log 2 cannot be made larger: one row just wrong, all others perfect
    y = torch.eye(2, dtype=torch.float64)
    out = torch.tensor([[0.0, 1e-6], [-50.0, 50.0]], dtype=torch.float64)
    assert math.log(2) < float(loss.value(out, y).sum()) < math.log(2) + 1e-6
    assert accuracy(out, y, "one-hot") == 0.5


def test_quartic_falls_like_one_over_t_squared_and_squared_like_an_exponential():
    data = Dataset([[1.0]], [1.0])
    slopes = {}
    for name in ("quartic", "squared"):
        net = torch.nn.Linear(1, 1, bias=False).double()
        with torch.no_grad():
            net.weight.fill_(0.0)
        run = descend(net, data, loss=name, step=0.1, max_steps=2_000, until=0.0)
        slopes[name] = (
            float((run.loss[2_000] / run.loss[200]).log() / math.log(10)) if name == "quartic" else float(run.loss[200])
        )
    assert slopes["quartic"] == pytest.approx(-2, abs=0.1)
    assert slopes["squared"] == pytest.approx(0.5 * 0.9**400, rel=1e-6)


def test_targets_are_told_apart():
    signs, hot = torch.tensor([[1.0], [-1.0]]), torch.eye(2)
    assert (classes_of(signs), classes_of(hot), classes_of(torch.tensor([[1.0], [0.0]]))) == ("signs", "one-hot", "any")
    assert classes_of(torch.tensor([[1.0, -1.0]])) == "any"
    assert accuracy(torch.tensor([[2.0, 2.0], [0.0, 1.0]]), hot, "one-hot") == 0.5  # a tie is wrong
    net = torch.nn.Linear(1, 2).double()
    numbers = Dataset([[1.0], [2.0]], [[0.3, 0.7], [1.0, 0.0]])
    with pytest.raises(ValueError, match="not one-hot rows, which 'cross_entropy' asks for"):
        descend(net, numbers, loss="cross_entropy")
    with pytest.raises(ValueError, match="targets other than 1 and -1, which 'logistic' asks for"):
        descend(net, numbers, loss="logistic")
    with pytest.raises(ValueError, match="stop_when_fitted is True for targets that are not classes"):
        descend(net, numbers, stop_when_fitted=True)
    with pytest.raises(ValueError, match="did you mean 'cross_entropy'"):
        find_loss("cross-entropy")
