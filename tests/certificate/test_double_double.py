"""Pairs of float64 against 50 digits, and networks in them against the network in long arithmetic."""

from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zeroloss import cnn, conv_resnet, fully_connected, resnet
from zeroloss.certificate.double_double import Pair, product, two_product, two_sum
from zeroloss.certificate.polish_extended import extended_outputs
from zeroloss.certificate.polish_functions import erf, exp, function_of, sigmoid, softplus, tanh
from zeroloss.networks import ACTIVATIONS

EXACT = mpmath.mp.clone()
EXACT.dps = 60
FUNCTIONS = {
    "exp": (exp, EXACT.exp),
    "softplus": (softplus, lambda t: EXACT.log1p(EXACT.exp(t))),
    "tanh": (tanh, EXACT.tanh),
    "sigmoid": (sigmoid, lambda t: 1 / (1 + EXACT.exp(-t))),
    "erf": (erf, EXACT.erf),
    "gelu": (function_of(nn.GELU()), lambda t: t * (1 + EXACT.erf(t / EXACT.sqrt(2))) / 2),
    "silu": (function_of(nn.SiLU()), lambda t: t / (1 + EXACT.exp(-t))),
    "leaky": (function_of(nn.LeakyReLU(0.3)), lambda t: t if t > 0 else t * EXACT.mpf(0.3)),
    "hard tanh": (function_of(nn.Hardtanh(-0.5, 2.0)), lambda t: min(max(t, EXACT.mpf(-0.5)), EXACT.mpf(2))),
}
ordinary = st.floats(-1e100, 1e100).filter(lambda v: v == 0 or abs(v) > 1e-100)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def exact(pair: Pair) -> list[mpmath.mpf]:
    return [
        EXACT.mpf(h) + EXACT.mpf(low) for h, low in zip(pair.high.flatten().tolist(), pair.low.flatten().tolist(), strict=True)
    ]


@given(a=ordinary, b=ordinary)
def test_errors_of_sum_and_product_are_exact(a, b):
    context = mpmath.mp.clone()
    context.prec = 2200
    for transform, whole in ((two_sum, context.mpf(a) + b), (two_product, context.mpf(a) * b)):
        high, low = transform(scalar(a), scalar(b))
        assert context.mpf(high.item()) + context.mpf(low.item()) == whole


@given(a=st.floats(0.1, 10), b=st.floats(0.1, 10), c=st.floats(0.1, 10))
def test_arithmetic_has_thirty_digits(a, b, c):
    p, q = Pair(*two_sum(scalar(a), scalar(b * 1e-17))), Pair(*two_sum(scalar(b), scalar(c * 1e-17)))
    (x,), (y,) = exact(p), exact(q)
    for got, wanted in ((p + q, x + y), (p - q, x - y), (p * q, x * y), (p / q, x / y), (p * c, x * c), (p + c, x + c)):
        assert abs(exact(got)[0] - wanted) <= EXACT.mpf(2) ** -100 * (x * y + x + y + x / y + 100)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_29_digits(name):
    ours, theirs = FUNCTIONS[name]
    z = torch.cat([torch.linspace(-12, 12, 61), torch.tensor([0.0, 1e-9, -30.0, 40.0, -750.0, 0.5, 8.5, -8.6])]).double()
    points = Pair(z, 3e-17 * z)
    for got, at in zip(exact(ours(points)), exact(points), strict=True):
        assert abs(got - theirs(at)) <= 1e-29 * (1 + abs(theirs(at)))


@pytest.mark.parametrize("inner", [1, 7, 300])
def test_matrix_products_keep_their_stated_error(inner):
    a, b = (torch.randn(shape, dtype=torch.float64) for shape in ((4, inner), (inner, 3)))
    a[1] *= 1e12  # rows of very different size
    a[2, 0] = 0.0
    left = Pair(a, 1e-17 * a)
    got, factors = product(left, Pair.of(b)), exact(left)
    for i in range(4):
        for j in range(3):
            wanted = sum(factors[i * inner + m] * EXACT.mpf(b[m, j].item()) for m in range(inner))
            bound = 2.0**-66 * inner * float(a[i].abs().max()) * float(b[:, j].abs().max())
            assert abs(EXACT.mpf(got.high[i, j].item()) + EXACT.mpf(got.low[i, j].item()) - wanted) <= bound


