"""Modules whose limit is not that of the layers they look like: one layer in two places, forwards of their own, cut activations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.cases import rows
from zeroloss import gram, limit_kernel
from zeroloss.errors import ArgumentError
from zeroloss.kernels.piecewise import pieces_of
from zeroloss.networks import Activation, Residual, activation_of


def test_an_activation_in_two_places_is_applied_twice():
    act, x = nn.ReLU(), rows(4, 5)

    def build(*acts: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 400), acts[0], nn.Linear(400, 400), acts[1], nn.Linear(400, 1)).double()

    shared = limit_kernel(build(act, act))(x)
    assert torch.equal(shared, limit_kernel(build(nn.ReLU(), nn.ReLU()))(x))
    finite = torch.stack([gram(build(act, act), x) for _ in range(6)]).mean(0)
    assert float((finite - shared).norm() / shared.norm()) < 0.15


class Skip(nn.Sequential):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z + super().forward(z)


def tied() -> nn.Module:
    hidden = nn.Linear(8, 8)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), hidden, nn.ReLU(), hidden, nn.ReLU(), nn.Linear(8, 1))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (tied(), "uses one layer twice, again at '4'"),
        (
            nn.Sequential(nn.Linear(5, 8), Skip(nn.ReLU(), nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 1)),
            "a forward of its own at '1'",
        ),
        (
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 8)), nn.ReLU(), nn.Linear(8, 1)),
            "parametrised weights",
        ),
        (
            nn.Sequential(nn.Linear(5, 8), nn.Softplus(threshold=1.0), nn.Linear(8, 1)),
            "random or jumps.*Softplus at '1'",
        ),
    ],
)
def test_what_is_not_what_it_looks_like_is_refused(module, message):
    with pytest.raises(ValueError, match=message):
        limit_kernel(module.double())(rows(3, 5))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.one(z) * self.two(z)


class Leaf(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z.cumsum(1)


class OwnNorm(nn.LayerNorm):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(z) + z


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            nn.MaxPool2d(2),
            r"largest of several pixels.* \(MaxPool2d at '1'\); use average pooling or strided convolutions, or ask for gram",
        ),
        (nn.AdaptiveMaxPool1d(2), "largest of several pixels"),
        (nn.Dropout(0.5), r"at random, in training mode \(Dropout at '1'\); call eval\(\)"),
        (nn.AlphaDropout(0.5), "at random, in training mode"),
        (nn.GroupNorm(2, 8), r"GroupNorm at '1'\); use nn.LayerNorm"),
        (nn.InstanceNorm1d(8), "InstanceNorm1d at '1'"),
        (nn.LocalResponseNorm(2), "LocalResponseNorm at '1'"),
        (nn.Softmax(1), r"mixes an input's features.*\(Softmax at '1'\); leave it to the loss"),
        (nn.LogSoftmax(1), "LogSoftmax at '1'"),
        (nn.MultiheadAttention(8, 2), r"attends .*\(MultiheadAttention at '1'\); use Linear"),
        (nn.TransformerEncoderLayer(8, 2), "TransformerEncoderLayer at '1'"),
        (nn.RNN(8, 8), r"again at every step .*\(RNN at '1'\)"),
        (nn.LSTM(8, 8), r"\(LSTM at '1'\)"),
        (nn.GRUCell(8, 8), r"\(GRUCell at '1'\)"),
        (nn.Embedding(8, 8), r"indices, .*\(Embedding at '1'\); pass one-hot rows"),
        (nn.ConvTranspose2d(8, 8, 3), r"spreads every pixel .*\(ConvTranspose2d at '1'\); use Conv2d"),
        (nn.Bilinear(8, 8, 8), "multiplies two inputs"),
        (nn.PReLU(), r"trains its own slope \(PReLU at '1'\); use nn.LeakyReLU"),
        (nn.RReLU(), "random or jumps"),
        (nn.Hardshrink(), r"jumps.*\(Hardshrink at '1'\); use .*Softshrink"),
        (nn.GLU(), "GLU at '1'"),
        (nn.LazyLinear(3), r"lazy layer at '1' \(LazyLinear\).*pass some inputs"),
        (nn.LazyBatchNorm1d(), "lazy layer at '1'"),
        (Own(), r"a forward of its own at '1' \(Own\), .*Sequential and zeroloss.networks.Residual"),
        (Leaf(), "a layer '1' of type Leaf"),
        (OwnNorm(8), "a forward of its own at '1'"),
        (nn.Unflatten(1, (2, 4)), "a layer '1' of type Unflatten"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_without_a_limit_are_named_with_what_to_use(layer, message):
    """One clear line, wherever the layer stands; its path is that of torch's own names."""
    with pytest.raises(ArgumentError, match=message) as caught:
        limit_kernel(nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 1)))(rows(3, 5))
    assert "\n" not in str(caught.value)
    with pytest.raises(ArgumentError, match=message.replace("'1'", r"'0\.1'")):
        limit_kernel(nn.Sequential(nn.Sequential(nn.Linear(5, 8), layer)))(rows(3, 5))


@pytest.mark.parametrize("layer", [nn.Dropout(0.5).eval(), nn.Dropout(0.0), nn.AlphaDropout(0.2).eval(), nn.Identity()])
def test_layers_that_do_nothing_are_passed(layer):
    x = rows(3, 5)
    one, other = (limit_kernel(nn.Sequential(nn.Linear(5, 8), *some, nn.ReLU(), nn.Linear(8, 1)))(x) for some in ([layer], []))
    assert torch.equal(one, other)


def test_a_normalising_layer_in_two_places_is_refused_only_where_it_learns():
    for layer, learns in ((nn.LayerNorm(8), True), (nn.LayerNorm(8, elementwise_affine=False), False)):
        module = nn.Sequential(nn.Linear(5, 8), layer, nn.ReLU(), nn.Linear(8, 8), layer, nn.Linear(8, 1))
        if learns:
            with pytest.raises(ArgumentError, match="uses one layer twice, again at '4'"):
                limit_kernel(module)
        else:
            assert limit_kernel(module)(rows(3, 5)).shape == (3, 3)


def test_residual_is_still_a_sequence_of_ours():
    module = nn.Sequential(nn.Linear(5, 8), Residual(nn.ReLU(), nn.Linear(8, 8)), nn.Linear(8, 1)).double()
    assert limit_kernel(module)(rows(3, 5)).shape == (3, 3)
    assert activation_of(nn.Softplus()) is not None


def test_a_bump_beside_a_kink_is_not_a_straight_piece():
    def bump(z: torch.Tensor) -> torch.Tensor:
        return torch.where(z > 0, z, -0.3 * z) + 0.6 * torch.exp(-200 * (z - 0.1) ** 2)

    assert pieces_of(Activation("bump", bump, (0.0,))) is None
    straight = pieces_of(Activation("straight", lambda z: torch.where(z > 0, z, -0.3 * z), (0.0,)))
    assert straight is not None
    assert straight.slopes == pytest.approx((-0.3, 1.0))
