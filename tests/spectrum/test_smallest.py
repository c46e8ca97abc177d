"""The smallest eigenvalue by a factor, beside a full decomposition; every way out of it; and the bound that holds it."""

from __future__ import annotations

import sys

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.spectrum.matrices import with_spectrum
from zeroloss import extremes, fully_connected, limit_kernel
from zeroloss.spectrum import Smallest, smallest_eigenvalue
from zeroloss.spectrum.bound import _defect, absolute_row_sums, cholesky, smallest_bound
from zeroloss.spectrum.operators import TILE, symmetric
from zeroloss.spectrum.smallest import LARGE, by_inverse, smallest_of

N = 300  # above two tiles' edge, so that strips are of unequal height


@pytest.fixture
def fast(monkeypatch):
    """Use the factor for matrices of any size."""
    monkeypatch.setattr(sys.modules["zeroloss.spectrum.extremes"], "LARGE", 1)


SPECTRA = {
    "even": np.linspace(1e-3, 1, N),
    "geometric": np.geomspace(1e-6, 1, N),
    "one below": np.concatenate([[1e-5], np.linspace(1, 2, N - 1)]),
    "twice": np.concatenate([[0.1, 0.1], np.linspace(1, 2, N - 2)]),
    "nearly twice": np.concatenate([[0.1, 0.1 + 1e-7], np.linspace(0.2, 2, N - 2)]),
    "clustered": np.concatenate([1 + 1e-4 * np.arange(N // 2), np.linspace(2, 3, N - N // 2)]),
    "all equal": np.full(N, 0.7),
    "huge": 1e200 * np.linspace(1e-3, 1, N),
    "tiny": 1e-200 * np.linspace(1e-3, 1, N),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_it_is_that_of_a_full_decomposition(name):
    matrix = with_spectrum(SPECTRA[name], 1)
    values = scipy.linalg.eigvalsh(matrix)
    found = smallest_of(matrix, large=1)
    assert found.steps > 0
    assert found.value == pytest.approx(values[0], rel=1e-8)
    assert found.residual <= 1e-8
    assert found.rounding < 1e-8


def test_it_is_certain_even_where_two_nearly_coincide():
    """A gap of 1e-6 beside one of 0.1: a stop that trusts the square of the residual over the second gap ends early."""
    for gap in (1e-3, 1e-5, 1e-6):
        for seed in range(5):
            matrix = with_spectrum(np.concatenate([[1, 1 + gap], np.linspace(1.1, 2, N - 2)]), seed)
            assert smallest_of(matrix, large=1).value == pytest.approx(1, abs=1e-8)


def test_a_large_matrix_takes_the_factor_and_a_small_one_does_not():
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(LARGE, 300, dtype=torch.float64, generator=generator))
    kernel = limit_kernel(fully_connected(300, 8, 2))(x)
    found, values = smallest_eigenvalue(kernel), torch.linalg.eigvalsh(kernel)
    assert 0 < found.steps < 300
    assert found.value == pytest.approx(float(values[0]), rel=1e-10)
    ends = extremes(kernel)
    assert (ends.smallest, ends.largest) == pytest.approx((float(values[0]), float(values[-1])), rel=1e-10)
    assert found.value * (1 - 1e-8) < ends.smallest_bound <= found.value
    assert smallest_eigenvalue(kernel[:50, :50]).steps == 0
    assert smallest_eigenvalue(kernel) == found


@pytest.mark.parametrize("values", [np.linspace(-1, 2, N), np.zeros(N), np.concatenate([[0.0], np.ones(N - 1)]), -np.ones(N)])
def test_without_a_factor_it_decomposes(values):
    matrix = with_spectrum(values, 2)
    assert smallest_of(matrix, large=1).value == pytest.approx(values[0], abs=1e-13)


def test_indefinite_zero_and_singular_have_no_factor():
    assert by_inverse(np.zeros((3, 3))) is None
    assert by_inverse(np.diag([1.0, -1.0])) is None
    assert smallest_of(np.zeros((3, 3)), large=1) == Smallest(0.0, 0.0, float("inf"), 0)


def test_lanczos_that_does_not_settle_falls_back(monkeypatch):
    monkeypatch.setattr("zeroloss.spectrum.smallest.STEPS", 3)
    matrix = with_spectrum(SPECTRA["even"], 3)
    assert by_inverse(matrix) is None
    assert smallest_of(matrix, large=1).value == pytest.approx(1e-3, rel=1e-10)


@pytest.mark.usefixtures("fast")
@given(n=st.integers(1, 12), power=st.integers(-14, 0), seed=st.integers(0, 10_000), scale=st.integers(-100, 100))
def test_the_bound_of_the_fast_ends_is_true(n, power, seed, scale):
    values = np.concatenate([[10.0**power], np.random.default_rng(seed).uniform(0.5, 2, n - 1)])
    matrix = with_spectrum(values, seed) * 10.0**scale
    ends = extremes(torch.from_numpy(matrix))
    with mpmath.workdps(60):
        exact = mpmath.eigsy(mpmath.matrix(matrix.tolist()), eigvals_only=True)
        assert mpmath.mpf(ends.smallest_bound) <= min(exact)
        assert abs(ends.smallest - min(exact)) <= 1e-14 * n * max(exact)
        assert abs(ends.largest - max(exact)) <= 1e-8 * max(exact)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("name", SPECTRA)
def test_fast_ends_and_a_bound_that_is_not_vacuous(name):
    matrix = with_spectrum(SPECTRA[name], 4)
    values = scipy.linalg.eigvalsh(matrix)
    ends = extremes(matrix)
    assert (ends.smallest, ends.largest) == pytest.approx((values[0], values[-1]), rel=1e-8, abs=0)
    assert 0 <= ends.smallest - ends.smallest_bound < 1e-8 * values[0] + N * 1e-12 * values[-1]
    assert extremes(matrix, bound=False).smallest_bound is None
    assert extremes(matrix, bound=False).smallest == ends.smallest


@pytest.mark.usefixtures("fast")
def test_an_eigenvalue_that_lanczos_missed_is_found_by_the_bound(monkeypatch):
    matrix = np.diag(np.concatenate([[1e-3], np.linspace(1, 2, N - 1)]))
    blind = np.ones(N)
    blind[0] = 0
    monkeypatch.setattr("zeroloss.spectrum.smallest.start", lambda n: blind)
    assert extremes(matrix, bound=False).smallest == pytest.approx(1)  # what a start without that direction sees
    assert extremes(matrix).smallest == pytest.approx(1e-3)


@pytest.mark.parametrize("n", [1, 5, TILE, TILE + 1, 2 * TILE + 7])
def test_the_defect_is_that_of_whole_matrices(n):
    """Against the same sums over whole matrices, with a factor that is wrong in one entry: the strips must see it wherever it is."""
    matrix = with_spectrum(np.linspace(1, 2, n), 5)
    factor = cholesky(matrix, 0.5, np.empty_like(matrix))
    assert np.allclose(factor, np.linalg.cholesky(matrix - 0.5 * np.eye(n)))
    for row, column in ((0, 0), (n - 1, 0), (n - 1, n - 1), (n // 2, n // 3)):
        wrong = factor.copy(order="F")
        wrong[row, column] += 0.1
        whole = np.abs(matrix - 0.5 * np.eye(n) - wrong @ wrong.T).sum(axis=1)
        found = _defect(matrix, 0.5, wrong)
        assert np.allclose(found, whole, rtol=1e-8, atol=1e-11 * n)
        assert (found >= whole - 1e-13 * n).all()
        assert found.max() > 0.05


def test_a_bound_survives_a_cholesky_that_lies(monkeypatch):
    matrix = with_spectrum(np.linspace(0.1, 1, 50), 6)

    def lie(given, shift, out):
        return np.asfortranarray(1.01 * np.linalg.cholesky(given))

    monkeypatch.setattr("zeroloss.spectrum.bound.cholesky", lie)
    assert smallest_bound(matrix, near=0.5) <= 0.1


def test_the_given_matrix_is_left_alone_and_not_copied():
    matrix = with_spectrum(np.linspace(1, 2, N), 7)
    before = matrix.copy()
    assert np.shares_memory(symmetric(matrix), matrix)
    extremes(matrix)
    smallest_of(matrix, large=1)
    assert (matrix == before).all()


@pytest.mark.parametrize("place", [(0, 299), (299, 0), (260, 270), (10, 258)])
def test_asymmetry_and_nan_are_seen_in_every_tile(place):
    matrix = np.eye(N)
    matrix[place] = 1e-3
    with pytest.raises(ValueError, match="not symmetric"):
        symmetric(matrix)
    matrix[place] = np.nan
    with pytest.raises(ValueError, match=rf"first: row {place[0]}\)"):
        symmetric(matrix)


def test_rounding_is_symmetrised_and_other_layouts_are_read():
    matrix = with_spectrum(np.linspace(1, 2, N), 8)
    bent = matrix * (1 + 1e-16 * np.random.default_rng(0).standard_normal((N, N)))
    bent[0, 1] = np.nextafter(bent[1, 0], 2)
    found = symmetric(bent)
    assert (found == found.T).all()
    assert (symmetric(np.asfortranarray(matrix)) == matrix).all()
    assert symmetric(matrix.astype(np.float32)).dtype == np.float64
    frozen = matrix.copy()
    frozen.setflags(write=False)
    assert extremes(frozen, bound=False).smallest == pytest.approx(1)
    assert extremes(np.array([[2, 1], [1, 2]])).largest == pytest.approx(3)
    assert np.allclose(absolute_row_sums(-matrix), np.abs(matrix).sum(axis=1))
