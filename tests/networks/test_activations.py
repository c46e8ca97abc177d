"""Constants of activations against mpmath, and against what THEORY 3.6 lists."""

from __future__ import annotations

import copy
import math
import pickle

import mpmath
import pytest
import torch
from torch import nn

from zeroloss.networks import (
    ACTIVATIONS,
    Activation,
    Elementwise,
    activation_of,
    c_sigma,
    find_activation,
    fully_connected,
    gaussian_mean,
    gradient_gain,
    hard_tanh,
    leaky_relu,
    softplus,
    sup_curvature,
    sup_derivative,
)

mpmath.mp.dps = 40
REFERENCE = {
    "relu": lambda z: z if z > 0 else mpmath.mpf(0),
    "leaky_relu": lambda z: z if z > 0 else z * mpmath.mpf(0.01),
    "abs": abs,
    "hard_tanh": lambda z: max(mpmath.mpf(-1), min(mpmath.mpf(1), z)),
    "softplus": lambda z: mpmath.log(1 + mpmath.exp(z)),
    "tanh": mpmath.tanh,
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "erf": mpmath.erf,
    "gelu": lambda z: z * mpmath.ncdf(z),
    "swish": lambda z: z / (1 + mpmath.exp(-z)),
    "sin": mpmath.sin,
    "cos": mpmath.cos,
}
# THEORY 3.6, with tanh's ninth digit corrected; the piecewise linear ones in closed form
LISTED = {
    "relu": 2.0,
    "leaky_relu": 2 / (1 + 0.01**2),
    "abs": 1.0,
    "hard_tanh": 1 / (1 - math.sqrt(2 / math.pi) * math.exp(-0.5)),
    "softplus": 1.0854865030,
    "tanh": 2.5361754332,
    "sigmoid": 3.4085598416,
    "erf": 2.1525788606,
    "gelu": 2.3517156141,
    "swish": 2.8107611241,
    "sin": 2 / (1 - math.exp(-2)),
    "cos": 2 / (1 + math.exp(-2)),
}
SLOPES = {
    "relu": 1.0,
    "leaky_relu": 1.0,
    "abs": 1.0,
    "hard_tanh": LISTED["hard_tanh"] * math.erf(math.sqrt(0.5)),
    "softplus": 0.3185,
    "tanh": 1.1778,
    "sigmoid": 0.1528,
    "erf": 1.2257,
    "gelu": 1.0720,
    "swish": 1.0666,
    "sin": (1 + math.exp(-2)) / (1 - math.exp(-2)),
    "cos": (1 - math.exp(-2)) / (1 + math.exp(-2)),
}
SUPREMA = {
    "relu": (1.0, math.inf),
    "leaky_relu": (1.0, math.inf),
    "abs": (1.0, math.inf),
    "hard_tanh": (1.0, math.inf),
    "softplus": (1.0, 0.25),
    "tanh": (1.0, 0.7698003589),
    "sigmoid": (0.25, 1 / (6 * math.sqrt(3))),
    "erf": (2 / math.sqrt(math.pi), 0.9678828980),
    "gelu": (1.1289041451, 0.7978845608),
    "swish": (1.0998393201, 0.5),
    "sin": (1.0, 1.0),
    "cos": (1.0, 1.0),
}


def exact_mean(f, variance=1.0):
    root = mpmath.sqrt(variance)
    edges = sorted([-30, -10, -5, -2, -1 / root, 0, 1 / root, 2, 5, 10, 30])
    return mpmath.quad(lambda z: f(root * z) * mpmath.npdf(z), edges)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_c_sigma_is_the_inverse_second_moment(name):
    exact = 1 / exact_mean(lambda z: REFERENCE[name](z) ** 2)
    assert c_sigma(find_activation(name)) == pytest.approx(float(exact), rel=5e-14)
    assert c_sigma(find_activation(name)) == pytest.approx(LISTED[name], rel=1e-10)


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
    with pytest.raises(ValueError, match="did you mean 'relu'"):
        find_activation("rellu")


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.LeakyReLU(), "leaky_relu"),
        (nn.LeakyReLU(0.3), "leaky_relu(0.3)"),
        (nn.Hardtanh(-0.5, 2), "hard_tanh(-0.5, 2)"),
        (nn.ReLU6(), "hard_tanh(0, 6)"),
        (nn.Softplus(2), "softplus(2)"),
        (nn.Softplus(), "softplus"),
        (nn.GELU(approximate="tanh"), "gelu(tanh)"),
        (nn.SiLU(), "swish"),
        (nn.Hardsigmoid(), "hard_sigmoid"),
        (nn.Softshrink(0.3), "soft_shrink(0.3)"),
        (nn.ELU(2), "elu(2)"),
        (nn.SELU(), "selu"),
        (nn.Mish(), "mish"),
        (nn.Sigmoid(), "sigmoid"),
        (Elementwise(torch.sin), "sin"),
        (Elementwise(nn.ELU(0.5), (0.0,), "elu"), "elu"),
    ],
)
def test_a_layer_of_torch_is_read_with_its_own_numbers(layer, name):
    z = torch.linspace(-4, 7, 23, dtype=torch.float64)
    found = activation_of(layer)
    assert found.name == name
    assert torch.allclose(found.function(z), layer(z), rtol=0, atol=1e-13 if not isinstance(layer, nn.Softplus) else 1e-9)
    again = activation_of(found.module())
    assert again == found
    assert torch.equal(again.function(z), found.function(z))


