"""Duals against closed forms, against 40-digit integrals, and where digits are lost first: near duplicates."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroloss.kernels import mehler
from zeroloss.kernels.dual import dual
from zeroloss.kernels.hermite import hermite_coefficients
from zeroloss.kernels.pairs import Pairs, from_half_distances, input_pairs
from zeroloss.networks import find_activation, gaussian_rule

mpmath.mp.dps = 40


def pairs(versine: float, left: float = 1.0, right: float = 1.0) -> Pairs:
    t = lambda v: torch.tensor([v], dtype=torch.float64)  # noqa: E731
    return Pairs(t(left), t(right), t(versine)[:, None])


def erf_forms(left, right, rho):
    s = rho * mpmath.sqrt(left * right)
    value = 2 / mpmath.pi * mpmath.asin(2 * s / mpmath.sqrt((1 + 2 * left) * (1 + 2 * right)))
    slope = 4 / mpmath.pi / mpmath.sqrt((1 + 2 * left) * (1 + 2 * right) - 4 * s**2)
    return value, slope


def relu_forms(left, right, w):
    theta = 2 * mpmath.asin(mpmath.sqrt(w / 2))
    size = mpmath.sqrt(left * right)
    return size * (mpmath.sin(theta) + (mpmath.pi - theta) * mpmath.cos(theta)) / (2 * mpmath.pi), (mpmath.pi - theta) / (
        2 * mpmath.pi
    )


@pytest.mark.parametrize("versine", [0.0, 1e-14, 1e-9, 1e-4, 0.019, 0.1, 0.5, 1.0, 1.5, 1.99])
@pytest.mark.parametrize(("left", "right"), [(1.0, 1.0), (0.3, 2.5), (1.0, 1.0000001)])
@pytest.mark.parametrize("name", ["relu", "erf"])
def test_closed_forms_to_the_last_digits(name, versine, left, right):
    w = mpmath.mpf(versine)
    exact = relu_forms(left, right, w) if name == "relu" else erf_forms(mpmath.mpf(left), mpmath.mpf(right), 1 - w)
    result = dual(find_activation(name), pairs(versine, left, right))
    assert float(result.pairs.products) == pytest.approx(float(exact[0]), abs=4e-15)
    assert float(result.slope) == pytest.approx(float(exact[1]), rel=2e-13, abs=1e-15)


@pytest.mark.parametrize("name", ["relu", "erf", "softplus", "tanh", "gelu", "sigmoid", "swish", "sin", "cos"])
def test_near_duplicates_keep_relative_digits(name):
    """1 - rho after the layer, relative to its size, at 1 - rho = 1e-12 before: arccos would keep four digits."""
    w = mpmath.mpf("1e-12")
    sigma = find_activation(name)
    ours = dual(sigma, pairs(1e-12)).pairs
    if name == "relu":
        theta = 2 * mpmath.asin(mpmath.sqrt(w / 2))
        exact = w - (mpmath.sin(theta) - theta * mpmath.cos(theta)) / mpmath.pi
    else:  # first order: E[(sigma(u)-sigma(v))^2]/2 = w E[sigma'^2] (1 + O(w))
        z, weight = unit_rule()
        value, slope = sigma.function(z), sigma.derivative(z)
        exact = w * mpmath.mpf(float((weight * slope**2).sum() / (weight * value**2).sum()))
    assert float(ours.versine) == pytest.approx(float(exact), rel=1e-9)


def unit_rule():
    z, weight = gaussian_rule(torch.ones(1, dtype=torch.float64))
    return z[0], weight[0]


@pytest.mark.parametrize("name", ["softplus", "tanh", "gelu", "erf", "sigmoid", "swish", "sin", "cos"])
@pytest.mark.parametrize("rho", [0.999999, 0.9, 0.3, 0.0, -0.5, -1.0])
def test_smooth_duals_against_a_double_integral(name, rho):
    """The slow obvious twin: a million points in two independent coordinates, no series anywhere."""
    left, right = 0.8, 1.7
    a, b = math.sqrt((1 + rho) / 2), math.sqrt((1 - rho) / 2)
    z, weight = unit_rule()
    x, y, w = z[:, None], z[None, :], weight[:, None] * weight[None, :]
    u, v = math.sqrt(left) * (a * x + b * y), math.sqrt(right) * (a * x - b * y)
    sigma = find_activation(name)
    result = dual(sigma, pairs(1 - rho, left, right))
    assert float(result.pairs.products) == pytest.approx(float((sigma.function(u) * sigma.function(v) * w).sum()), rel=1e-11)
    assert float(result.slope) == pytest.approx(float((sigma.derivative(u) * sigma.derivative(v) * w).sum()), rel=1e-11)


def test_many_variances_are_interpolated_to_rounding():
    """Against direct quadrature, from tiny to large variances, zero included; and a polynomial through too few nodes is not enough."""
    sigma = find_activation("erf")
    v = torch.cat([torch.zeros(1, dtype=torch.float64), torch.logspace(-9, 0.7, 700, dtype=torch.float64)])
    found = hermite_coefficients(sigma, v)
    probe = torch.arange(0, 701, 50)
    z, weight = gaussian_rule(torch.ones(1, dtype=torch.float64))
    points = v[probe].sqrt()[:, None] * z
    value, slope = sigma.function(points), sigma.derivative(points)
    size = (weight * value**2).sum(1)
    assert torch.allclose(found.second[probe], size, rtol=1e-14, atol=0)
    size, steep = size.sqrt(), (weight * slope**2).sum(1).sqrt()
    below, here = torch.zeros_like(z), torch.ones_like(z)
    for k in range(len(found.value)):
        assert ((found.value[k, probe] - (weight * value * here).sum(1)).abs() <= 1e-14 * size).all()
        assert ((found.slope[k, probe] - (weight * slope * here).sum(1)).abs() <= 1e-14 * steep).all()
        below, here = here, (z * here - math.sqrt(k) * below) / math.sqrt(k + 1)


@pytest.mark.parametrize("name", ["softplus", "tanh", "erf"])
def test_places_stand_apart(name, monkeypatch):
    """Images: every pixel is its own problem, whatever the blocks, one variance or many; near duplicates keep digits there too."""
    generator = torch.Generator().manual_seed(0)
    v = torch.rand(5, 3, 4, dtype=torch.float64, generator=generator) + 0.2
    v[2] = v[1] * (1 + 1e-9)
    w = torch.rand(5, 5, 3, 4, dtype=torch.float64, generator=generator) * 2
    w[1, 2] = 1e-12
    monkeypatch.setattr(mehler, "BLOCK", 30)  # blocks that end inside rows and inside columns
    whole = dual(find_activation(name), Pairs(v, v, w))
    monkeypatch.undo()
    for place in ((0, 0), (2, 3)):
        at = (..., *place)
        alone = dual(find_activation(name), Pairs(v[at], v[at], w[at]))
        assert torch.allclose(whole.pairs.half_distances[at], alone.pairs.half_distances, rtol=1e-6, atol=2e-15)
        assert torch.allclose(whole.slope[at], alone.slope, rtol=0, atol=1e-13)
    sigma = find_activation(name)
    z, weight = unit_rule()
    near = float(v[1, 0, 0])
    bend = float((weight * sigma.derivative(math.sqrt(near) * z) ** 2).sum())
    assert float(whole.pairs.half_distances[1, 2, 0, 0]) == pytest.approx(near * 1e-12 * bend, rel=1e-5)


@given(
    name=st.sampled_from(["relu", "leaky_relu", "abs", "hard_tanh", "sigmoid", "swish", "softplus", "erf", "sin", "cos"]),
    left=st.floats(1e-3, 4),
    right=st.floats(1e-3, 4),
    versine=st.floats(0, 2),
)
def test_moments_are_those_of_two_variables(name, left, right, versine):
    """Cauchy-Schwarz, symmetry, and a covariance that is positive semidefinite with the means taken off."""
    sigma = find_activation(name)
    ours, swapped = dual(sigma, pairs(versine, left, right)), dual(sigma, pairs(versine, right, left))
    first, second, both = (float(t) for t in (ours.pairs.left, ours.pairs.right, ours.pairs.products))
    assert both**2 <= first * second * (1 + 1e-13)
    assert both == pytest.approx(float(swapped.pairs.products), abs=1e-13 * math.sqrt(first * second))
    assert float(ours.slope) == pytest.approx(float(swapped.slope), rel=1e-11, abs=1e-13)
    mean, other = float(ours.mean_left), float(ours.mean_right)
    variances = (first - mean**2) * (second - other**2)
    assert (both - mean * other) ** 2 <= variances * (1 + 1e-9) + 1e-13 * first * second
    assert float(ours.pairs.half_distances) >= 0


def test_a_wrong_formula_would_be_caught():
    """The control: the printed kappa_1 without the diagonal-preserving term is far outside every tolerance above."""
    theta = 2 * math.asin(math.sqrt(0.25))
    wrong = (math.sin(theta) + (math.pi - theta)) / (2 * math.pi)
    assert abs(float(dual(find_activation("relu"), pairs(0.5)).pairs.products) - wrong) > 1e-2


def test_steep_activation_at_huge_variance_is_refused_not_guessed():
    with pytest.raises(ValueError, match="has not settled"):
        dual(find_activation("tanh"), pairs(0.5, 1e6, 1e6))


def test_half_distances_invert():
    given = Pairs(
        torch.tensor([0.5, 2.0], dtype=torch.float64),
        torch.tensor([1.0, 3.0], dtype=torch.float64),
        torch.tensor([[1e-9, 0.3], [1.2, 1.9]], dtype=torch.float64),
    )
    back = from_half_distances(given.left, given.right, given.half_distances)
    assert torch.allclose(back.versine, given.versine, rtol=1e-6, atol=1e-15)


def test_a_bias_adds_to_products_and_not_to_distances():
    before = pairs(0.3, 0.7, 1.4)
    after = before.plus_constant(0.25)
    assert float(after.products) == pytest.approx(float(before.products) + 0.25, rel=1e-14)
    assert float(after.half_distances) == pytest.approx(float(before.half_distances), rel=1e-13)


@pytest.mark.parametrize("gap", [1e-3, 1e-7, 1e-12])
def test_inputs_near_duplicates(gap):
    x = torch.tensor([[0.6, 0.8, 0.0]], dtype=torch.float64)
    y = x + gap * torch.tensor([[-0.8, 0.6, 0.5]], dtype=torch.float64)
    with mpmath.workdps(50):
        u, v = ([mpmath.mpf(c) for c in t[0].tolist()] for t in (x, y))
        dot = sum(p * q for p, q in zip(u, v, strict=True))
        exact = 1 - dot / mpmath.sqrt(sum(p * p for p in u) * sum(q * q for q in v))
    assert float(input_pairs(x, y).versine) == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize("stretch", [1.0, 1 + 1e-9, 1.1])
def test_inputs_of_other_norms(stretch):
    """Nearly parallel rows of different norm: the gap of the norms must not count as distance."""
    x = torch.tensor([[0.6, 0.8, 0.0]], dtype=torch.float64)
    y = stretch * (x + 1e-6 * torch.tensor([[-0.8, 0.6, 0.5]], dtype=torch.float64))
    with mpmath.workdps(50):
        u, v = ([mpmath.mpf(c) for c in t[0].tolist()] for t in (x, y))
        dot = sum(p * q for p, q in zip(u, v, strict=True))
        exact = 1 - dot / mpmath.sqrt(sum(p * p for p in u) * sum(q * q for q in v))
    assert float(input_pairs(x, y).versine) == pytest.approx(float(exact), rel=1e-3 if stretch > 1.05 else 1e-6)


def test_zero_rows_give_zero_products_and_no_nan():
    x = torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = input_pairs(x)
    assert torch.isfinite(found.products).all()
    assert torch.equal(found.products[1], torch.zeros(3, dtype=torch.float64))
    assert float(found.products[0, 0]) == pytest.approx(2.5)
