"""How weights are moved: products for linear layers, whole gradients elsewhere, and state that restores to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.cases import rows
from zeroloss.data import Dataset
from zeroloss.training import descend
from zeroloss.training.weights import Weights


class Shared(nn.Module):
    """A layer called twice, one whose weight a function uses too, a tied weight, and a parameter outside any linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.used = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.left, self.right = nn.Linear(5, 5), nn.Linear(5, 5, bias=False)
        self.right.weight = self.left.weight
        self.scale = nn.Parameter(torch.ones(5))
        self.frozen = nn.Linear(5, 2).requires_grad_(False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.twice(torch.tanh(self.twice(self.act(self.first(x)))))
        h = self.used(h) + nn.functional.linear(h, self.used.weight.T)
        return self.frozen(self.right(torch.tanh(self.left(h))) * self.scale)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_those_of_automatic_differentiation(momentum, dtype):
    torch.manual_seed(1)
    net = Shared().to(dtype)
    torch.manual_seed(1)
    twin = Shared().to(dtype)
    x = rows(7, 4).to(dtype)
    weights = Weights(net, x, momentum)
    assert {name for name, layer in net.named_modules() if layer in weights._layers} == {"first", "twice", "left", "right"}
    parameters = [p for p in twin.parameters() if p.requires_grad]
    velocity = [torch.zeros_like(p) for p in parameters]
    for k in range(5):
        derivative = rows(7, 2, k + 1).to(dtype)
        weights.step(weights.forward(x), derivative, 0.1)
        gradients = torch.autograd.grad(twin(x), parameters, derivative)
        with torch.no_grad():
            for p, v, g in zip(parameters, velocity, gradients, strict=True):
                v.mul_(momentum).sub_(0.1 * g)
                p.add_(v)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e3 * torch.finfo(dtype).eps, atol=1e3 * torch.finfo(dtype).eps)
    assert not any(layer._forward_hooks for layer in net.modules())


@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_restore_to_the_bit(momentum, dtype):
    layer, x = nn.Linear(3, 2, dtype=dtype), rows(4, 3).to(dtype)
    start = [p.detach().clone() for p in layer.parameters()]
    weights = Weights(layer, x, momentum)
    weights.step(weights.forward(x), rows(4, 2).to(dtype), 0.1)
    state = {k: v.clone() for k, v in weights.state.items()}
    weights.step(weights.forward(x), rows(4, 2).to(dtype), 0.1)
    after = [p.detach().clone() for p in layer.parameters()]
    with torch.no_grad():
        for p, value in zip(layer.parameters(), start, strict=True):
            p.copy_(value)
    fresh = Weights(layer, x, momentum)
    fresh.restore(state)
    fresh.step(fresh.forward(x), rows(4, 2).to(dtype), 0.1)
    assert all(torch.equal(a, b) for a, b in zip(after, layer.parameters(), strict=True))


def test_at_rest_asks_for_gradients_and_velocities():
    layer, x = nn.Linear(1, 1, bias=False).double(), torch.ones(1, 1, dtype=torch.float64)
    weights = Weights(layer, x, 0.5)
    assert weights.at_rest(weights.forward(x), 0 * x)
    assert not weights.at_rest(weights.forward(x), x)
    weights.step(weights.forward(x), x, 0.1)
    assert not weights.at_rest(weights.forward(x), 0 * x)  # the velocity carries it on


def test_a_module_that_writes_into_its_inputs_is_trained_on_the_same_ones_at_every_step():
    x, y = rows(6, 4).double(), rows(6, 1).double()
    losses = []
    for in_place in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.SiLU(inplace=in_place), nn.Linear(4, 1)).double()
        data = Dataset(x.clone(), y)
        losses.append(descend(net, data, step=0.05, max_steps=5).loss)
        assert torch.equal(data.x, x)
    assert torch.equal(*losses)
