"""Sampled limits: AZ's residual networks against an evolved density, an explicit twin, and wide finite networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.cases import rows
from zeroloss import fully_connected, gram, limit_kernel, resnet
from zeroloss.gram import layer_grams
from zeroloss.kernels import layer_kernels
from zeroloss.kernels.replicates import needs_particles
from zeroloss.networks import GaussianLinear, Residual, Scale


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def evolved_norms(tau: float, depth: int) -> list[float]:
    """E||h_l||^2/||h_0||^2 for l = 1..depth: the density of X_l on panels of Gauss-Legendre nodes, its atom at 0 kept apart."""
    x, w = np.polynomial.legendre.leggauss(16)
    edges = np.linspace(0, 14 * math.sqrt(2) * (1 + 2 * tau**2) ** (depth / 2), 121)
    half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    nodes, weights = (middle[:, None] + half[:, None] * x).ravel(), (half[:, None] * w).ravel()

    def normal(values: np.ndarray, s: float) -> np.ndarray:
        return np.exp(-((values / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))

    density, atom = normal(nodes, math.sqrt(2)), 0.5
    norms = [float((weights * density * nodes**2).sum())]
    assert norms[0] == pytest.approx(1, rel=1e-12)
    for _ in range(depth):
        s = tau * math.sqrt(2 * norms[-1])
        density = atom * normal(nodes, s) + normal(nodes[:, None] - nodes, s) @ (weights * density)
        atom = 1 - float((weights * density).sum())
        norms.append(float((weights * density * nodes**2).sum()))
    return norms[1:]


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("scale", ["1", "1/sqrt(L)"])
def test_norms_follow_the_evolved_density(depth, scale):
    """One input: second moments exact to quadrature, and within THEORY 1.10's bracket."""
    tau = 1.0 if scale == "1" else depth**-0.5
    kernel, x = limit_kernel(resnet(4, 64, depth, tau=scale), "nngp"), rows(1, 4)
    value, error = float(kernel(x)), float(kernel.standard_error(x))
    assert error < 1e-3 * value
    assert abs(value - evolved_norms(tau, depth)[-1]) < 5 * error
    assert (1 + tau**2) ** depth <= value <= (1 + 2 * tau**2) ** depth


@pytest.mark.parametrize(
    ("depth", "tau", "measured", "low", "high"),
    [(8, "1/L", 1.211, 1.132, 1.279), (8, "1/sqrt(L)", 4.12, 2.57, 5.96), (32, "1/sqrt(L)", 5.52, 2.68, 6.96)],
)
def test_norms_measured_on_single_networks(depth, tau, measured, low, high):
    """THEORY 1.11: one draw at m = 2048, which strays from its mean by some per cent."""
    value = float(limit_kernel(resnet(4, 64, depth, tau=tau), "nngp", particles=80_000)(rows(1, 4)))
    assert low <= value <= high
    assert value == pytest.approx(measured, rel=0.15)


