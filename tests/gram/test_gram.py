"""Finite Grams against the explicit Jacobian, layer by layer, and the explicit gradient of AZ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.cases import CASES, rows
from zeroloss import fully_connected, gram
from zeroloss.gram import formula_gradient, layer_grams, tangent_operator


def jacobian(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The slow obvious twin: one backward pass an output and sample, all parameters side by side."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    outputs = module(x).reshape(len(x), -1)
    lines = []
    for value in outputs.reshape(-1):
        parts = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, parts, strict=True)]
        lines.append(torch.cat([g.flatten() for g in filled]))
    return torch.stack(lines)


class Shared(nn.Module):
    """One layer used twice: its gradient is the sum of both uses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)
        self.last = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


class Branching(nn.Module):
    """Two heads on one trunk; the second output depends on a layer that the first does not."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.one, self.two = nn.Linear(5, 4, bias=False), nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.sigmoid(self.trunk(x))
        return torch.cat([self.one(h), self.two(h)], dim=1)


def frozen_weight() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    net[0].weight.requires_grad_(False)
    return net


MODULES = {
    **{str(c): (lambda c=c: c.build(5, 12, 3, 2)) for c in CASES},
    "biases": lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)),
    "shared": Shared,
    "branching": Branching,
    "only a bias trained": frozen_weight,
}


@pytest.mark.parametrize("name", MODULES)
def test_equals_the_explicit_jacobian(name):
    torch.manual_seed(1)
    net, x = MODULES[name]().double(), rows(6, 5, unit=False)
    j = jacobian(net, x)
    k = len(j) // 6
    exact = j @ j.T
    each = exact.reshape(6, k, 6, k)
    assert torch.allclose(gram(net, x, "full"), exact, rtol=1e-11, atol=1e-13 * float(exact.abs().max()))
    assert torch.allclose(gram(net, x), each.diagonal(dim1=1, dim2=3).mean(-1), rtol=1e-11, atol=1e-13)
    assert torch.allclose(gram(net, x, k - 1), each[:, k - 1, :, k - 1], rtol=1e-11, atol=1e-13)
    vector = np.random.default_rng(0).standard_normal(6 * k)
    assert np.allclose(tangent_operator(net, x) @ vector, exact.numpy() @ vector, rtol=1e-10)


def test_shares_add_up_and_float32_is_close():
    net, x = CASES[0].build(5, 64, 3, 1), rows(10, 5)
    parts = layer_grams(net, x)
    assert list(parts) == ["W1", "W2", "W3"]
    assert torch.allclose(sum(parts.values()), gram(net, x), rtol=1e-14)
    single = gram(net.float(), x)
    assert single.dtype == torch.float32
    assert float((single.double() - gram(net.double(), x)).norm() / single.norm()) < 1e-5


def test_a_wrong_gram_is_not_equal():
    """The control for the battery: leaving one layer out is far outside its tolerance."""
    net, x = CASES[1].build(5, 12, 3, 1), rows(6, 5)
    parts = layer_grams(net, x)
    assert float((gram(net, x) - parts["W1"] - jacobian(net, x) @ jacobian(net, x).T).abs().max()) > 1e-3


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("outputs", [1, 3])
def test_az_00_formula_equals_autograd(depth, outputs):
    net = fully_connected(6, [9, 8, 7, 6, 10][: depth + 1], depth, outputs, seed=depth)
    x, y = rows(7, 6), rows(7, outputs, seed=5)
    exact = torch.autograd.grad(0.5 * (net(x) - y).square().sum(), [p for p in net.parameters() if p.requires_grad])
    ours = formula_gradient(net, x, y)
    assert list(ours) == [f"W{i}" for i in range(1, depth + 1)]
    for a, b in zip(ours.values(), exact, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-12


def test_the_formula_refuses_other_networks():
    with pytest.raises(ValueError, match="network is fully_connected with scheme 'du'"):
        formula_gradient(CASES[1].build(5, 4, 1), rows(2, 5), rows(2, 1))


@pytest.mark.parametrize(
    ("module", "output", "message"),
    [
        (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 1)), "mean", "mixes samples: '1'"),
        (nn.Linear(5, 2), 2, "output is 2"),
        (nn.Linear(5, 2), "all", "output is 'all'"),
        (nn.Linear(5, 2).requires_grad_(False), "mean", "no trainable parameter"),
        (nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)), "mean", None),
    ],
)
def test_refusals(module, output, message):
    if message is None:
        assert gram(module.double(), rows(3, 5), output).shape == (3, 3)
        return
    with pytest.raises(ValueError, match=message):
        gram(module.double(), rows(3, 5), output)


def test_gradients_that_cancel_are_not_taken_for_hidden_uses():
    """Opposite rows through an odd network: the summed gradient is rounding alone, and no use is hidden."""
    net = CASES[4].build(2, 1, 1)  # DU, erf, one unit
    x = torch.tensor([[0.6, 0.8], [-0.6, -0.8]], dtype=torch.float64)
    assert gram(net, x).shape == (2, 2)
    assert gram(net.float(), x).shape == (2, 2)


def test_modules_are_left_as_they_were():
    net = CASES[1].build(5, 6, 2)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    gram(net, rows(4, 5))
    assert all(p.grad is None for p in net.parameters())
    assert not any(layer._forward_hooks for layer in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
