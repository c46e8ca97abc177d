"""Constants of activations against mpmath, and against what THEORY 3.6 lists."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

from zeroloss.networks import (
    ACTIVATIONS,
    activation_of,
    c_sigma,
    find_activation,
    gaussian_mean,
    gradient_gain,
    sup_curvature,
    sup_derivative,
)

mpmath.mp.dps = 40
REFERENCE = {
    "relu": lambda z: z if z > 0 else mpmath.mpf(0),
    "softplus": lambda z: mpmath.log(1 + mpmath.exp(z)),
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
    "gelu": lambda z: z * mpmath.ncdf(z),
}
# THEORY 3.6; tanh to the digits its quadrature had
LISTED = {"relu": 2.0, "softplus": 1.0854865030, "tanh": 2.53617543, "erf": 2.1525788606, "gelu": 2.3517156141}
SLOPES = {"relu": 1.0, "softplus": 0.3185, "tanh": 1.1778, "erf": 1.2257, "gelu": 1.0720}
SUPREMA = {
    "relu": (1.0, math.inf),
    "softplus": (1.0, 0.25),
    "tanh": (1.0, 0.7698003589),
    "erf": (2 / math.sqrt(math.pi), 0.9678828980),
    "gelu": (1.1289041451, 0.7978845608),
}


def exact_mean(f, variance=1.0):
    edges = [-30, -10, -5, -2, 0, 2, 5, 10, 30]
    root = mpmath.sqrt(variance)
    return mpmath.quad(lambda z: f(root * z) * mpmath.npdf(z), edges)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_c_sigma_is_the_inverse_second_moment(name):
    exact = 1 / exact_mean(lambda z: REFERENCE[name](z) ** 2)
    assert c_sigma(find_activation(name)) == pytest.approx(float(exact), rel=5e-14)
    assert c_sigma(find_activation(name)) == pytest.approx(LISTED[name], rel=2e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_mean_at_several_variances(name):
    activation = find_activation(name)
    variances = [0.01, 1.0, 4.0]
    ours = gaussian_mean(activation.function, torch.tensor(variances, dtype=torch.float64), activation.kinks)
    exact = [float(exact_mean(REFERENCE[name], mpmath.mpf(v))) for v in variances]
    assert ours.tolist() == pytest.approx(exact, rel=1e-13, abs=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gain_and_suprema(name):
    activation = find_activation(name)
    assert gradient_gain(activation) == pytest.approx(SLOPES[name], abs=6e-5)
    assert sup_derivative(activation) == pytest.approx(SUPREMA[name][0], rel=1e-9)
    assert sup_curvature(activation) == pytest.approx(SUPREMA[name][1], rel=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_function_and_its_derivatives_are_those_of_mpmath(name):
    activation = find_activation(name)
    points = [-30.0, -3.3, -0.7, 0.4, 2.5, 25.0, 39.0]
    z = torch.tensor(points, dtype=torch.float64)
    for order, ours in enumerate((activation.function(z), activation.derivative(z), activation.curvature(z))):
        exact = [float(mpmath.diff(REFERENCE[name], p, order)) for p in points]
        # torch's erf near -1 loses relative digits in gelu's tail, never absolute ones
        assert ours.tolist() == pytest.approx(exact, rel=1e-9, abs=2e-14)


def test_the_rule_sees_kinks_wherever_they_are():
    f = lambda z: (z - 0.3).clamp(min=0)  # noqa: E731
    kink = mpmath.mpf("0.3")
    exact = float(mpmath.quad(lambda z: (2 * z - kink) * mpmath.npdf(z), [kink / 2, 2, 5, 30]))
    four = torch.tensor([4.0], dtype=torch.float64)
    assert float(gaussian_mean(f, four, (0.3,))) == pytest.approx(exact, rel=1e-14)
    assert abs(float(gaussian_mean(f, four)) - exact) > 1e-9  # the control: without the kink named, digits are lost


def test_modules_and_names_know_each_other():
    for name, activation in ACTIVATIONS.items():
        found = activation_of(activation.module())
        assert found is not None
        assert found.name == name
    assert activation_of(torch.nn.GELU(approximate="tanh")) is None
    assert activation_of(torch.nn.Softplus(beta=2)) is None
    with pytest.raises(ValueError, match="did you mean 'relu'"):
        find_activation("rellu")