def twin(x: torch.Tensor, depth: int, tau: float, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """AZ's ReLU ResNet (block 1, m = k = 1 in the units) with every particle's own tangent kernel kept, count x n x n.

    The second answer is the plausible wrong one: each layer's gates averaged by themselves, as if a coordinate had new ones.
    """
    generator = torch.Generator().manual_seed(seed)

    def gaussian(covariance: torch.Tensor) -> torch.Tensor:
        factor = torch.linalg.cholesky(covariance + 1e-12 * torch.eye(len(x)))
        return torch.randn(count, len(x), dtype=torch.float64, generator=generator) @ factor.T

    walk = gaussian(2 * x @ x.T).relu()
    own, wrong = torch.zeros(count, len(x), len(x), dtype=torch.float64), torch.zeros(len(x), len(x), dtype=torch.float64)
    for _ in range(depth):
        moments = walk.T @ walk / count
        before = walk + gaussian(2 * tau**2 * moments)
        gates = (before > 0).double()
        both = gates[:, :, None] * gates[:, None, :]
        own = both * (own + moments + 2 * tau**2 * own.mean(0))
        wrong = both.mean(0) * (wrong + moments + 2 * tau**2 * wrong)
        walk = before.relu()
    return own.mean(0), wrong


@pytest.mark.parametrize(("depth", "scale"), [(1, "1"), (3, "1"), (4, "1/sqrt(L)")])
def test_tangent_kernels_against_every_particles_own(depth, scale):
    """Each entry within 4.5 standard errors of an explicit twin; gates taken as independent miss by far more."""
    x, tau = rows(4, 3, unit=False), 1.0 if scale == "1" else depth**-0.5
    kernel = limit_kernel(resnet(3, 1, depth, tau=scale), particles=200_000)
    ours, error = kernel(x), kernel.standard_error(x)
    draws = [twin(x, depth, tau, 40_000, seed) for seed in range(8)]
    right, wrong = (torch.stack(values) for values in zip(*draws, strict=True))
    spread = (error**2 + right.var(dim=0) / len(right)).sqrt()
    assert float(((ours - right.mean(0)) / spread).abs().max()) < 4.5
    if depth > 1:
        assert float(((ours - wrong.mean(0)) / spread).abs().max()) > 6
        assert relative(wrong.mean(0), ours) > 0.03


FINITE = [
    {"tau": "1", "block": 1},
    {"tau": "1/sqrt(L)", "block": 2, "trained": "all"},
    {"tau": "1/L", "block": 3},
    {"tau": "1", "block": 1, "last_plain": True},
    {"tau": "1/sqrt(L)", "block": 1, "activation": "erf", "trained": "all"},
]


def gaps(options: dict, x: torch.Tensor, width: int, draws: int, outputs: int) -> tuple[float, float]:
    """The mean over draws against the limit, relative: total, and the worst layer. Many outputs average B's fluctuation away."""
    parts: dict[str, torch.Tensor] = {}
    for seed in range(draws):
        for name, part in layer_grams(resnet(10, width, 3, outputs, seed=seed, **options), x).items():
            parts[name] = parts.get(name, torch.zeros_like(part)) + part / draws
    limits = layer_kernels(resnet(10, width, 3, outputs, **options), x, particles=200_000)
    assert list(parts) == list(limits)
    total = relative(torch.stack(list(parts.values())).sum(0), torch.stack(list(limits.values())).sum(0))
    return total, max(relative(part, limits[name]) for name, part in parts.items())


@pytest.mark.parametrize("options", FINITE, ids=str)
def test_finite_networks_tend_to_the_limit(options):
    total, worst = gaps(options, rows(6, 10, unit=False), width=1024, draws=3, outputs=16)
    assert total < 0.08
    assert worst < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("options", FINITE, ids=str)
def test_du_01_wide_finite_networks(options):
    """The mean of 4 draws at m = 4096 within 5 % of the limit (DU-01)."""
    total, worst = gaps(options, rows(8, 10), width=4096, draws=4, outputs=16)
    assert total < 0.05
    assert worst < 0.12


def test_branches_and_sums_of_any_shape():
    """A branch that ends in an activation with a mean, a scale after the skip, a skip inside a branch: finite networks decide."""

    def build(seed: int, m: int = 1024) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)

        def linear(inputs: int, outputs: int, variance: float) -> GaussianLinear:
            return GaussianLinear(inputs, outputs, variance=variance, generator=generator)

        inner = nn.Sequential(linear(m, m, 2 / m), nn.ReLU(), Residual(linear(m, m, 1 / m)), nn.ReLU())
        first = nn.Sequential(linear(6, m, 1.0), nn.Softplus(threshold=40))
        return nn.Sequential(first, Residual(inner), Scale(0.5), nn.Tanh(), nn.ReLU(), linear(m, 16, 1 / m))

    x = rows(5, 6, unit=False)
    limit = limit_kernel(build(0), particles=200_000)
    assert needs_particles(build(0))
    assert relative(torch.stack([gram(build(seed), x) for seed in range(4)]).mean(0), limit(x)) < 0.05


