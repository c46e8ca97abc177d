"""Nearest neighbours, duplicates and parallel pairs against slow twins in exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from zeroloss.data import duplicate_groups, find_conflicts, geometry, nearest_distances, parallel_pairs, row_norms, unit_rows


def exact_nearest(x: torch.Tensor) -> list[float]:
    rows = [[Fraction(v) for v in row] for row in x.tolist()]
    squares = [
        min((sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) for j, q in enumerate(rows) if j != i), default=None)
        for i, p in enumerate(rows)
    ]
    return [exact_root(s) for s in squares]


def exact_root(square: Fraction) -> float:
    # An integer root of 2**400 times the square keeps every digit of distances down to 1e-40.
    return float(Fraction(math.isqrt(int(square * 2**800)), 2**400))


@pytest.mark.parametrize("norm", [1.0, 1e3])
@pytest.mark.parametrize("tile", [4, 7, 1024])
def test_near_duplicates_keep_every_digit(norm: float, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "TILE", tile)
    g = torch.Generator().manual_seed(1)
    x = torch.randn(12, 6, dtype=torch.float64, generator=g)
    x = norm * x / x.norm(dim=1, keepdim=True)
    # Several partners within the product's error bar of each other, so that its favourite is often the wrong one.
    near = [x[i % 3] + 1e-9 * (1 + i / 8) * torch.randn(6, dtype=torch.float64, generator=g) for i in range(9)]
    x = torch.cat([x, torch.stack(near)])[torch.randperm(21, generator=g)]
    torch.testing.assert_close(nearest_distances(x), torch.tensor(exact_nearest(x), dtype=torch.float64), rtol=1e-14, atol=0)
    square = (x * x).sum(1)
    naive = (square[:, None] + square - 2 * x @ x.T).clamp(min=0).sqrt().fill_diagonal_(math.inf).amin(1)
    assert (naive / nearest_distances(x) - 1).abs().max() > 1e-3  # the control: the product alone does lose them


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(-100, 100, width=32)))
def test_nearest_is_the_exact_minimum(values: np.ndarray) -> None:
    x = torch.from_numpy(values)
    if len(x) == 1:
        assert nearest_distances(x).tolist() == [math.inf]
        return
    wanted = torch.tensor(exact_nearest(x), dtype=torch.float64)
    found = nearest_distances(x)
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-60)
    in_group = {i for group in duplicate_groups(x) for i in group}
    assert {i for i, v in enumerate(found.tolist()) if v == 0} == in_group


def test_agrees_with_scipy_across_tiles() -> None:
    x = torch.randn(2100, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[2050] = x[3]
    distances = cdist(x.numpy(), x.numpy())
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_allclose(nearest_distances(x).numpy(), distances.min(1), rtol=1e-13)


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e-310])
def test_distances_and_norms_at_the_ends_of_the_range(scale: float) -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [30.0, 40.0]], dtype=torch.float64) * scale
    torch.testing.assert_close(nearest_distances(x) / scale, torch.tensor([5.0, 5.0, 45.0], dtype=torch.float64))
    torch.testing.assert_close(row_norms(x) / scale, torch.tensor([5.0, 0.0, 50.0], dtype=torch.float64))
    torch.testing.assert_close(unit_rows(x)[0], torch.tensor([0.6, 0.8], dtype=torch.float64))


def test_small_rows_beside_large_ones() -> None:
    x = torch.tensor([[1e200, 0.0], [1e-200, 0.0], [3e-200, 0.0]], dtype=torch.float64)
    assert nearest_distances(x).tolist() == [1e200, pytest.approx(2e-200), pytest.approx(2e-200)]


def test_rows_at_one_common_distance() -> None:
    assert nearest_distances(torch.eye(50, dtype=torch.float64)).tolist() == pytest.approx([math.sqrt(2)] * 50, rel=1e-15)


def test_duplicates_are_exact() -> None:
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0], [-0.0, 1.0], [math.nextafter(1, 2), 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert duplicate_groups(x) == ((0, 2), (1, 4))
    assert nearest_distances(x).tolist() == [0.0, 0.0, 0.0, 2**-52, 0.0]


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float64, (4, 2), elements=st.floats(-1e6, 1e6)), st.floats(-1e3, 1e3))
def test_no_prediction_beats_the_floor(y: np.ndarray, shift: float) -> None:
    found = find_conflicts(((0, 1, 2, 3),), torch.from_numpy(y))
    floor = sum(c.unreachable_loss for c in found)
    mean = y.mean(0)
    assert floor == pytest.approx(0.5 * ((mean - y) ** 2).sum(), rel=1e-9, abs=1e-6)
    assert 0.5 * ((mean + shift - y) ** 2).sum() >= floor * (1 - 1e-9) - 1e-6


def test_floor_keeps_its_digits_beside_a_large_common_part() -> None:
    (conflict,) = find_conflicts(((0, 1),), torch.tensor([[1e9], [1e9 + 2]], dtype=torch.float64))
    assert conflict.unreachable_loss == pytest.approx(1.0, rel=1e-6)
    assert find_conflicts(((0, 1),), torch.tensor([[1.0], [1.0]])) == ()


def test_parallel_pairs() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(30, 20, dtype=torch.float64, generator=g)
    x[7] = -3e150 * x[2]
    x[20] = 0.1 * x[5]
    x[25] = x[6] + 1e-9  # near, but not parallel
    x[28] = 0
    assert parallel_pairs(x) == ((2, 7), (5, 20))
    assert parallel_pairs(x[:2]) == ()


def test_parallel_list_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MAX_PARALLEL", 5)
    assert len(parallel_pairs(torch.arange(1.0, 9.0, dtype=torch.float64)[:, None])) == 5
