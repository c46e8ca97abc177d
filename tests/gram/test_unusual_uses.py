"""Uses of a layer that look like the ordinary one, on some rows or to some digits: its calls must not speak for them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.gram.modules import make, rows, tokens
from tests.gram.test_any_module import jacobian, near
from zeroloss.gram import gram, jacobian_operator, tangent_operator, trace
from zeroloss.gram.leaves import plain_layers


class Sorted(nn.Module):
    """Passes its rows on in the order of their first value, and puts the results back."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        order = x[:, 0].argsort()
        return self.b(torch.tanh(self.a(x[order]))[order.argsort()])


class FirstTime(nn.Module):
    """A layer on (time, samples, features) of which only the first time counts."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 2)

    def forward(self, x):
        return torch.tanh(self.a(x.transpose(0, 1)))[0]


class Scaled(nn.LayerNorm):
    """A scale that counts from one, as some language models have it."""

    def forward(self, x):
        return functional.layer_norm(x, self.normalized_shape, 1 + self.weight, self.bias, self.eps)


class Faint(nn.Module):
    """A weight that a function uses too, a thousandth as much as its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.e = nn.Linear(5, 5)

    def forward(self, x):
        h = torch.tanh(self.e(x))
        return h[:, :2] + 1e-3 * functional.linear(h, self.e.weight.T)[:, :2]


@pytest.mark.parametrize("first", [0, 1])
def test_rows_in_another_order_are_not_samples(first):
    """The first rows are in order already, or not; the others are not."""
    torch.manual_seed(0)
    net, x = Sorted().double(), rows(7, 5)
    x = x[x[:, 0].argsort()][[first, 1 - first, 6, 4, 5, 2, 3]]
    j = jacobian(net, x).flatten(0, 1)
    assert near(gram(net, x, "full"), j @ j.T)
    assert near(gram(net, x[:1], "full", x), j[:2] @ j.T)


def test_times_as_many_as_samples_are_not_samples():
    torch.manual_seed(0)
    net, x = FirstTime().double(), rows(2, 2, 5)
    j = jacobian(net, x).flatten(0, 1)
    assert near(gram(net, x, "full"), j @ j.T)


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_in_float32_too_a_layer_speaks_only_for_what_it_uses_as_it_should(size):
    torch.manual_seed(0)
    net = nn.Sequential(Scaled(5), nn.Tanh(), Faint()).double()
    nn.init.normal_(net[0].weight)
    x = size * rows(6, 5)
    j = jacobian(net, x).flatten(0, 1)
    assert near(gram(net.float(), x.float(), "full"), j @ j.T, 1e-5)


class Running(nn.Module):
    """Sums over the rows so far."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 2)

    def forward(self, x):
        return self.a(x).cumsum(dim=0)


def test_what_only_earlier_rows_change_is_mixed_too():
    with pytest.raises(ValueError, match="mixes samples"):
        gram(Running(), torch.randn(4, 5))


def test_sparse_gradients_of_an_embedding_count():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Embedding(7, 3, sparse=True), nn.Flatten(), nn.Linear(18, 2)).double(), tokens(4)
    whole = gram(net, x)
    net[0].sparse = False
    assert torch.equal(whole, gram(net, x))


@pytest.mark.parametrize("operator", [jacobian_operator, tangent_operator])
def test_operators_refuse_samples_that_mix_too(operator):
    with pytest.raises(ValueError, match="mixes samples"):
        operator(Running().double(), rows(4, 5))


class Halved(nn.Linear):
    """Scales its weight inside."""

    def forward(self, x):
        return super().forward(x) / 2


def doubled(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda _, inputs, result: 2 * result)
    return layer


SEEN = {
    "mlp": (lambda: make("mlp", 3), 3),
    "twice": (lambda: make("twice", 3), 2),
    "tied": (lambda: make("tied", 3), 0),
    "functional use": (lambda: make("functional use", 3), 0),
    "token mlp": (lambda: make("token mlp", 3), 1),  # the layer on tokens is left to the numbers
    "weight norm": (lambda: make("bilinear head", 3), 2),  # of the second, the bias alone
    "a forward of its own": (lambda: (nn.Sequential(Halved(5, 4), nn.Tanh(), nn.Linear(4, 2)).double(), rows(3, 5)), 1),
    "a hook of the user's": (
        lambda: (nn.Sequential(doubled(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 2)).double(), rows(3, 5)),
        1,
    ),
}


@pytest.mark.parametrize("name", SEEN)
def test_the_graph_tells_only_of_plain_layers(name):
    build, count = SEEN[name]
    net, x = build()
    assert len(plain_layers(*trace(net, x))) == count
    j = jacobian(net, x).flatten(0, 1)
    assert near(gram(net, x, "full"), j @ j.T)


class Pairs(nn.Module):
    """Has no outputs for a row by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.ones(5))

    def forward(self, x):
        if len(x) < 2:
            raise RuntimeError("two rows are needed")
        return x * self.own


def test_what_fails_for_a_row_by_itself_is_said():
    with pytest.raises(ValueError, match=r"cannot be differentiated in 'own' for a row by itself \(two rows are needed\)"):
        gram(Pairs().double(), rows(4, 5))