def test_an_activation_of_an_activation():
    """relu(relu(u)) = relu(u), whose kernel has a closed form."""
    once = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 1))
    twice = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.ReLU(), nn.Linear(32, 1))
    x = rows(6, 5, unit=False)
    sampled, exact = limit_kernel(twice), limit_kernel(once)
    z = (sampled(x) - exact(x)) / sampled.standard_error(x)
    assert 0.2 < float((z**2).mean()) < 4
    assert torch.equal(exact.standard_error(x), torch.zeros(6, 6, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_standard_errors_are_honest(kind):
    """Two seeds differ by what their standard errors say, and four times the particles halve it."""
    net, x = resnet(5, 8, 3, tau="1/sqrt(L)"), rows(5, 5, unit=False)
    few = [limit_kernel(net, kind, seed=seed, particles=4_000) for seed in range(8)]
    many = [limit_kernel(net, kind, seed=seed, particles=16_000) for seed in range(8)]
    values = torch.stack([kernel(x) for kernel in few])
    squares = torch.stack([kernel.standard_error(x) ** 2 for kernel in few])
    z = (values[::2] - values[1::2]) ** 2 / (squares[::2] + squares[1::2])
    assert 0.4 < float(z.mean()) < 2.2
    smaller = torch.stack([kernel.standard_error(x) ** 2 for kernel in many])
    assert 1.6 < float((squares.mean() / smaller.mean()).sqrt()) < 2.5


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_symmetric_positive_and_repeatable(activation):
    x = rows(12, 6)
    x = torch.cat([x, torch.nn.functional.normalize(x + 1e-6 * rows(12, 6, seed=1)), x[:2]])
    net = resnet(6, 16, 3, activation=activation, tau="1/sqrt(L)", trained="all")
    kernel = limit_kernel(net, particles=20_000)(x)
    assert torch.equal(kernel, kernel.T)
    assert float(torch.linalg.eigvalsh(kernel)[0]) > -1e-13 * float(kernel.trace())
    assert torch.equal(kernel, limit_kernel(net, particles=20_000)(x))
    assert not torch.equal(kernel, limit_kernel(net, seed=1, particles=20_000)(x))
    assert relative(kernel[:2], kernel[-2:]) < 1e-4  # duplicates


def test_near_duplicates_keep_their_distance():
    """Half distances of the outputs' covariance scale like the square of the inputs', far below what products resolve."""
    x = rows(2, 6)[:1]
    gap = {}
    for delta in (1e-3, 1e-6):
        pair = torch.cat([x, x * (1 + delta)])  # homogeneous: h(cx) = c h(x), so the gap is exactly delta^2 K_11
        kernel = limit_kernel(resnet(6, 16, 2, tau="1"), "nngp", particles=20_000)(pair)
        gap[delta] = float(kernel[0, 0] + kernel[1, 1] - 2 * kernel[0, 1]) / (delta**2 * float(kernel[0, 0]))
    assert gap[1e-3] == pytest.approx(1, rel=1e-3)
    assert gap[1e-6] == pytest.approx(1, rel=0.05)


def test_two_sets_operators_and_parts_agree():
    net, x = resnet(5, 16, 3, tau="1", last_plain=True, trained="all"), rows(8, 5, unit=False)
    kernel = limit_kernel(net, particles=40_000)
    whole, error = kernel(x), kernel.standard_error(x)
    block, its_error = kernel(x[:3], x[3:]), kernel.standard_error(x[:3], x[3:])
    assert block.shape == its_error.shape == (3, 5)
    assert torch.allclose(block, whole[:3, 3:], rtol=1e-9)  # the joint set is the same, and so are the particles
    assert torch.allclose(its_error, error[:3, 3:], rtol=1e-6)
    again = kernel(x[[5, 1]], x[[0, 2]]) - whole[[5, 1]][:, [0, 2]]
    assert float((again.abs() / error[[5, 1]][:, [0, 2]]).max()) < 6
    vectors = np.random.default_rng(0).standard_normal((8, 3))
    assert np.allclose(kernel.operator(x) @ vectors, whole.numpy() @ vectors, rtol=1e-12)
    parts = layer_kernels(net, x, particles=40_000)
    assert list(parts) == ["A", "block1.W1", "block2.W2", "W3", "B"]
    assert torch.allclose(sum(parts.values()), whole, rtol=1e-12)
    assert torch.allclose(limit_kernel(net, "last-hidden", particles=40_000)(x), parts["W3"], rtol=1e-12)
    assert torch.allclose(limit_kernel(net, "nngp", particles=40_000)(x), parts["B"], rtol=1e-12)  # variance of B is 1


def test_zero_rows_and_one_row():
    kernel = limit_kernel(resnet(3, 8, 2), particles=4_000)(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64))
    assert torch.isfinite(kernel).all()
    assert float(kernel[0].abs().max()) == 0.0
    assert limit_kernel(resnet(3, 8, 2), particles=4_000)(rows(1, 3).float()).dtype == torch.float32


def test_only_what_needs_particles_gets_them():
    assert needs_particles(resnet(3, 8, 2))
    assert not needs_particles(resnet(3, 8, 2, scheme="du"))
    assert not needs_particles(fully_connected(3, 8, 2))
    assert not needs_particles(
        nn.Sequential(nn.Linear(3, 8), Residual(nn.ReLU(), nn.Linear(8, 8)), nn.ReLU())
    )  # Gaussian + Gaussian
    with pytest.raises(ValueError, match="particles is 3; pass at least 16"):
        limit_kernel(resnet(3, 8, 2), particles=3)
