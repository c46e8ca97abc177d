"""Probes are float64's, of the weights as they are, whatever the run's own dtype."""

from __future__ import annotations

import copy
from dataclasses import asdict

import pytest
import torch
from torch import nn

from tests.cases import rows
from zeroloss import Dataset
from zeroloss.errors import ArgumentError
from zeroloss.training import Prober, find_loss


def build(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 80), nn.ReLU(), nn.Linear(80, 80), nn.BatchNorm1d(80), nn.Tanh(), nn.Linear(80, 1))
    net[3].requires_grad_(False).eval()
    return net.to(dtype)


DATA = Dataset(rows(6, 4), [1.0, -1.0, 1.0, 1.0, -1.0, 1.0])


def move(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.01 * torch.randn(p.shape, generator=generator).to(p)
        net[3].running_mean += 0.1


def test_a_probe_of_float32_is_that_of_its_weights_in_float64():
    net = build()
    exact = copy.deepcopy(net).double()
    probers = [Prober(each, DATA, find_loss("squared"), 0.01, 1e-8) for each in (net, exact)]
    move(net, 1)
    exact.load_state_dict(net.state_dict())
    ours, theirs = (asdict(prober.measure(each, 3)) for prober, each in zip(probers, (net, exact), strict=True))
    assert ours == theirs
    assert all(value > 0 for value in ours["weight_drift"].values())
    assert next(net.parameters()).dtype == torch.float32


def test_a_probe_does_not_depend_on_the_probes_before_it():
    """A resumed run repeats to the bit though its prober has measured nothing yet."""
    net = build()
    busy, fresh = (Prober(net, DATA, find_loss("squared"), 0.01, 1e-8) for _ in range(2))
    busy.measure(net, 0)
    move(net, 1)
    busy.measure(net, 1)
    move(net, 2)
    assert busy.measure(net, 2) == fresh.measure(net, 2)


def test_uses_are_checked_at_the_start():
    net = build()
    net[3].train()
    with pytest.raises(ArgumentError, match="mixes samples"):
        Prober(net, DATA, find_loss("squared"), 0.01, 1e-8)
