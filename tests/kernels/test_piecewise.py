"""Piecewise linear duals against one-dimensional integrals in 40 digits, their inner expectation in closed form."""

from __future__ import annotations

import mpmath
import pytest
import torch

from zeroloss.kernels.dual import dual
from zeroloss.kernels.pairs import Pairs
from zeroloss.networks import Activation, find_activation, leaky_relu

mpmath.mp.dps = 40
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


def exact(shape, left, right, w, digits=40):
    """E[sigma(u) sigma(v)], half distance and slope: the inner expectation by hand, the outer by mpmath between all bends."""
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

        edges = {mpmath.mpf(e) for e in (-16, -9, -4, 0, 4, 9, 16)} | {c / p for c, _ in bends}
        if rho != 0:
            edges |= {(c + k * side) / (q * rho) for c, _ in bends for k in (-12, -6, -3, 0, 3, 6, 12)}
        edges = sorted(e for e in edges if abs(e) <= 16)
        return [mpmath.quad(lambda x, k=k: inner(x)[k] * mpmath.npdf(x), edges) for k in range(3)]


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize(("left", "right"), [(1.0, 1.0), (0.3, 2.5)])
@pytest.mark.parametrize("name", SHAPES)
def test_against_integrals(name, left, right, rho):
    w = 1 - rho
    product, half, slope = (float(e) for e in exact(SHAPES[name], left, right, w))
    result = dual(SHAPES[name][0], pairs(w, left, right))
    scale = float(result.pairs.scale)
    assert float(result.pairs.products) == pytest.approx(product, abs=2e-13 * scale)
    assert float(result.slope) == pytest.approx(slope, abs=1e-8 if rho == -1 else 2e-12)
    # relative, at 1 - 1e-12 too
    assert float(result.pairs.half_distances) == pytest.approx(half, rel=1e-10, abs=1e-30)


@pytest.mark.parametrize("versine", [1e-12, 1e-7, 1e-3, 0.3, 1.2, 1.9])
@pytest.mark.parametrize("stretch", [1 + 1e-9, 1 + 1e-5, 1.001, 1.03, 1.4])
def test_variances_that_are_close_leave_thin_layers(versine, stretch):
    """Where variances differ by little, the integrand turns on within an angle as small as their difference."""
    product, half, slope = (float(e) for e in exact(SHAPES["hard_tanh"], 1.0, stretch, versine, digits=50))
    result = dual(SHAPES["hard_tanh"][0], pairs(versine, 1.0, stretch))
    assert float(result.pairs.products) == pytest.approx(product, abs=2e-13)
    assert float(result.slope) == pytest.approx(slope, abs=5e-12)
    assert float(result.pairs.half_distances) == pytest.approx(half, rel=1e-10)
