"""Functions that bend between their kinks: duals against a double integral cut at every kink, and finite networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.cases import rows
from tests.kernels.finite import worst_z
from zeroloss import limit_kernel
from zeroloss.kernels import layer_kernels
from zeroloss.kernels.dual import dual
from zeroloss.kernels.gains import gained_products
from zeroloss.kernels.pairs import Pairs, input_pairs
from zeroloss.networks import Activation, activation_of


def skew(z: torch.Tensor) -> torch.Tensor:
    """A kink at 0.5, none in the slope at -1 but one in the curvature."""
    return torch.where(z > 0.5, 1 + torch.sin(z - 0.5) / 2, torch.where(z < -1, torch.tanh(z + 1) - 0.5, z + 0.5))


def turning(z: torch.Tensor) -> torch.Tensor:
    """A kink at 0 between two curves."""
    return torch.where(z > 0, torch.sin(z / 2), torch.tanh(z) - 0.1 * z)


LAYERS = (nn.ELU(), nn.ELU(1.7), nn.CELU(0.5), nn.SELU(), nn.Softsign(), nn.Hardswish())
SHAPES = {s.name: s for s in map(activation_of, LAYERS)} | {
    "skew": Activation("skew", skew, (-1.0, 0.5)),
    "turning": Activation("turning", turning, (0.0,)),
}
NODES = [torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(16)]


def panels(edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    edges = edges.clamp(-9, 9).sort(dim=-1).values
    half, middle = (edges[..., 1:] - edges[..., :-1]) / 2, (edges[..., 1:] + edges[..., :-1]) / 2
    x = (middle[..., None] + half[..., None] * NODES[0]).flatten(-2)
    return x, (half[..., None] * NODES[1]).flatten(-2) * torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def exact(sigma: Activation, left: float, right: float, versine: float) -> list[float]:
    """Product, half distance, slope and gain: the slow obvious twin, on narrow panels that end where either variable bends."""
    p, q, rho, side = math.sqrt(left), math.sqrt(right), 1 - versine, math.sqrt(versine * (2 - versine))
    kinks = torch.tensor(sigma.kinks, dtype=torch.float64)
    grid = torch.linspace(-9, 9, 1 + 24 * round(max(p, q, 1)), dtype=torch.float64)
    edges = [grid, kinks / p]
    if rho != 0:
        edges += [(kinks / q + width * side) / rho for width in (-9, -6, -4, -2, -1, 0, 1, 2, 4, 6, 9)]
    x, outer = panels(torch.cat(edges))
    y, inner = panels(torch.cat([grid.expand(len(x), -1), (kinks / q - rho * x[:, None]) / side], 1))
    u, v, mass = (p * x)[:, None], q * (rho * x[:, None] + side * y), outer[:, None] * inner
    (fu, du), (fv, dv) = ((sigma.function(z), sigma.derivative(z)) for z in (u, v))
    return [float((mass * f).sum()) for f in (fu * fv, (fu - fv) ** 2 / 2, du * dv, u * du * v * dv)]


def pairs(versine: float, left: float, right: float) -> Pairs:
    t = lambda v: torch.tensor([v], dtype=torch.float64)  # noqa: E731
    return Pairs(t(left), t(right), t(versine)[:, None])


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("left", "right"), [(1.0, 1.0), (0.3, 2.5), (1.0, 1.0000001), (1e-2, 3.9)])
def test_against_a_double_integral(name, left, right):
    sigma = SHAPES[name]
    size = math.sqrt(left * right)
    for versine in (1e-10, 0.029, 0.031, 0.4, 1.0, 1.98):
        product, half, slope, gain = exact(sigma, left, right, versine)
        ours = dual(sigma, pairs(versine, left, right))
        assert float(ours.pairs.products) == pytest.approx(product, abs=1e-12 * float(ours.pairs.scale))
        assert float(ours.pairs.half_distances) == pytest.approx(half, rel=1e-10)
        assert float(ours.slope) == pytest.approx(slope, abs=1e-11)
        if sigma.kinks == (0.0,):
            assert float(gained_products(sigma, pairs(versine, left, right))) == pytest.approx(gain, abs=1e-11 * size)


@pytest.mark.parametrize("name", SHAPES)
def test_an_input_with_itself_and_places_apart(name):
    """Diagonals are exact, zero variances harmless, every pixel its own problem, and blocks those of the whole."""
    sigma, generator = SHAPES[name], torch.Generator().manual_seed(0)
    v = torch.rand(4, 2, 2, dtype=torch.float64, generator=generator) + 0.2
    v[1, 0, 0] = 0
    w = torch.rand(4, 4, 2, 2, dtype=torch.float64, generator=generator) + 0.05
    w[2, 3] = 1e-9
    w = w * (1 - torch.eye(4, dtype=torch.float64))[..., None, None]
    whole = dual(sigma, Pairs(v, v, w))
    assert torch.isfinite(whole.pairs.products).all()
    assert torch.equal(whole.pairs.half_distances[range(4), range(4)], torch.zeros(4, 2, 2, dtype=torch.float64))
    for place in ((0, 1), (1, 0)):
        at = (..., *place)
        alone = dual(sigma, Pairs(v[at], v[at], w[at]))
        assert torch.allclose(whole.pairs.products[at], alone.pairs.products, rtol=1e-12, atol=1e-14)
        assert torch.allclose(whole.slope[at], alone.slope, rtol=1e-12, atol=1e-14)
        assert torch.allclose(whole.mean_left[at], alone.mean_left, rtol=1e-12, atol=1e-14)


def test_a_kink_that_is_not_told_of_is_not_glossed_over():
    """ELU bends at 0 twice and passes for smooth, since its slope does not jump; its series then has not settled, and that is said."""
    with pytest.raises(ValueError, match="has not settled"):
        dual(Activation("elu", nn.ELU), pairs(0.5, 1.0, 1.0))


def test_a_function_too_steep_for_its_table_is_refused():
    with pytest.raises(ValueError, match=r"soft_sign is too steep.*divide the inputs by a number"):
        dual(activation_of(nn.Softsign()), pairs(0.5, 1e9, 1e9))


NETWORKS = {
    "elu": lambda w: [nn.ELU(), nn.Linear(w, w), nn.ELU()],
    "selu and hard swish": lambda w: [nn.SELU(), nn.Linear(w, w), nn.Hardswish()],
    "soft sign and mish": lambda w: [nn.Softsign(), nn.Linear(w, w), nn.Mish()],
    "normalised elu": lambda w: [nn.LayerNorm(w), nn.ELU(), nn.Linear(w, w), nn.LayerNorm(w), nn.SELU()],
    "shrinks": lambda w: [
        nn.Tanhshrink(),
        nn.Linear(w, w),
        nn.LogSigmoid(),
        nn.LayerNorm(w),
        nn.Linear(w, w),
        nn.Softshrink(0.2),
    ],
    "hard sigmoid and celu": lambda w: [nn.Hardsigmoid(), nn.Linear(w, w), nn.CELU(0.5)],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_finite_networks_tend_to_the_limit(name):
    x = 2 * rows(4, 6, unit=False)

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 512), *NETWORKS[name](512), nn.Linear(512, 1))

    limits = layer_kernels(build(), x)
    assert worst_z(limits, build, x, draws=24) < 4.5
    for other in ("elu", "soft sign and mish"):  # the control: another function's limit is far outside
        if other != name and len(NETWORKS[name](1)) == 3:
            wrong = layer_kernels(nn.Sequential(nn.Linear(6, 512), *NETWORKS[other](512), nn.Linear(512, 1)), x)
            assert worst_z(wrong, build, x, draws=8) > 8


def test_near_duplicates_leave_no_negative_eigenvalue():
    x = rows(12, 5)
    x = torch.cat([x, torch.nn.functional.normalize(x + 1e-6 * rows(12, 5, seed=1))])
    for layer in (nn.ELU(), nn.Softsign(), nn.Hardswish()):
        kernel = limit_kernel(nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 8), layer, nn.Linear(8, 1)))(x)
        assert float(torch.linalg.eigvalsh(kernel)[0]) > -1e-12 * float(kernel.trace())
        assert torch.allclose(kernel, kernel.T)
    assert input_pairs(x).versine.shape == (24, 24)
