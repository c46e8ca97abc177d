"""Curves against the recursion over layers that they stand for, and functions that have none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from zeroloss import fully_connected
from zeroloss.kernels import collapse as collapsing
from zeroloss.kernels.curve import Curve, Side, fit_curve

DTYPES = (torch.float32, torch.float64)
VACUOUS = {torch.float32: 3e-6, torch.float64: 2e-13}
KINKED = ("relu", "leaky_relu", "abs")
OTHERS = ("erf", "gelu", "softplus", "hard_tanh", "sin")
WITHOUT = ("hard_tanh", "erf-30", "sin-30")  # in float64 no polynomial is good enough for them, and none is used
CASES = [(name, depth) for name in KINKED for depth in (1, 3, 10, 30)] + [(name, depth) for name in OTHERS for depth in (1, 3)]
DEEP = [pytest.param(name, depth, marks=pytest.mark.slow) for name in OTHERS for depth in (10, 30)]


def kernel_function(activation: str, depth: int, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """The recursion that ``collapse`` fits, as a function of 1-rho and 1+rho: the tangent kernel of unit rows."""
    caught = []
    monkeypatch.setattr(collapsing, "fit_curve", lambda function, dtype: caught.append(function))
    scheme = "allen-zhu" if activation in KINKED else "du"
    net = fully_connected(4, 8, depth, activation=activation, scheme=scheme)
    parts = {layer: 0 for name, layer in net.named_children() if hasattr(layer, "weight")}
    collapsing.collapse(net, parts, lambda state: state.tangent[0], {}, 1 / 4, torch.float64)
    known: dict[bytes, Tensor] = {}

    def function(versine: Tensor, coversine: Tensor) -> Tensor:
        place = versine.numpy().tobytes() + coversine.numpy().tobytes()
        if place not in known:  # fits for two dtypes ask the same nodes
            known[place] = caught[0](versine, coversine)
        return known[place]

    return function


def off_grid(dtype: torch.dtype) -> Tensor:
    """1-|rho| from duplicates to right angles, on no grid that a fit uses; exact in the dtype."""
    rng = np.random.default_rng(7)
    m = np.concatenate([[0.0], 10 ** rng.uniform(-15, 0, 300), rng.uniform(0, 1, 700), [1.0]])
    return torch.from_numpy(m).to(dtype)


@pytest.mark.parametrize(("activation", "depth"), CASES + DEEP)
def test_a_curve_is_the_recursion(activation, depth, monkeypatch):
    """Within its own error on both sides of a right angle, evaluated in its dtype; the error says something; the diagonal is exact."""
    function = kernel_function(activation, depth, monkeypatch)
    for dtype in DTYPES:
        curve = fit_curve(function, dtype)
        if curve is None:
            assert dtype == torch.float64
            assert {activation, f"{activation}-{depth}"} & set(WITHOUT)
            continue
        assert 0 < curve.error < VACUOUS[dtype]
        m = off_grid(dtype)
        near = m.double()
        assert curve.diagonal == float(function(torch.zeros(1).double(), 2 * torch.ones(1).double()))
        for signed, exact in ((m, function(near, 2 - near)), (-m.clamp(min=torch.finfo(dtype).tiny), function(2 - near, near))):
            assert float((curve.at(signed).double() - exact).abs().max()) <= curve.error * curve.diagonal


@pytest.mark.parametrize(
    ("activation", "depth"), [("relu", 1), ("relu", 10), ("abs", 10), ("erf", 1), ("erf", 3), ("hard_tanh", 3)]
)
def test_no_slope_is_steeper_than_the_steepness(activation, depth, monkeypatch):
    """By finite differences of the recursion in the angle; and no more than twice what is needed."""
    function = kernel_function(activation, depth, monkeypatch)
    curve = fit_curve(function, torch.float32 if activation == "hard_tanh" else torch.float64)
    theta = torch.linspace(1e-3, math.pi - 1e-3, 1501, dtype=torch.float64)
    step = 1e-5
    values = [function(2 * torch.sin(t / 2) ** 2, 2 * torch.cos(t / 2) ** 2) for t in (theta - step, theta + step)]
    steepest = float(((values[1] - values[0]) / (2 * step)).abs().max()) / curve.diagonal
    assert steepest <= curve.steepness <= 2 * steepest


def test_the_steepness_of_a_line_is_known():
    """cos(theta), whose slope is sin(theta): at most 1, and 25 % on top."""
    assert fit_curve(lambda versine, coversine: 1 - versine, torch.float64).steepness == pytest.approx(1.25, rel=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda versine, coversine: torch.where(versine < 0.3, 1.0, 0.5).double(),
        lambda versine, coversine: torch.where(coversine < 0.3, 1.0, 0.5).double(),
        lambda versine, coversine: 1 + torch.sin(400 * versine),
        lambda versine, coversine: 1 / (1e-9 + versine),
        lambda versine, coversine: torch.where(versine == 1, torch.nan, 1.0).double(),
        lambda versine, coversine: torch.where(versine == 0, torch.nan, 1.0).double(),
        lambda versine, coversine: torch.where((coversine - 1e-16).abs() < 1e-22, torch.nan, 1.0).double(),
        lambda versine, coversine: -torch.ones_like(versine),
    ],
    ids=["jump", "jump-opposite", "waves", "spike", "nan", "nan-diagonal", "nan-opposite", "negative"],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_no_polynomial_fits_has_no_curve(function, dtype):
    assert fit_curve(function, dtype) is None


def test_a_kernel_of_zero_has_a_curve_of_zero():
    curve = fit_curve(lambda versine, coversine: torch.zeros_like(versine), torch.float64)
    assert curve.diagonal == 0
    assert curve.at(torch.tensor([0.0, 0.5, -0.5]).double()).tolist() == [0, 0, 0]


def test_the_sign_says_which_side():
    """m with the sign of rho: a negative number of no size, and -0.0 too, are opposite; at m=1 the sides may meet."""
    curve = Curve(2.0, Side(False, 0.0, (1.0,)), Side(False, 0.0, (-1.0,)), 0.0, 0.0)
    tiny = torch.finfo(torch.float64).tiny
    signed = torch.tensor([0.0, 1.0, tiny, -tiny, -0.0, -1.0], dtype=torch.float64)
    assert curve.at(signed).tolist() == [2, 2, 2, -2, -2, -2]


@pytest.mark.parametrize("pull", [0.0, 2.0])
@pytest.mark.parametrize("root", [False, True])
def test_a_side_is_its_polynomial(root, pull):
    """Written out once more, highest power last."""
    m = torch.linspace(0, 1, 11, dtype=torch.float64)
    z = m**0.5 if root else m
    v = 2 * (1 + pull) * z / (1 + pull * z) - 1
    assert torch.allclose(Side(root, pull, (0.5, -1.0, 2.0)).at(m), 0.5 - v + 2 * v**2, rtol=1e-14, atol=1e-14)