def test_plain_products_would_not():
    a, b = torch.randn(1, 300, dtype=torch.float64), torch.randn(300, 1, dtype=torch.float64)
    assert float((product(Pair.of(a), Pair.of(b)) - Pair.of(a @ b)).rounded().abs()) > 1e-16


IMAGES = torch.randn(3, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
KNOWN = [a for a in ACTIVATIONS if a not in ("sin", "cos")]
SCHEMES = ("du", "allen-zhu")


def pooled(mode: str) -> nn.Sequential:
    first = nn.Conv2d(2, 5, (3, 2), stride=2, dilation=2, padding=2, padding_mode=mode)
    rest = (nn.AvgPool2d(2), nn.Conv2d(5, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout().eval(), nn.Linear(3, 2))
    return nn.Sequential(first, nn.Tanh(), *rest).double()


NETWORKS = [
    *((f"{a} {s}", fully_connected(7, 9, 2, 2, scheme=s, activation=a), ROWS) for a in KNOWN for s in SCHEMES),
    *((f"{make.__name__} {s}", make((2, 6, 6), 4, 3, 2, scheme=s), IMAGES) for make in (cnn, conv_resnet) for s in SCHEMES),
    *((f"resnet {s}", resnet(7, 6, 3, 2, scheme=s), ROWS) for s in SCHEMES),
    *((mode, pooled(mode), IMAGES) for mode in ("zeros", "circular", "reflect", "replicate")),
    ("same", nn.Sequential(nn.Conv2d(2, 3, 3, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(108, 1)).double(), IMAGES),
]


@pytest.mark.parametrize(("net", "x"), [pytest.param(net, x, id=name) for name, net, x in NETWORKS])
def test_outputs_agree_with_float64_and_with_themselves(net, x):
    found = extended_outputs(net, x, 2)
    assert found is not None
    plain = net(x).detach()
    assert float((found.rounded() - plain).abs().max()) < 1e-14 * float(plain.abs().max() + 1)
    again = extended_outputs(net, x, len(x))
    assert float((found - again).rounded().abs().max()) < 1e-24


def test_a_two_layer_network_to_25_digits():
    net = fully_connected(7, 9, 1, 1, scheme="du", activation="softplus")
    found = exact(extended_outputs(net, ROWS, 5))
    weights = [[[EXACT.mpf(v) for v in row] for row in w.tolist()] for w in (net.W1.weight, net.a.weight)]
    for i, row in enumerate(ROWS.tolist()):
        z = [sum(w * EXACT.mpf(v) for w, v in zip(unit, row, strict=True)) for unit in weights[0]]
        f = sum(a * EXACT.log1p(EXACT.exp(v)) for a, v in zip(weights[1][0], z, strict=True)) * EXACT.mpf(net.scale1.factor)
        assert abs(found[i] - f) < 1e-25


@pytest.mark.parametrize(
    "net",
    [nn.LayerNorm(7), nn.Sequential(nn.Linear(7, 7), nn.Mish()), nn.GELU(approximate="tanh"), nn.Softplus(beta=2.0), nn.PReLU(),
     nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(7, 2))), nn.Conv2d(2, 2, 3, groups=2), nn.Dropout()],
)  # fmt: skip
def test_what_is_not_known_is_not_guessed(net):
    assert extended_outputs(net.double(), ROWS, 5) is None


def test_a_hooked_layer_is_not_what_its_class_says():
    layer = nn.Linear(7, 1).double()
    layer.register_forward_hook(lambda *_: torch.zeros(5, 1))
    assert extended_outputs(layer, ROWS, 5) is None


def test_a_subclass_with_a_forward_of_its_own_is_not_known():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    class Own(nn.Sequential):
        def forward(self, x):
            return 2 * super().forward(x)

    assert extended_outputs(Doubled(7, 1).double(), ROWS, 5) is None
    assert extended_outputs(Own(nn.Linear(7, 1)).double(), ROWS, 5) is None
