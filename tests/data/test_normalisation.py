"""Normalisation: the identities that define it, at ordinary and at extreme scales."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zeroloss.data import normalise, pad, remove_mean, standardise, to_sphere
from zeroloss.errors import ArgumentError

ROWS = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e200, 1e200))


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_padding_has_unit_norm_and_a_constant_bias(values: np.ndarray) -> None:
    out = pad(torch.from_numpy(values))
    assert out.shape == (values.shape[0], values.shape[1] + 2)
    assert (out.norm(dim=1) - 1).abs().max() < 1e-12
    assert (out[:, -1] - math.sqrt(0.5)).abs().max() < 1e-15
    assert (out @ out.T).min() >= -1e-12  # no angle above 90 degrees (THEORY 1.1)


def test_padding_is_the_papers_formula() -> None:
    x = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s = 1 / (math.sqrt(2) * x.norm(dim=1).max())
    out = pad(x)
    torch.testing.assert_close(out[:, :4], s * x)
    torch.testing.assert_close(out[:, 4], (0.5 - (s * x).square().sum(1)).clamp(min=0).sqrt(), rtol=1e-7, atol=1e-7)


def test_padding_keeps_near_duplicates_of_equal_norm_together() -> None:
    x = torch.tensor([[1.0, 0.0], [math.cos(1e-9), math.sin(1e-9)]], dtype=torch.float64) * 0.3
    out = pad(x)
    assert float((out[0] - out[1]).norm()) == pytest.approx(1e-9 / math.sqrt(2), rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200, 1e-300])
def test_sphere(scale: float) -> None:
    x = torch.randn(5, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = to_sphere(scale * x)
    torch.testing.assert_close(out, x / x.flatten(1).norm(dim=1)[:, None, None, None], rtol=1e-14, atol=0)


def test_sphere_refuses_zero_rows() -> None:
    x = torch.ones(5, 2, dtype=torch.float64)
    x[[2, 4]] = 0
    with pytest.raises(ArgumentError, match=r"x has 2 rows of zeros \(first: row 2\), where the unit norm .*'padded' or 'none'"):
        to_sphere(x)
    assert (pad(x).norm(dim=1) - 1).abs().max() < 1e-12


@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200])
def test_standardise(scale: float) -> None:
    x = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * scale
    x[:, 3] = 0.1 * scale  # whose mean is not representable: the column must still become exactly 0
    out = standardise(x)
    torch.testing.assert_close(out.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-13, rtol=0)
    torch.testing.assert_close(out[:, :3].std(0, correction=0), torch.ones(3, dtype=torch.float64))
    assert out[:, 3].unique().tolist() == [0.0]


@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200])
def test_remove_mean(scale: float) -> None:
    x = torch.rand(7, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:, 0, 1, 1] = 0.1
    out = remove_mean(scale * x) / scale
    torch.testing.assert_close(out, x - x.mean(0), rtol=1e-12, atol=1e-14)
    assert out[:, 0, 1, 1].unique().tolist() == [0.0]


@pytest.mark.parametrize("images", [True, False])
def test_auto_refuses_a_row_that_is_the_mean(images: bool) -> None:
    x = torch.tensor([[0.1, 0.7], [0.3, 0.1], [0.2, 0.4]], dtype=torch.float64)  # the last equals the mean up to rounding
    with pytest.raises(ArgumentError, match=r"1 row of zeros \(first: row 2\)"):
        normalise(x, "auto", images=images)


def test_normalise_dispatches() -> None:
    x = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    torch.testing.assert_close(normalise(x, "auto", images=False), to_sphere(standardise(x)))
    torch.testing.assert_close(normalise(x, "auto", images=True), to_sphere(x - x.mean(0)))
    torch.testing.assert_close(normalise(x, "sphere", images=False), to_sphere(x))
    torch.testing.assert_close(normalise(x, "padded", images=False), pad(x))
    assert normalise(x, "none", images=False).equal(x)
    with pytest.raises(ArgumentError, match="normalise is 'spere', which is not known; did you mean 'sphere'"):
        normalise(x, "spere", images=False)
    with pytest.raises(ArgumentError, match="x has one row"):
        normalise(x[:1], "auto", images=True)
