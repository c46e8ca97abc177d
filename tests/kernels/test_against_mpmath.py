"""Fully connected limit kernels against 40 digits, at every angle from one row twice to its opposite: what both precisions promise.

Errors are absolute, relative to the diagonal. Rows are made first and the reference takes them as they are, so that an error of
forming them is no error of the kernel; a float32 row is exact in the reference too.
"""

from __future__ import annotations

import math
from itertools import product

import mpmath as mp
import pytest
import torch
from torch import nn

from tests.kernels.mp_reference import VERSINES, dual, mp_errors, mp_kernel, others, rows_at
from zeroloss import fully_connected, limit_kernel, resnet
from zeroloss.networks import Erf

ALLOWED = {torch.float64: 1e-13, torch.float32: 4e-6}
DEPTHS = (1, 3, 10, 30)
CROWD = 70  # rows beside the judged ones, with which a kernel is large enough for a curve
STRETCHED = [
    *((a, d) for a in ("relu", "erf") for d in DEPTHS),
    ("gelu", 1),
    ("gelu", 3),
    ("gelu", 10),
]  # at 30 gelu's norms explode
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
FEW = (0.0, 1e-12, 1e-4, 0.5, 1.0, 1.9, 2 - 1e-4, 2 - 1e-12, 2.0)


def worst(module, kind, x, y):
    """The largest error over the pairs, in three ways of asking: pairs within one set, between two sets, and the diagonal."""
    kernel = limit_kernel(module, kind)
    n = len(x)
    crowd = others(CROWD, x)
    # a few pairs take the recursion itself; among many rows the same pairs go through its curve
    ways = {
        "few": (kernel(torch.cat([x, y])), kernel(x, y)),
        "many": (kernel(torch.cat([x, y, crowd])), kernel(torch.cat([x, crowd]), torch.cat([y, crowd]))),
    }
    for within, between in ways.values():
        assert within.dtype == between.dtype == x.dtype
        assert torch.equal(within, within.T)
    errors = []
    for i in range(n):
        asked = {}
        for way, (within, between) in ways.items():
            asked |= {f"within {way}": (1, within[i, n + i]), f"between {way}": (1, between[i, i])}
            asked |= {f"diagonal of {way}": (0, within[i, i]), f"second diagonal of {way}": (2, within[n + i, n + i])}
        found = mp_errors(mp_kernel(module, kind, x[i], y[i]), *((which, float(value)) for which, value in asked.values()))
        errors += [(error, f"{way} of pair {i}") for error, way in zip(found, asked, strict=True)]
    return max(errors)


def excess(module, kind, dtype, versines=FEW, stretch=1.0):
    """The largest error over the one allowed, and of which pair it is."""
    x, y = rows_at(versines, dtype=dtype, stretch=stretch)
    error, where = worst(module, kind, x, y)
    return error / ALLOWED[dtype], f"{error:.1e} of the diagonal {where}, 1 - c = {versines[int(where.split()[-1])]:.17g}"


@DTYPES
@pytest.mark.parametrize(
    ("activation", "depth"), [*product(("relu", "erf", "gelu"), DEPTHS), *product(("leaky_relu", "abs"), (1, 10))]
)
def test_equal_norms(activation, depth, dtype):
    net = fully_connected(20, 8, depth, activation=activation, scheme="du")
    error, where = excess(net, "ntk", dtype, VERSINES if dtype == torch.float64 else FEW)
    # DU's erf doubles a rounding every three or four layers
    assert error <= (3 if (activation, depth) == ("erf", 30) else 1), where


@DTYPES
@pytest.mark.parametrize("kind", ["nngp", "last-hidden"])
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_other_kinds(activation, kind, dtype):
    error, where = excess(fully_connected(20, 8, 10, activation=activation, scheme="du"), kind, dtype)
    assert error <= 1, where


@DTYPES
@pytest.mark.parametrize("depth", [1, 10])
def test_allen_zhu(depth, dtype):
    error, where = excess(fully_connected(20, 8, depth, 3), "ntk", dtype)
    assert error <= 1, where


@DTYPES
@pytest.mark.parametrize(("activation", "depth"), STRETCHED)
def test_unequal_norms(activation, depth, dtype):
    """Norms of 2/3 and 3/2: a homogeneous activation factors them out; others carry two diagonals, and every layer may round."""
    net = fully_connected(20, 8, depth, activation=activation, scheme="du")
    error, where = excess(net, "ntk", dtype, stretch=1.5)
    assert error <= (1 if activation == "relu" else max(1, depth / 10)), where


@DTYPES
@pytest.mark.parametrize("stretch", [1.0, 1.5])
@pytest.mark.parametrize("depth", [1, 3, 30])
@pytest.mark.parametrize("activation", [nn.ReLU, Erf])
def test_biases_and_torchs_own_draw(activation, depth, stretch, dtype):
    layers = [nn.Linear(20, 8), activation()]
    for _ in range(depth - 1):
        layers += [nn.Linear(8, 8), activation()]
    error, where = excess(nn.Sequential(*layers, nn.Linear(8, 1)), "ntk", dtype, stretch=stretch)
    assert error <= 1, where


