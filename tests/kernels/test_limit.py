"""Limit kernels against wide finite networks (DU-01), closed forms, plain torch modules, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.cases import CASES, Case, rows
from zeroloss import fully_connected, gram, limit_kernel
from zeroloss.gram import layer_grams
from zeroloss.kernels import layer_kernels
from zeroloss.networks import GaussianLinear, Residual, Scale


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def closed_form_allen_zhu(x: torch.Tensor, depth: int, width: int, outputs: int) -> torch.Tensor:
    """THEORY 1.3, written out once more from the formula: K = m/(2d) sum_l S^l prod_{l'>=l} kappa_0."""
    kappa0 = lambda r: (math.pi - torch.arccos(r)) / math.pi  # noqa: E731
    kappa1 = lambda r: ((1 - r**2).clamp(min=0).sqrt() + (math.pi - torch.arccos(r)) * r) / math.pi  # noqa: E731
    s = [(x @ x.T).clamp(-1, 1)]
    for _ in range(depth + 1):
        s.append(kappa1(s[-1]).clamp(-1, 1))
    total = torch.zeros_like(s[0])
    for layer in range(1, depth + 1):
        product = torch.ones_like(total)
        for later in range(layer, depth + 1):
            product = product * kappa0(s[later])
        total += s[layer] * product
    return width / (2 * outputs) * total


@pytest.mark.parametrize("depth", [1, 3, 10])
def test_allen_zhu_against_the_closed_form(depth):
    x = rows(7, 5)
    ours = limit_kernel(fully_connected(5, 16, depth, 3))(x)
    assert torch.allclose(ours, closed_form_allen_zhu(x, depth, 16, 3), rtol=1e-7)
    assert ours.diagonal().tolist() == pytest.approx([16 * depth / 6] * 7, rel=2e-15 * depth)


@pytest.mark.parametrize("depth", [1, 3, 10])
def test_two_close_points_follow_the_law(depth):
    r"""lambda_min(K) = (m/2d)(delta/pi) L(L+1)/2 for L delta << 1 (THEORY 1.11)."""
    delta = 1e-4
    x = torch.tensor([[1.0, 0.0], [math.cos(delta), math.sin(delta)]], dtype=torch.float64)
    smallest = float(torch.linalg.eigvalsh(limit_kernel(fully_connected(2, 2, depth))(x))[0])
    assert smallest == pytest.approx(delta / math.pi * depth * (depth + 1) / 2, rel=0.02)


@pytest.mark.parametrize("case", [c for c in CASES if c.activation in ("relu", "softplus", "erf")], ids=str)
def test_du_01_finite_networks_tend_to_the_limit(case):
    """The mean of 4 draws at m = 4096 within 5 % of the limit, total and layer by layer (DU-01)."""
    x = rows(8, 10)
    parts: dict[str, torch.Tensor] = {}
    for seed in range(4):
        for name, part in layer_grams(case.build(10, 4096, 2, seed=seed), x).items():
            parts[name] = parts.get(name, torch.zeros_like(part)) + part / 4
    limits = layer_kernels(case.build(10, 4096, 2), x)
    assert list(parts) == list(limits)
    assert relative(torch.stack(list(parts.values())).sum(0), torch.stack(list(limits.values())).sum(0)) < 0.05
    for name, part in parts.items():
        assert relative(part, limits[name]) < 0.12, name


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_unequal_norms_too(activation):
    """DU's ResNet with rows of norm 0.5 to 1.5, where the printed cross terms would differ (THEORY 3.7, T2)."""
    x = rows(6, 10, unit=False)
    case = Case("resnet", "du", activation)
    mean = torch.stack([gram(case.build(10, 2048, 3, seed=s), x) for s in range(6)]).mean(0)
    assert relative(mean, limit_kernel(case.build(10, 2048, 3))(x)) < 0.04


def test_kinds_fit_together():
    net, x = fully_connected(5, 32, 3, scheme="du", activation="erf"), rows(6, 5)
    parts = layer_kernels(net, x)
    assert torch.allclose(sum(parts.values()), limit_kernel(net)(x), rtol=1e-14)
    assert torch.equal(limit_kernel(net, "last-hidden")(x), parts["W3"])
    assert torch.allclose(limit_kernel(net, "nngp")(x), parts["a"], rtol=1e-14)  # G^(H+1) = S^H, and a has variance 1


def test_nngp_is_the_covariance_of_outputs():
    """Monte Carlo with a fixed budget: the second moment of outputs over 4000 draws, by a z-score."""
    x = rows(2, 4)
    outputs = torch.stack([fully_connected(4, 64, 1, scheme="du", activation="erf", seed=s)(x)[:, 0] for s in range(4000)])
    products = (outputs[:, :1] * outputs[:, 1:]).detach()
    exact = float(limit_kernel(fully_connected(4, 64, 1, scheme="du", activation="erf"), "nngp")(x)[0, 1])
    assert abs(float(products.mean()) - exact) < 4 * float(products.std()) / math.sqrt(4000)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_blocks_of_two_sets_are_blocks_of_one(case):
    x = rows(9, 6, unit=False)
    kernel = limit_kernel(case.build(6, 16, 3))
    whole = kernel(x)
    assert torch.allclose(kernel(x[:4], x[4:]), whole[:4, 4:], rtol=1e-11)
    assert torch.equal(whole, whole.T)
    vectors = np.random.default_rng(0).standard_normal((9, 3))
    assert np.allclose(kernel.operator(x) @ vectors, whole.numpy() @ vectors, rtol=1e-10)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_near_duplicates_leave_no_negative_eigenvalue(case):
    x = rows(20, 6)
    x = torch.cat([x, torch.nn.functional.normalize(x + 1e-6 * rows(20, 6, seed=1))])
    kernel = limit_kernel(case.build(6, 16, 3))(x)
    smallest = float(torch.linalg.eigvalsh(kernel)[0])
    assert smallest > -1e-13 * float(kernel.trace())


def test_a_plain_torch_module_with_torchs_own_draw():
    """Default Linear layers with biases: the mean over draws against the limit, widths entering as factors."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(6, 1024), nn.ReLU(), nn.Sequential(nn.Linear(1024, 1024), nn.Tanh()), nn.Linear(1024, 1)
        ).double()

    x = rows(6, 6, unit=False)
    torch.manual_seed(0)
    mean = torch.stack([gram(build(), x) for _ in range(6)]).mean(0)
    assert relative(mean, limit_kernel(build())(x)) < 0.05


def test_uniform_first_layers_are_not_gaussian_at_any_width():
    """What the docstring owns up to: torch's uniform draw, one input, per cents off however wide; our draw is not."""
    x = torch.linspace(0.5, 1.5, 5, dtype=torch.float64)[:, None]
    gaps = {}
    for name, first in (("torch", nn.Linear), ("ours", None)):
        total = []
        for seed in range(2):
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            layer = first(1, 50_000) if first else GaussianLinear(1, 50_000, variance=1 / 3, generator=generator)
            net = nn.Sequential(layer, nn.Tanh(), nn.Linear(50_000, 1)).double()
            total.append(gram(net, x))
        gaps[name] = relative(torch.stack(total).mean(0), limit_kernel(net)(x))
    assert 0.03 < gaps["torch"] < 0.15
    assert gaps["ours"] < 0.02


def test_biases_count_in_the_tangent_kernel():
    """One linear layer with a bias: K = x.x' + 1 exactly, at any width."""
    x = rows(4, 3)
    assert torch.allclose(limit_kernel(nn.Linear(3, 7))(x), x @ x.T + 1, rtol=1e-13)
    assert torch.allclose(gram(nn.Linear(3, 7).double(), x), x @ x.T + 1, rtol=1e-13)


def test_frozen_layers_are_left_out_of_both():
    net = fully_connected(6, 2048, 2, scheme="du", activation="erf")
    net.W1.weight.requires_grad_(False)
    x = rows(6, 6)
    assert list(layer_kernels(net, x)) == ["W2", "a"]
    assert relative(gram(net, x), limit_kernel(net)(x)) < 0.1


def test_out_and_dtypes():
    net, x = fully_connected(5, 8, 2), rows(4, 5)
    out = torch.empty(4, 4, dtype=torch.float64)
    assert limit_kernel(net)(x, out=out) is out
    assert torch.equal(out, limit_kernel(net)(x))
    assert limit_kernel(net)(x.float()).dtype == torch.float32
    assert limit_kernel(net)(torch.tensor([[1, 2, 3, 4, 5]])).dtype == torch.float64


def test_one_row_and_zero_rows():
    net = fully_connected(3, 8, 2)
    x = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    kernel = limit_kernel(net)(x)
    assert torch.isfinite(kernel).all()
    assert float(kernel[0].abs().max()) == 0.0
    assert limit_kernel(net)(x[1:]).shape == (1, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, x: k(x[0]), "x1 has shape"),
        (lambda k, x: k(x.half()), "float16"),
        (lambda k, x: k(x, x[:, :2]), "x2 has 2 columns where x1 has 5"),
        (lambda k, x: k(x[:, :2]), "expects 5 features at 'A' but gets 2"),
        (lambda k, x: k(torch.where(x == x[0, 0], torch.nan, x)), r"NaN or infinity in 1 rows \(first: row 0\)"),
        (lambda k, x: k(x, out=torch.empty(2, 2, dtype=torch.float64)), "out has shape"),
    ],
)
def test_bad_rows_are_named(call, message):
    kernel = limit_kernel(fully_connected(5, 8, 2))
    with pytest.raises(ValueError, match=message):
        call(kernel, rows(4, 5))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8)), r"by its own batch .BatchNorm1d at '1'"),
        (nn.Sequential(nn.ReLU(), nn.Linear(5, 8)), "something that is not a Gaussian pre-activation"),
        (nn.Sequential(nn.Linear(5, 8), Residual(Scale(2.0))), "carries its own input through"),
        (nn.Sequential(nn.Linear(5, 8), Residual(nn.Linear(8, 9))), "from 8 to 9 features"),
        (nn.Sequential(nn.Linear(5, 8), Residual(Residual(nn.Linear(8, 8)))), "carries its own input through"),
    ],
)
def test_modules_without_a_limit_are_named(module, message):
    with pytest.raises(ValueError, match=message):
        limit_kernel(module)(rows(3, 5))
    with pytest.raises(ValueError, match="did you mean 'ntk'"):
        limit_kernel(module, "ntkk")
