"""Extremes against matrices whose spectrum is known, and the lower bound both ways: true, and not vacuous."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

from zeroloss import extremes
from zeroloss.spectrum import largest_eigenvalue, spectral_norm
from zeroloss.spectrum.extremes import smallest_bound


def with_spectrum(values: np.ndarray, seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))
    m = q @ np.diag(values) @ q.T
    return (m + m.T) / 2


@given(n=st.integers(1, 12), power=st.integers(-14, 0), seed=st.integers(0, 10_000), scale=st.integers(-100, 100))
def test_the_bound_is_true_for_the_matrix_as_given(n, power, seed, scale):
    """Against 60-digit eigenvalues of the very floats: never above, whatever the conditioning and the scale."""
    values = np.concatenate([[10.0**power], np.random.default_rng(seed).uniform(0.5, 2, n - 1)])
    matrix = with_spectrum(values, seed) * 10.0**scale
    bound = extremes(torch.from_numpy(matrix)).smallest_bound
    with mpmath.workdps(60):
        exact = min(mpmath.eigsy(mpmath.matrix(matrix.tolist()), eigvals_only=True))
        assert mpmath.mpf(bound) <= exact


@pytest.mark.parametrize("n", [5, 100, 400])
def test_the_bound_is_not_vacuous(n):
    values = np.geomspace(1e-6, 1, n)
    ends = extremes(with_spectrum(values, 0))
    assert ends.smallest_bound is not None
    assert 0 < ends.smallest_bound <= ends.smallest * (1 + 1e-6)
    assert ends.smallest - ends.smallest_bound < n * 1e-12
    assert ends.condition == pytest.approx(1e6, rel=1e-5)


def test_a_bound_from_a_wrong_guess_is_still_true():
    """The bound trusts no eigenvalue: told one that is far too large, it must not follow."""
    matrix = with_spectrum(np.array([1e-3, 1.0, 2.0]), 1)
    assert smallest_bound(matrix, near=0.5) <= 1e-3


def test_singular_and_indefinite_matrices():
    twice = np.ones((4, 4))
    ends = extremes(twice)
    assert ends.smallest_bound is not None
    assert -1e-13 < ends.smallest_bound <= 0
    assert extremes(np.diag([-3.0, 1.0])).smallest_bound == pytest.approx(-3, abs=1e-12)
    assert extremes(np.zeros((3, 3))).smallest == 0.0
    assert extremes(np.diag([-1.0, 1.0])).condition == float("inf")


@pytest.mark.parametrize("n", [3, 64, 65, 300])
def test_operators_and_norms(n):
    values = np.linspace(0.5, 7.0, n)
    matrix = with_spectrum(values, 2)
    ends = extremes(aslinearoperator(matrix))
    assert ends.largest == pytest.approx(7.0, rel=1e-7)
    assert ends.smallest == pytest.approx(0.5, rel=1e-5)
    assert ends.smallest_bound is None
    assert largest_eigenvalue(aslinearoperator(matrix)) == pytest.approx(7.0, rel=1e-7)
    assert spectral_norm(torch.from_numpy(matrix)) == pytest.approx(7.0, rel=1e-7)
    assert spectral_norm(torch.from_numpy(matrix[:, : n // 2 + 1])) == pytest.approx(
        np.linalg.norm(matrix[:, : n // 2 + 1], 2), rel=1e-7
    )


@pytest.mark.parametrize("shape", [(80, 300), (300, 80), (200, 200)])
@pytest.mark.parametrize("rank", [1, 3, 80])
def test_a_norm_is_that_of_a_full_decomposition(shape, rank):
    """Of low rank, where Lanczos runs out of directions, of full rank, and with noise that is far below the rest."""
    rng = np.random.default_rng(rank)
    matrix = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
    for scale, noise in ((1.0, 0.0), (1e-12, 0.0), (1.0, 1e-6)):
        given = scale * (matrix + noise * rng.standard_normal(shape))
        assert spectral_norm(torch.from_numpy(given)) == pytest.approx(np.linalg.norm(given, 2), rel=1e-12)


def test_the_largest_two_may_coincide():
    matrix = torch.diag(torch.cat([torch.full((2,), 3.0), torch.ones(98)])).to(torch.float64)
    matrix[1, 1] += 1e-9
    assert spectral_norm(matrix) == pytest.approx(3, rel=1e-8)
    assert spectral_norm(torch.eye(100)) == pytest.approx(1, rel=1e-15)


def test_two_calls_agree_to_the_bit():
    matrix = with_spectrum(np.linspace(0.1, 1, 200), 3)
    assert largest_eigenvalue(aslinearoperator(matrix)) == largest_eigenvalue(aslinearoperator(matrix))
    assert spectral_norm(torch.from_numpy(matrix)) == spectral_norm(torch.from_numpy(matrix))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)), r"shape \(2, 3\)"),
        (np.ones((0, 0)), r"shape \(0, 0\)"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), "not symmetric"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), "NaN or infinity"),
        (torch.ones(2, 2, dtype=torch.complex64), "dtype"),
    ],
)
def test_refusals(matrix, message):
    with pytest.raises(ValueError, match=message):
        extremes(matrix)