@DTYPES
@pytest.mark.parametrize("stretch", [1.0, 1.5])
@pytest.mark.parametrize("depth", [2, 10])
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_du_resnet(activation, depth, stretch, dtype):
    error, where = excess(resnet(20, 8, depth, activation=activation, scheme="du"), "ntk", dtype, stretch=stretch)
    assert error <= 1, where


@DTYPES
@pytest.mark.parametrize("activation", ["softplus", "tanh"])
def test_smooth_activations_by_quadrature(activation, dtype):
    net = fully_connected(20, 8, 1, activation=activation, scheme="du")
    x, y = rows_at((1e-6, 0.5), dtype=dtype)
    ours = limit_kernel(net)(x, y)
    for i in range(2):
        assert mp_errors(mp_kernel(net, "ntk", x[i], y[i]), (1, float(ours[i, i])))[0] <= ALLOWED[dtype]


@pytest.mark.slow
@DTYPES
@pytest.mark.parametrize("depth", [3, 10])
def test_deep_softplus_by_quadrature(depth, dtype):
    net = fully_connected(20, 8, depth, activation="softplus", scheme="du")
    x, y = rows_at((1e-10, 0.5, 2 - 1e-10), dtype=dtype)
    ours = limit_kernel(net)(x, y)
    for i in range(3):
        assert mp_errors(mp_kernel(net, "ntk", x[i], y[i]), (1, float(ours[i, i])))[0] <= ALLOWED[dtype]


def test_frozen_layers_count_in_neither():
    net = fully_connected(20, 8, 3, scheme="du", trained=["W2"])
    x, y = rows_at(FEW)
    assert worst(net, "ntk", x, y)[0] <= ALLOWED[torch.float64]


def test_many_features_and_many_rows():
    """At 784 features and more rows than a tile, where a matrix product forms the cosines: near duplicates within and across tiles."""
    net = fully_connected(784, 8, 3, scheme="du")
    generator = torch.Generator().manual_seed(1)
    x = torch.nn.functional.normalize(torch.randn(600, 784, dtype=torch.float64, generator=generator))
    x[599] = torch.nn.functional.normalize(x[0] + 1e-5 * x[1], dim=0)
    x[1] = torch.nn.functional.normalize(x[2] + 1e-5 * x[3], dim=0)
    x[300] = -torch.nn.functional.normalize(x[4] + 1e-5 * x[3], dim=0)
    for dtype in (torch.float64, torch.float32):
        rows = x.to(dtype)
        ours = limit_kernel(net)(rows)
        for i, j in ((0, 599), (1, 2), (300, 4), (7, 8), (7, 530), (599, 599)):
            error = mp_errors(mp_kernel(net, "ntk", rows[i], rows[j]), (1, float(ours[i, j])))[0]
            assert error <= ALLOWED[dtype], f"{error:.1e} of the diagonal at {i}, {j}"


def test_the_reference_itself():
    """Its closed forms against its trapezoid rule, the papers' printed numbers, and a control that a wrong formula is seen."""
    with mp.workdps(30):
        a, s, b = mp.mpf("0.7"), mp.mpf("-0.3"), mp.mpf("1.6")
        half = mp.mpf(1) / 2
        for name, sigma, slope in (
            ("erf", mp.erf, lambda z: 2 / mp.sqrt(mp.pi) * mp.exp(-(z**2))),
            ("gelu", lambda z: z * mp.ncdf(z), lambda z: mp.ncdf(z) + z * mp.npdf(z)),
            ("relu", lambda z: max(z, 0), lambda z: half * (1 + mp.sign(z))),
        ):
            value, tilt = by_grid(sigma, slope, a, s, b)
            exact = dual(name, a, s, b)
            allowed = 1e-2 if name == "relu" else 1e-14  # a kink leaves a trapezoid rule few digits
            assert abs(value - exact[0]) < allowed
            assert abs(tilt - exact[1]) < allowed * 10
    net, x = fully_connected(2, 8, 3, 2), torch.eye(2, dtype=torch.float64)
    exact = mp_kernel(net, "ntk", x[0], x[1])
    assert float(exact[0]) == pytest.approx(8 * 3 / 4, rel=1e-15)  # mL/(2 d_out), THEORY 1.3
    assert mp_errors(exact, (1, float(exact[1]) * (1 + 1e-12)))[0] > ALLOWED[torch.float64]


def by_grid(sigma, slope, xx, xy, yy, step=0.3, reach=8):
    p, q = mp.sqrt(xx), mp.sqrt(yy)
    rho = xy / (p * q)
    r = mp.sqrt(1 - rho**2)
    grid = [mp.mpf(k) * step for k in range(-math.floor(reach / step), math.floor(reach / step) + 1)]
    weight = [step * mp.npdf(z) for z in grid]
    value = tilt = mp.mpf(0)
    for z, w in zip(grid, weight, strict=True):
        u = p * z
        points = [q * (rho * z + r * t) for t in grid]
        value += w * sigma(u) * mp.fdot(weight, [sigma(v) for v in points])
        tilt += w * slope(u) * mp.fdot(weight, [slope(v) for v in points])
    return value, tilt
