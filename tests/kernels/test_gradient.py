"""Derivatives of homogeneous kernels in their inputs, against finite differences, and where there are none."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from tests.cases import rows
from zeroloss import fully_connected, limit_kernel
from zeroloss.kernels import LimitKernel
from zeroloss.networks import leaky_relu

ROWS = LimitKernel._rows


@pytest.fixture(autouse=True)
def _curves_for_few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LimitKernel, "_rows", lambda self, first, second, few=0: ROWS(self, first, second, few=0))


@cache
def kernel_of(activation: object, depth: int) -> LimitKernel:
    return limit_kernel(fully_connected(4, 8, depth, activation=activation))


def leaf(x: Tensor) -> Tensor:
    return x.clone().requires_grad_()


@pytest.mark.parametrize(("depth", "unit"), [(1, False), (2, True), (3, False)])
@pytest.mark.parametrize("activation", ["relu", leaky_relu(0.3), "abs"], ids=["relu", "leaky", "abs"])
def test_derivatives_are_those_of_finite_differences(activation, depth, unit):
    """In both places, in either alone, and of K(x, x) in x; for rows of one norm and of several."""
    kernel, x, y = kernel_of(activation, depth), rows(3, 4, unit=unit), 1.3 * rows(2, 4, seed=1, unit=unit)
    assert torch.autograd.gradcheck(kernel, (leaf(x), leaf(y)), atol=1e-6)
    assert torch.autograd.gradcheck(lambda a: kernel(a, y), (leaf(x),), atol=1e-6, fast_mode=True)
    assert torch.autograd.gradcheck(lambda b: kernel(x, b), (leaf(y),), atol=1e-6, fast_mode=True)
    assert torch.autograd.gradcheck(kernel, (leaf(x),), atol=1e-6)


def test_small_angles_keep_their_derivative():
    """ReLU, depth 1: d/dphi of K(phi) at an angle of 1e-6, where a cosine has no digits, from the kernel's own slope."""
    kernel, theta = kernel_of("relu", 1), 1e-6
    x = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    y = leaf(torch.tensor([[math.cos(theta), math.sin(theta), 0, 0]], dtype=torch.float64))
    kernel(x, y).sum().backward()
    scale = float(kernel(x))
    assert float(y.grad[0, 1]) == pytest.approx(-scale / math.pi, rel=1e-4)  # K = scale (1 - theta/pi + ...)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicates_opposites_and_zero_rows_have_finite_derivatives(dtype):
    """Along a row the kernel is linear, which fixes the derivative of a duplicate in its own direction."""
    kernel, x = kernel_of("relu", 2), rows(6, 4, unit=False)
    x[1], x[2], x[3], x[4] = x[0], -x[0], 0, 2 * x[0]
    x = leaf(x.to(dtype))
    values = kernel(x)
    values.sum().backward()
    assert x.grad.dtype == dtype
    assert torch.isfinite(x.grad).all()
    own = leaf(x.detach()[:1])
    kernel(own, x.detach()[1:2]).sum().backward()
    assert torch.allclose(own.grad, values[:1, :1].detach() * own.detach() / own.detach().norm() ** 2, rtol=1e-5, atol=0)


def test_the_gradient_is_weighed_by_what_comes_from_above():
    """Of a sum of squares over the entries: homogeneous of degree 4, so that <x, grad> is 4 times the value (Euler)."""
    kernel, x = kernel_of("relu", 3), leaf(rows(7, 4, unit=False))
    total = kernel(x).square().sum()
    total.backward()
    assert float((x.grad * x.detach()).sum()) == pytest.approx(4 * float(total.detach()), rel=1e-10)


def test_values_in_the_graph_are_the_kernels():
    """And inside no_grad, or for detached inputs, there is no graph."""
    kernel, x = kernel_of("relu", 3), rows(7, 4, unit=False)
    assert torch.equal(kernel(leaf(x)).detach(), kernel(x))
    with torch.no_grad():
        assert not kernel(leaf(x)).requires_grad
    assert not kernel(leaf(x).detach()).requires_grad
    assert not kernel(leaf(x), leaf(x)[:2].detach()).detach().requires_grad


def test_what_has_no_derivatives_says_so():
    x = leaf(rows(5, 4))
    for kernel in (
        limit_kernel(fully_connected(4, 8, 1, activation="erf")),
        limit_kernel(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))),  # biases
    ):
        with pytest.raises(ValueError, match=r"no derivatives are implemented.*x1.detach\(\)"):
            kernel(x)
        assert not kernel(x.detach()).requires_grad
    with pytest.raises(ValueError, match="out is given for inputs that require gradients"):
        kernel_of("relu", 1)(x, out=torch.empty(5, 5, dtype=torch.float64))


def test_few_pairs_have_derivatives_too(monkeypatch):
    """As they are called by users: fewer pairs than a curve is made for."""
    monkeypatch.setattr(LimitKernel, "_rows", ROWS)
    assert torch.autograd.gradcheck(limit_kernel(fully_connected(4, 8, 1)), (leaf(rows(3, 4)),), atol=1e-6)
