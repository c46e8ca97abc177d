"""Extremes against matrices whose spectrum is known, and the lower bound both ways: true, and not vacuous."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from tests.spectrum.matrices import with_spectrum
from zeroloss import extremes, fully_connected, limit_kernel
from zeroloss.spectrum import largest_eigenvalue, spectral_norm
from zeroloss.spectrum.bound import _defect, smallest_bound


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


@given(n=st.integers(1, 12), power=st.integers(-14, -1), seed=st.integers(0, 10_000))
def test_entries_that_err_lower_the_bound(n, power, seed):
    """Never above the smallest eigenvalue of the matrix that is meant, with every entry off by as much as it may."""
    rng, error = np.random.default_rng(seed), 10.0**power
    meant = with_spectrum(rng.uniform(0.5, 2, n), seed)
    signs = np.triu(rng.choice([-1.0, 1.0], (n, n)))
    given_matrix = meant + error * (1 - 1e-6) * (signs + np.triu(signs, 1).T) - 2.0**-52
    bound = extremes(given_matrix, entry_error=error + 2.0**-51).smallest_bound
    with mpmath.workdps(60):
        exact = min(mpmath.eigsy(mpmath.matrix(meant.tolist()), eigvals_only=True))
        assert mpmath.mpf(bound) <= exact


@pytest.mark.parametrize("n", [1, 5, 100])
def test_the_lowered_bound_is_n_errors_lower_and_no_more(n):
    """All entries too large by the error is the worst there is: n times it, in the direction of ones. The eigenvalues stay."""
    matrix, error = with_spectrum(np.linspace(1, 2, n), 0), 1e-4
    plain, lowered = extremes(matrix), extremes(matrix, entry_error=error)
    assert plain.smallest_bound - lowered.smallest_bound == pytest.approx(n * error, rel=1e-9)
    assert (lowered.smallest, lowered.largest) == (plain.smallest, plain.largest)
    assert extremes(matrix, entry_error=0.0) == plain
    worst = np.eye(n) - error  # meant: the identity less twice the error, whose smallest eigenvalue is along ones
    assert extremes(worst, entry_error=error).smallest_bound == pytest.approx(1 - 2 * n * error, abs=1e-12 * n)


def test_an_error_below_rounding_still_lowers_the_bound():
    assert extremes(np.eye(3), entry_error=1e-30).smallest_bound < extremes(np.eye(3)).smallest_bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kernels_own_entry_error_covers_its_smallest_eigenvalue(dtype):
    """A float32 kernel's bound is true for the float64 one, formed otherwise, and both are close to it."""
    x = torch.nn.functional.normalize(torch.randn(70, 40, dtype=torch.float64)).to(dtype)
    kernel = limit_kernel(fully_connected(40, 8, 2))
    meant = float(torch.linalg.eigvalsh(kernel(x.double()))[0])
    ends = extremes(kernel(x), entry_error=kernel.entry_error(x))
    assert meant * (0.9 if dtype == torch.float32 else 1 - 1e-9) <= ends.smallest_bound <= meant


@pytest.mark.parametrize("error", [-1e-9, float("nan"), float("inf"), -float("inf")])
def test_an_entry_error_that_is_none_is_refused(error):
    with pytest.raises(ValueError, match=r"entry_error is .*finite number of at least 0"):
        extremes(np.eye(2), entry_error=error)


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


def test_an_operator_whose_smallest_eigenvalues_crowd_is_written_out():
    """Restarted Lanczos took six thousand times twenty products here, and then gave up."""
    matrix = with_spectrum(1e-4 + np.linspace(0, 1, 400) ** 4, 3)
    products = 0

    def count(v: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        return matrix @ v

    ends = extremes(LinearOperator(matrix.shape, matvec=count, dtype=np.float64))
    assert ends.smallest == pytest.approx(1e-4, rel=1e-8)
    assert ends.largest == pytest.approx(1.0001, rel=1e-8)
    assert products < 2 * len(matrix)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_norm_of_a_matrix_of_any_scale(scale):
    matrix = np.random.default_rng(0).standard_normal((90, 70))
    assert spectral_norm(torch.from_numpy(matrix * scale)) == pytest.approx(np.linalg.norm(matrix, 2) * scale, rel=1e-7)


def test_the_defect_counts_every_entry_and_the_rounding_of_every_product():
    """Over several tiles, with a factor that is wrong everywhere: not below the entries' own sums, and not far above."""
    n = 600
    generator = np.random.default_rng(0)
    matrix = with_spectrum(generator.uniform(1, 2, n), 1)
    factor = np.linalg.cholesky(matrix) + 1e-3 * np.tril(generator.standard_normal((n, n)))
    plain = np.abs(matrix - 0.5 * np.eye(n) - factor @ factor.T).sum(axis=1)
    assert np.allclose(_defect(matrix, 0.5, np.asfortranarray(factor)), plain, rtol=1e-9)
    exact = np.diag(2.0 ** generator.integers(0, 4, n))
    hidden = _defect(exact @ exact, 0.0, np.asfortranarray(exact))
    assert (hidden >= n * 2.0**-53 * np.diag(exact) ** 2).all()
    assert (hidden <= 2 * n * 2.0**-53 * np.diag(exact) ** 2).all()
