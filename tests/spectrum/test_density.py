"""Lanczos densities beside the eigenvalues themselves: within their errors, which must be neither too small nor too large."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator

from tests.spectrum.matrices import with_spectrum
from zeroloss.spectrum import lanczos_density

N = 400
VALUES = np.random.default_rng(0).gamma(2.0, size=N)
AT = torch.linspace(0.5, 6, 12, dtype=torch.float64)
WIDTH = 0.4


def smoothed(values: np.ndarray) -> np.ndarray:
    away = (AT.numpy()[:, None] - values) / WIDTH
    return np.exp(-(away**2) / 2).mean(axis=1) / (WIDTH * math.sqrt(2 * math.pi))


@pytest.mark.parametrize("kind", [torch.from_numpy, aslinearoperator])
def test_densities_shares_and_means_within_their_errors(kind):
    found = lanczos_density(kind(with_spectrum(VALUES, 1)), probes=24, steps=80)
    for estimate, exact in (
        (found.smoothed(AT, WIDTH), smoothed(VALUES)),
        (found.mean(torch.log1p), np.log1p(VALUES).mean()),
        (found.mean(lambda t: t**3), (VALUES**3).mean()),
    ):
        z = (estimate.value.numpy() - exact) / estimate.standard_error.numpy()
        assert np.abs(z).max() < 4
        assert (estimate.standard_error.numpy() < 0.1 * np.abs(exact) + 0.02).all()
    below = found.below(AT)
    assert np.abs(below.value.numpy() - (AT.numpy()[:, None] >= VALUES).mean(axis=1)).max() < 0.03
    assert (below.value.diff() >= 0).all()


def test_a_wrong_spectrum_is_rejected():
    found = lanczos_density(with_spectrum(VALUES, 1), probes=24, steps=80).smoothed(AT, WIDTH)
    z = (found.value.numpy() - smoothed(1.1 * VALUES)) / found.standard_error.numpy()
    assert np.abs(z).max() > 6


def test_errors_are_those_seen_over_seeds():
    matrix = with_spectrum(VALUES, 2)
    found = [lanczos_density(matrix, probes=8, steps=20, seed=seed).mean(lambda t: t) for seed in range(60)]
    z = np.array([float((f.value - VALUES.mean()) / f.standard_error) for f in found])
    assert abs(z.mean()) < 0.6
    assert 0.8 < z.std() < 1.7  # Student's t with 7 degrees of freedom: 1.18


def test_seeds_and_repeats():
    matrix = with_spectrum(VALUES, 3)
    a, b, c = (lanczos_density(matrix, probes=2, steps=10, seed=seed) for seed in (0, 0, 1))
    assert (a.nodes == b.nodes).all()
    assert not (a.nodes == c.nodes).all()


@pytest.mark.parametrize("n", [1, 2, 50])
@pytest.mark.parametrize("value", [0.0, 1.5, -2.0])
def test_one_repeated_eigenvalue(n, value):
    """The space of every probe is exhausted at once: no node but the one may count, not even where f is not defined elsewhere."""
    found = lanczos_density(value * np.eye(n), probes=3, steps=20)
    mean = found.mean(lambda t: torch.where((t - value).abs() < 1e-9, t, math.nan))
    assert float(mean.value[0]) == pytest.approx(value, abs=1e-12)
    assert float(mean.standard_error[0]) == pytest.approx(0, abs=1e-12)
    assert torch.allclose(found.weights.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert found.below(torch.tensor([value - 0.1, value + 0.1])).value.tolist() == pytest.approx([0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"probes": 1}, "probes is 1"), ({"steps": 0}, "steps is 0")],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        lanczos_density(np.eye(3), **arguments)
    with pytest.raises(ValueError, match="width is 0"):
        lanczos_density(np.eye(3)).smoothed(AT, 0.0)
    with pytest.raises(ValueError, match="not symmetric"):
        lanczos_density(aslinearoperator(np.triu(np.ones((80, 80)))))
