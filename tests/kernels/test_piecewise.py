"""Piecewise linear duals against one-dimensional integrals in 30 digits, their inner expectation in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

from zeroloss.kernels import limit_kernel
from zeroloss.kernels.dual import dual
from zeroloss.kernels.pairs import Pairs
from zeroloss.kernels.piecewise import pieces_of, piecewise_moments, piecewise_sums
from zeroloss.networks import Activation, Elementwise, find_activation, gaussian_mean, leaky_relu

RULE = [[float(v) for v in part] for part in np.polynomial.legendre.leggauss(20)]
# name: the activation, its first line (intercept, slope), its knots and jumps
SHAPES = {
    "relu": (find_activation("relu"), (0, 0), [(0.0, 1)]),
    "leaky_relu": (find_activation("leaky_relu"), (0, 0.01), [(0.0, 0.99)]),
    "steep": (leaky_relu(-0.7), (0, -0.7), [(0.0, 1.7)]),
    "abs": (find_activation("abs"), (0, -1), [(0.0, 2)]),
    "hard_tanh": (find_activation("hard_tanh"), (-1, 0), [(-1.0, 1), (1.0, -1)]),
    "bent": (Activation("bent", lambda z: torch.where(z > 0.3, 2 * z - 0.3, z), (0.3,)), (0, 1), [(0.3, 1)]),
    "lifted": (Activation("lifted", lambda z: z.abs() + 0.5, (0.0,)), (0.5, -1), [(0.0, 2)]),
}
RHOS = [-1.0, -0.5, 0.0, 0.3, 0.9, 0.999999, 1 - 1e-12, 1.0]


def pairs(versine: float, left: float, right: float) -> Pairs:
    t = lambda v: torch.tensor([v], dtype=torch.float64)  # noqa: E731
    return Pairs(t(left), t(right), t(versine)[:, None])


def exact(shape, left, right, w, digits=30):
    """E[sigma(u) sigma(v)], half distance and slope: the inner expectation by hand, the outer by panels between all bends."""
    _, (intercept, first), bends = shape
    with mpmath.workdps(digits):
        p, q, w = mpmath.sqrt(mpmath.mpf(left)), mpmath.sqrt(mpmath.mpf(right)), mpmath.mpf(w)
        intercept, first = mpmath.mpf(intercept), mpmath.mpf(first)
        bends = [(mpmath.mpf(c), mpmath.mpf(j)) for c, j in bends]
        rho, side = 1 - w, q * mpmath.sqrt(w * (2 - w))

        def line(z):
            return intercept + first * z + sum(j * max(z - c, 0) for c, j in bends)

        def tilt(z):
            return first + sum(j for c, j in bends if z > c)

        def inner(x):
            m = q * rho * x
            if side == 0:
                value = line(m)
                return line(p * x) * value, (line(p * x) - value) ** 2 / 2, tilt(p * x) * tilt(m)
            value, square, slope = intercept + first * m, (intercept + first * m) ** 2 + (first * side) ** 2, first
            for c, j in bends:
                t = (m - c) / side
                above, density = mpmath.ncdf(t), mpmath.npdf(t)
                part = side * density + (m - c) * above  # E (v - c)_+
                value, slope = value + j * part, slope + j * above
                # E of the square: cross terms with the first line and with the other bends
                moment = part * (intercept + first * c) + first * (((m - c) ** 2 + side**2) * above + (m - c) * side * density)
                square += 2 * j * moment
                for d, other in bends:
                    high = max(c, d)
                    s = (m - high) / side
                    up, dens = mpmath.ncdf(s), mpmath.npdf(s)
                    linear = side * dens + (m - high) * up
                    square += j * other * (((m - high) ** 2 + side**2) * up + (m - high) * side * dens + abs(c - d) * linear)
            ours = line(p * x)
            return ours * value, (ours**2 - 2 * ours * value + square) / 2, tilt(p * x) * slope

        # nodes of double precision, values of 30 digits: every integrand is smooth on its panel, and the half distance's is positive
        edges = {mpmath.mpf(e) * 1.5 for e in range(-6, 7)} | {c / p for c, _ in bends}
        if rho != 0:
            edges |= {(c + k * side) / (q * rho) for c, _ in bends for k in (-9, -4, 0, 4, 9)}
        edges = sorted(e for e in edges if abs(e) <= 9)
        total = [mpmath.mpf(0)] * 3
        for low, high in pairwise(edges):
            for node, weight in zip(*RULE, strict=True):
                x = (low + high) / 2 + (high - low) / 2 * node
                mass = weight * (high - low) / 2 * mpmath.npdf(x)
                total = [t + mass * e for t, e in zip(total, inner(x), strict=True)]
        return [float(t) for t in total]


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize(
    ("name", "left", "right"), [*((name, 0.3, 2.5) for name in SHAPES), ("hard_tanh", 1.0, 1.0), ("lifted", 1.7, 1.7)]
)
def test_against_integrals(name, left, right, rho):
    w = 1 - rho
    product, half, slope = exact(SHAPES[name], left, right, w)
    result = dual(SHAPES[name][0], pairs(w, left, right))
    scale = float(result.pairs.scale)
    assert float(result.pairs.products) == pytest.approx(product, abs=2e-13 * scale)
    assert float(result.slope) == pytest.approx(slope, abs=1e-8 if rho == -1 else 2e-12)
    # relative, at 1 - 1e-12 too
    assert float(result.pairs.half_distances) == pytest.approx(half, rel=1e-10, abs=2e-13 * scale if rho < 0 else 1e-30)


@pytest.mark.parametrize("versine", [1e-12, 1e-4, 0.3, 1.9])
@pytest.mark.parametrize("stretch", [1 + 1e-9, 1.001, 1.03])
def test_variances_that_are_close_leave_thin_layers(versine, stretch):
    """Where variances differ by little, the integrand turns on within an angle as small as their difference."""
    product, half, slope = exact(SHAPES["hard_tanh"], 1.0, stretch, versine)
    result = dual(SHAPES["hard_tanh"][0], pairs(versine, 1.0, stretch))
    assert float(result.pairs.products) == pytest.approx(product, abs=2e-13)
    assert float(result.slope) == pytest.approx(slope, abs=5e-12)
    assert float(result.pairs.half_distances) == pytest.approx(half, rel=1e-10)


def test_a_wrong_formula_would_be_caught():
    """The controls: a slope that keeps the sign of the mixed quadrants, and an angle integral that forgets a knot, are far outside."""
    sigma, shape = SHAPES["steep"][0], SHAPES["steep"]
    _, _, slope = exact(shape, 0.3, 2.5, 0.7)
    theta = math.acos(0.3)
    right = (1 + 0.49) * (math.pi - theta) / (2 * math.pi) - 0.7 * theta / math.pi
    assert slope == pytest.approx(right, rel=1e-12)
    assert abs(slope - (right + 2 * 0.7 * theta / math.pi)) > 0.1
    result = dual(sigma, pairs(0.7, 0.3, 2.5))
    wrong = 0.7 - (1 + 0.49 - 2 * 0.7) / 1.49 * (math.sin(theta) - theta * 0.3) / math.pi  # (alpha + beta)^2 for (alpha - beta)^2
    assert abs(float(result.pairs.versine) - wrong) > 0.1
    pieces = pieces_of(find_activation("hard_tanh"))
    one_knot = replace(pieces, knots=(-1.0, 50.0))
    half_left, _ = piecewise_sums(one_knot, pairs(0.7, 1.0, 1.0))
    assert abs(float(half_left) - exact(SHAPES["hard_tanh"], 1.0, 1.0, 0.7)[1]) > 0.01


def test_pieces_are_found_only_where_there_are_lines():
    assert pieces_of(find_activation("relu")).homogeneous
    assert not pieces_of(SHAPES["lifted"][0]).homogeneous
    bent = pieces_of(SHAPES["bent"][0])
    assert (bent.knots, bent.slopes) == ((0.3,), (1.0, 2.0))
    assert bent.intercepts == pytest.approx((0.0, -0.3), abs=1e-15)
    assert pieces_of(Activation("elu", nn.ELU, (0.0,))) is None
    assert pieces_of(find_activation("tanh")) is None


def test_second_moments_owe_nothing_to_the_pairs():
    """Closed forms against quadrature, at small and large variances and at 0."""
    v = torch.tensor([0.0, 1e-6, 0.2, 1.0, 50.0], dtype=torch.float64)
    for name in ("hard_tanh", "bent", "lifted"):
        sigma = SHAPES[name][0]
        mean, second = piecewise_moments(pieces_of(sigma), v)
        assert torch.allclose(mean, gaussian_mean(sigma.function, v, sigma.kinks), rtol=1e-12, atol=1e-15)
        assert torch.allclose(
            second, gaussian_mean(lambda z, f=sigma.function: f(z) ** 2, v, sigma.kinks), rtol=1e-12, atol=1e-15
        )


@pytest.mark.parametrize("name", ["hard_tanh", "abs"])
def test_diagonals_are_exact_and_places_stand_apart(name):
    """With trailing places every place is its own problem, and an input against itself is at distance exactly 0."""
    generator = torch.Generator().manual_seed(0)
    v = torch.rand(3, 2, 2, dtype=torch.float64, generator=generator) + 0.2
    v[1, 0, 0] = 0
    w = torch.rand(3, 3, 2, 2, dtype=torch.float64, generator=generator)
    w = w * (1 - torch.eye(3, dtype=torch.float64))[..., None, None]
    whole = dual(SHAPES[name][0], Pairs(v, v, w))
    assert torch.isfinite(whole.pairs.products).all()
    assert torch.equal(whole.pairs.half_distances[range(3), range(3)], torch.zeros(3, 2, 2, dtype=torch.float64))
    for place in ((0, 1), (1, 0)):
        at = (..., *place)
        alone = dual(SHAPES[name][0], Pairs(v[at], v[at], w[at]))
        assert torch.allclose(whole.pairs.products[at], alone.pairs.products, rtol=1e-13, atol=1e-15)
        assert torch.allclose(whole.slope[at], alone.slope, rtol=1e-13, atol=1e-15)
        assert torch.allclose(whole.mean_left[at], alone.mean_left, rtol=1e-14, atol=1e-16)


def test_a_layer_of_yours_has_the_limit_of_its_function():
    """A function that torch has a module for, written by hand, gives that module's kernel."""
    x = torch.nn.functional.normalize(torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))

    def kernel(sigma):
        return limit_kernel(nn.Sequential(nn.Linear(3, 16), sigma, nn.Linear(16, 16), sigma, nn.Linear(16, 1)))(x)

    yours = Elementwise(lambda z: torch.where(z > 0, z, 0.2 * z), (0.0,), "mine")
    assert torch.allclose(kernel(yours), kernel(nn.LeakyReLU(0.2)), rtol=1e-14)
    assert not torch.allclose(kernel(yours), kernel(nn.LeakyReLU(0.3)), rtol=1e-3)
    assert torch.allclose(kernel(Elementwise(lambda z: z * torch.sigmoid(z))), kernel(nn.SiLU()), rtol=1e-12)
