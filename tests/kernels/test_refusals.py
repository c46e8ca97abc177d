"""Modules whose limit is not that of the layers they look like: one layer in two places, forwards of their own, cut activations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.cases import rows
from zeroloss import gram, limit_kernel
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
        (nn.Sequential(nn.Linear(5, 8), nn.Softplus(threshold=1.0), nn.Linear(8, 1)), "type Softplus"),
    ],
)
def test_what_is_not_what_it_looks_like_is_refused(module, message):
    with pytest.raises(ValueError, match=message):
        limit_kernel(module.double())(rows(3, 5))


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
