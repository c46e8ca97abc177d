"""Effective ranks beside their definitions, and on matrices whose rank is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator
from scipy.stats import entropy

from tests.spectrum.matrices import with_spectrum
from zeroloss.spectrum import EffectiveRank, effective_rank, rank_of_eigenvalues


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_they_are_what_they_are_defined_as(scale):
    values = np.geomspace(1e-5, 1, 40)
    found = effective_rank(scale * with_spectrum(values, 0))
    assert found.entropy == pytest.approx(np.exp(entropy(values)), rel=1e-10)
    assert found.participation == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-10)
    jacobian = np.diag(np.sqrt(values))
    assert found.stable == pytest.approx(np.linalg.norm(jacobian) ** 2 / np.linalg.norm(jacobian, 2) ** 2, rel=1e-10)


@given(values=st.lists(st.floats(0, 1e3), min_size=1, max_size=20))
def test_they_are_in_order(values):
    found = rank_of_eigenvalues(torch.tensor(values, dtype=torch.float64))
    slack = 1 + 1e-9
    assert found.stable <= found.participation * slack
    assert found.participation <= found.entropy * slack
    assert found.entropy <= len(values) * slack
    assert found.stable >= (1 / slack if max(values) > 0 else 0)


@pytest.mark.parametrize("rank", [1, 3, 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projections(rank, dtype):
    matrix = torch.from_numpy(with_spectrum(np.concatenate([np.full(rank, 2.0), np.zeros(30 - rank)]), 1)).to(dtype)
    for given_matrix in (matrix, aslinearoperator(matrix.double().numpy())):
        found = effective_rank(given_matrix)
        assert (found.entropy, found.participation, found.stable) == pytest.approx((rank,) * 3, rel=1e-4)


def test_zero_and_one_row():
    assert effective_rank(np.zeros((4, 4))) == EffectiveRank(0.0, 0.0, 0.0)
    assert effective_rank(np.full((1, 1), 7.0)) == EffectiveRank(1.0, 1.0, 1.0)


@pytest.mark.parametrize("matrix", [np.diag([-1.0, 2.0]), -np.eye(2)])
def test_indefinite_ones_are_refused(matrix):
    with pytest.raises(ValueError, match="pass a positive semidefinite one"):
        effective_rank(matrix)


@pytest.mark.parametrize("values", [torch.tensor([]), torch.tensor([1.0, float("nan")])])
def test_values_that_are_none_are_refused(values):
    with pytest.raises(ValueError, match="values are empty, or have NaN"):
        rank_of_eigenvalues(values)
