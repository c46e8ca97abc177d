"""DU-01 for every family and activation, at a width that takes seconds; `make battery` and the slow test take width 4096."""

from __future__ import annotations

import pytest
from bench.battery import FAMILIES, LIMIT, gap

from zeroloss.networks import ACTIVATIONS

ALL = [(family, activation) for family in FAMILIES for activation in ACTIVATIONS]


@pytest.mark.parametrize(("family", "activation"), ALL[::7], ids=str)
def test_narrow_networks_are_near(family, activation):
    """A seventh of the battery, which takes every family and most activations: 12 draws at m = 256."""
    assert gap(family, activation, width=256, draws=12) < 0.12


@pytest.mark.slow
@pytest.mark.parametrize(("family", "activation"), ALL, ids=str)
def test_the_battery(family, activation):
    assert gap(family, activation) < LIMIT
