"""Partial spectra beside full ones: matrices, operators, repeated eigenvalues."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from tests.spectrum.matrices import operator_of, with_spectrum
from zeroloss import extremes
from zeroloss.spectrum import eigenpairs, largest_eigenvalue

N = 600  # above the size up to which everything is decomposed
SPECTRA = {
    "geometric": np.geomspace(1e-4, 1, N),
    "repeated": np.concatenate([np.full(3, 0.1), np.linspace(0.5, 2, N - 6), np.full(3, 4.0)]),
    "indefinite": np.linspace(-3, 2, N),
    "few": np.repeat([1.0, 2.0, 5.0], N // 3),
    "zero": np.zeros(N),
    "low rank": np.concatenate([np.zeros(N - 2), [1.0, 3.0]]),
}


@pytest.mark.parametrize("which", ["smallest", "largest"])
@pytest.mark.parametrize("k", [1, 5, None])
@pytest.mark.parametrize("kind", ["tensor", "operator"])
@pytest.mark.parametrize("name", SPECTRA)
def test_they_are_those_of_a_full_decomposition(name, kind, k, which):
    matrix = with_spectrum(SPECTRA[name], 0)
    given = torch.from_numpy(matrix) if kind == "tensor" else operator_of(matrix)
    pairs = eigenpairs(given, k, which)
    wanted = np.sort(SPECTRA[name])
    wanted = (wanted if which == "smallest" else wanted[::-1])[:k]
    assert pairs.converged
    assert pairs.values.shape == wanted.shape
    assert np.allclose(pairs.values.numpy(), wanted, rtol=1e-8, atol=1e-8)
    vectors = pairs.vectors.numpy()
    assert np.allclose(vectors.T @ vectors, np.eye(vectors.shape[1]), atol=1e-8)
    true = np.linalg.norm(matrix @ vectors - vectors * pairs.values.numpy(), axis=0)
    assert np.allclose(pairs.residuals.numpy(), true, atol=1e-12)
    assert true.max() < 1e-7


def test_a_few_pairs_of_an_operator_cost_few_products():
    operator = operator_of(with_spectrum(np.concatenate([np.linspace(0, 1, N - 1), [10.0]]), 1))
    eigenpairs(operator, 1, "largest")
    assert operator.count < 40


def test_what_does_not_converge_says_so(monkeypatch):
    monkeypatch.setattr(sys.modules["zeroloss.spectrum.eigenpairs"], "STEPS", 4)
    pairs = eigenpairs(operator_of(with_spectrum(np.geomspace(1e-6, 1, N), 2)), 1)
    assert not pairs.converged
    assert pairs.residuals[0] > 1e-6


@pytest.mark.parametrize("n", [1, 2, 70])
def test_small_ones(n):
    matrix = with_spectrum(np.linspace(1, 2, n), 3)
    for given in (matrix, aslinearoperator(matrix)):
        assert torch.allclose(eigenpairs(given).values, torch.linspace(1, 2, n, dtype=torch.float64))
        assert float(eigenpairs(given, 1, "largest").values[0]) == pytest.approx(2 if n > 1 else 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eigenpairs(np.eye(3), 0), "k is 0 for 3 rows"),
        (lambda: eigenpairs(np.eye(3), 4), "k is 4 for 3 rows"),
        (lambda: eigenpairs(np.eye(3), True), "k is True"),
        (lambda: eigenpairs(np.ones((2, 3))), r"shape \(2, 3\)"),
        (lambda: eigenpairs(np.ones(3)), r"shape \(3,\)"),
        (lambda: eigenpairs(np.ones((0, 0))), r"shape \(0, 0\)"),
        (lambda: eigenpairs(np.full((2, 2), np.nan)), "NaN"),
        (lambda: eigenpairs(aslinearoperator(np.ones((2, 3)))), r"operator has shape \(2, 3\)"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_end_is_refused_by_name():
    from zeroloss.spectrum.eigenpairs import eigenpairs as unchecked

    with pytest.raises((ValueError, TypeError), match="larges"):
        unchecked(np.eye(3), 1, "larges")


@pytest.mark.parametrize("n", [3, 64, 65, 600])
@pytest.mark.parametrize("ask", [extremes, largest_eigenvalue, lambda a: eigenpairs(a, 1)])
def test_operators_that_are_none_are_refused(n, ask):
    generator = np.random.default_rng(0)
    slanted = generator.standard_normal((n, n))
    with pytest.raises(ValueError, match="not symmetric"):
        ask(aslinearoperator(slanted))
    turning = np.eye(n) + 0.1 * (slanted - slanted.T)
    with pytest.raises(ValueError, match="not symmetric"):
        ask(aslinearoperator(turning))
    with pytest.raises(ValueError, match="NaN or infinity"):
        ask(LinearOperator((n, n), matvec=lambda v: np.full(n, np.nan), dtype=np.float64))
    with pytest.raises(ValueError, match="dtype"):
        ask(aslinearoperator(np.eye(n) * 1j))


@pytest.mark.parametrize("n", [1, 100])
def test_extremes_of_odd_operators(n):
    zero = extremes(aslinearoperator(np.zeros((n, n))))
    assert (zero.smallest, zero.largest, zero.smallest_bound) == (0.0, 0.0, None)
    one = extremes(aslinearoperator(np.eye(n)))
    assert (one.smallest, one.largest) == pytest.approx((1, 1))
    half = extremes(aslinearoperator(np.eye(n, dtype=np.float32)))
    assert (half.smallest, half.largest) == pytest.approx((1, 1))
    negative = extremes(aslinearoperator(-np.diag(np.linspace(1, 2, n))))
    assert (negative.smallest, negative.largest) == pytest.approx((-2 if n > 1 else -1, -1), rel=1e-8)


def test_both_ends_of_an_operator_to_eight_digits():
    for values in (np.linspace(0.5, 7, N), np.geomspace(1e-3, 1, N), np.linspace(-1, 1, N)):
        ends = extremes(operator_of(with_spectrum(values, 5)))
        assert (ends.smallest, ends.largest) == pytest.approx((values.min(), values.max()), rel=1e-8)