def test_one_set_of_numbers_is_one_activation():
    assert leaky_relu(0.3) is activation_of(nn.LeakyReLU(0.3))
    assert hard_tanh(-0.5, 2.0) is activation_of(nn.Hardtanh(-0.5, 2))
    assert softplus() is find_activation("softplus")
    assert activation_of(nn.PReLU()) is None


def test_functions_of_one_name_are_kept_apart():
    """What is cached for one must not be handed to the other, nor lost when a network is copied."""
    one, two = (Elementwise(f, (), "mine") for f in (torch.sin, torch.cos))
    values = [c_sigma(activation_of(layer)) for layer in (one, two)]
    exact = [2 / (1 - math.exp(-2)), 2 / (1 + math.exp(-2))]  # E sin^2 and E cos^2
    assert values == pytest.approx(exact, rel=1e-13)
    assert activation_of(copy.deepcopy(one)) == activation_of(one) != activation_of(two)
    assert activation_of(pickle.loads(pickle.dumps(two))) == activation_of(two)


class Bent(nn.Module):
    def forward(self, x):
        return torch.where(x > 0.3, 2 * x - 0.3, x)


@pytest.mark.parametrize(
    "given", [Activation("bent", Bent, (0.3,)), Activation("bent", lambda x: torch.where(x > 0.3, 2 * x - 0.3, x), (0.3,))]
)
def test_an_activation_of_yours_goes_where_a_name_goes(given):
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    net = fully_connected(4, 8, 1, activation=given, scheme="du")
    assert net.architecture.activation == "bent"
    assert activation_of(net.sigma1) == given
    hidden = x @ net.W1.weight.T
    expected = math.sqrt(c_sigma(given) / 8) * torch.where(hidden > 0.3, 2 * hidden - 0.3, hidden) @ net.a.weight.T
    assert torch.allclose(net(x), expected, rtol=1e-13)
    # E sigma^2 = 1 + E[(z - c)_+ (3z - c)] over the half-line, by hand
    c = mpmath.mpf("0.3")
    second = 1 + mpmath.quad(lambda z: (z - c) * (3 * z - c) * mpmath.npdf(z), [c, 2, 5, 30])
    assert c_sigma(given) == pytest.approx(float(1 / second), rel=1e-13)


@pytest.mark.parametrize(
    ("function", "kinks", "said"),
    [
        (lambda z: torch.softmax(z, -1), (), "mixes its entries"),
        (lambda z: z - z.mean(), (), "mixes its entries"),
        (lambda z: z.roll(1), (), "mixes its entries"),
        (lambda z: z.sum(), (), r"maps \(4001,\) in float64 to \(\)"),
        (lambda z: z.float(), (), "in float32; keep shape and dtype"),
        (lambda z: z.numpy(), (), "returns ndarray|fails"),
        (torch.log, (), "returns NaN or infinity"),
        (lambda z: torch.exp(z**2), (), "returns NaN or infinity at |z| = 26"),
        (lambda z: 0 * z, (), "is the constant 0"),
        (torch.ones_like, (), "cannot be differentiated"),
        (lambda z: 0 * z + 2, (), "is the constant 2"),
        (lambda z: z + torch.rand_like(z), (), "another value each time"),
        (torch.sign, (0.0,), "jumps at its kink 0"),
        (lambda z: torch.sign(z - 0.123) + z, (), "jumps near 0.123"),
        (torch.relu, (), r"has a kink near 0 that kinks=\(\) does not list; list it"),
        (lambda z: (z - 0.123).abs() + torch.relu(z), (0.0,), r"has a kink near 0.123 that kinks=\(0.0,\)"),
        (nn.PReLU, (0.0,), "has parameters of its own"),
        (lambda z: z.matmul(z), (), "maps|fails"),
        (lambda z: torch.sqrt(z.abs()), (0.0,), "no finite derivative at |z| = 0"),
    ],
)
def test_what_has_no_limit_is_refused(function, kinks, said):
    with pytest.raises(ValueError, match=said) as caught:
        find_activation(Activation("mine", function, kinks))
    assert "activation 'mine'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_kinks_must_be_numbers():
    with pytest.raises(ValueError, match="kinks is"):
        Activation("mine", torch.relu, (math.nan,))


def test_suprema_of_functions_of_yours():
    """An unbounded derivative is infinite, a bend without a corner is finite, and a slow approach is followed out."""
    assert sup_derivative(Activation("square", torch.square)) == math.inf
    assert sup_curvature(Activation("elu", nn.ELU, (0.0,))) == pytest.approx(1.0, rel=1e-6)
    assert sup_curvature(Activation("selu", nn.SELU, (0.0,))) == math.inf
    slow = Activation("slow", lambda z: z * torch.atan(z))
    assert sup_derivative(slow) == pytest.approx(math.pi / 2, rel=1e-12)
