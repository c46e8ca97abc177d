"""Where residuals lie, beside explicit projections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator

from tests.spectrum.matrices import with_spectrum
from zeroloss.spectrum import alignment
from zeroloss.training import predict_descent

N, K = 12, 3
VALUES = np.geomspace(0.01, 1, N)


def projections(matrix: np.ndarray, columns: np.ndarray) -> np.ndarray:
    _, vectors = np.linalg.eigh(matrix)
    shares = np.array([sum(float(v @ c) ** 2 for c in columns.T) for v in vectors.T[::-1]])
    return shares / (columns**2).sum()


@pytest.mark.parametrize("outputs", [None, 1, K])
@pytest.mark.parametrize("kind", [torch.from_numpy, aslinearoperator, np.asarray])
def test_shares_are_explicit_projections(outputs, kind):
    matrix = with_spectrum(VALUES, 0)
    r = torch.randn(N) if outputs is None else torch.randn(N, outputs)
    found = alignment(kind(matrix), r)
    assert torch.allclose(found.eigenvalues, torch.from_numpy(VALUES[::-1].copy()))
    assert np.allclose(found.shares, projections(matrix, r.double().reshape(N, -1).numpy()))
    assert float(found.cumulative[-1]) == pytest.approx(1)
    assert found.energy == pytest.approx(float(r.double().square().sum()))
    rayleigh = (
        float(torch.trace(r.double().reshape(N, -1).T @ torch.from_numpy(matrix) @ r.double().reshape(N, -1))) / found.energy
    )
    assert found.mean_eigenvalue == pytest.approx(rayleigh)


def test_a_kernel_over_outputs_is_sample_major():
    """Of a kernel that acts on one output only, a residual in that output has all its energy there; transposed it would not."""
    only_first = np.kron(with_spectrum(VALUES, 1), np.diag([1.0, 0.0]))
    r = torch.zeros(N, 2)
    r[:, 0] = torch.randn(N)
    assert float(alignment(only_first, r).cumulative[N - 1]) == pytest.approx(1)
    assert float(alignment(only_first, r.T.reshape(2 * N)).cumulative[N - 1]) < 0.9


def test_shares_are_the_weights_of_the_linearised_run():
    matrix, r = torch.from_numpy(with_spectrum(VALUES, 2)), torch.randn(N, K)
    found = alignment(matrix, r)
    norms = [float((found.energy * found.shares * (1 - 0.5 * found.eigenvalues) ** (2 * k)).sum().sqrt()) for k in (0, 3, 50)]
    assert norms == pytest.approx(predict_descent(matrix, r, 0.5, [0, 3, 50]).tolist())


def test_directions_for_a_share():
    found = alignment(np.diag([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 0.0, 2.0, 2.0]))
    assert found.cumulative.tolist() == pytest.approx([1 / 9, 1 / 9, 5 / 9, 1])
    assert [found.directions_for(s) for s in (0, 1 / 9, 0.2, 0.9, 1)] == [0, 1, 3, 4, 4]
    top = alignment(np.diag([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 0.0, 2.0, 2.0]), k=2)
    assert top.cumulative.tolist() == pytest.approx([1 / 9, 1 / 9])
    assert top.directions_for(0.5) is None
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        top.directions_for(1.5)


def test_a_few_of_many():
    values = np.concatenate([np.linspace(0.1, 1, 597), [5.0, 6.0, 7.0]])
    matrix, r = with_spectrum(values, 3), np.random.default_rng(0).standard_normal(600)
    whole, few = alignment(matrix, r), alignment(aslinearoperator(matrix), r, k=3)
    assert torch.allclose(few.shares, whole.shares[:3], atol=1e-9)
    assert few.energy == pytest.approx(whole.energy)


def test_repeated_eigenvalues_are_one_space():
    q = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    values = np.array([3.0, 3.0, 2.0, 2.0, 2.0, 1.0])
    r = q @ np.array([1.0, 2.0, 0.0, 2.0, 0.0, 4.0])
    eigenvalues, shares = alignment(q @ np.diag(values) @ q.T, r).by_eigenvalue()
    assert eigenvalues.tolist() == pytest.approx([3, 2, 1])
    assert shares.tolist() == pytest.approx([5 / 25, 4 / 25, 16 / 25])


def test_zero_residual_zero_kernel_and_one_row():
    nothing = alignment(np.eye(3), np.zeros(3))
    assert nothing.energy == 0
    assert nothing.shares.tolist() == [0, 0, 0]
    assert float(alignment(np.zeros((3, 3)), np.ones(3)).by_eigenvalue()[1][0]) == pytest.approx(1)
    one = alignment(np.ones((1, 1)), np.array([2]))
    assert (one.shares.tolist(), one.energy) == ([1.0], 4.0)
    tiny = alignment(np.eye(2), np.array([1e-200, 0.0]))
    assert tiny.shares.sum() == 1


@pytest.mark.parametrize(
    ("matrix", "r", "message"),
    [
        (np.eye(3), np.ones(4), r"residual has shape \(4,\) for a kernel of size 3"),
        (np.eye(6), np.ones((2, 3, 1)), "residual has shape"),
        (np.eye(3), np.array([1.0, np.nan, 0.0]), "residual has NaN"),
        (np.ones((0, 0)), np.ones(0), r"shape \(0, 0\)"),
        (np.triu(np.ones((3, 3))), np.ones(3), "not symmetric"),
    ],
)
def test_refusals(matrix, r, message):
    with pytest.raises(ValueError, match=message):
        alignment(matrix, r)
