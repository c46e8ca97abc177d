"""The linearised prediction against the iteration itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import rows
from zeroloss import predict_descent
from zeroloss.training import linearise


@given(n=st.integers(1, 8), k=st.integers(1, 3), seed=st.integers(0, 1000), step=st.floats(0.01, 1.9))
def test_norms_are_those_of_the_iteration(n, k, seed, step):
    a = rows(n, n + 2, seed)
    kernel = a @ a.T
    kernel = kernel / torch.linalg.eigvalsh(kernel)[-1]
    residual = rows(n, k, seed + 1)
    r, norms = residual.clone(), []
    for _ in range(9):
        norms.append(float(r.norm()))
        r = r - step * kernel @ r
    assert predict_descent(kernel, residual, step, range(9)).tolist() == pytest.approx(norms, rel=1e-9, abs=1e-13)


def test_a_full_kernel_is_sample_major():
    """(nk) x (nk) against n x k residuals: with different kernels for two outputs the order matters."""
    first, second = torch.diag(torch.tensor([1.0, 0.1])).double(), torch.diag(torch.tensor([0.5, 0.2])).double()
    full = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
    full[:, 0, :, 0], full[:, 1, :, 1] = first, second
    residual = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    expected = [(0.0 * 1) ** 2 + (0.9 * 3) ** 2 + (0.5 * 2) ** 2 + (0.8 * 4) ** 2]
    assert float(predict_descent(full.reshape(4, 4), residual, 1.0, [1])[0]) ** 2 == pytest.approx(expected[0])


def test_steps_to_is_the_first_step_that_reaches():
    kernel = torch.diag(torch.tensor([1.0, 0.01], dtype=torch.float64))
    run = linearise(kernel, torch.tensor([1.0, 1.0], dtype=torch.float64))
    for until in (0.9, 0.5, 0.3, 1e-3, 1e-8):
        k = run.steps_to(1.0, until)
        start = float(run.norms(1.0, [0])[0])
        assert k is not None
        assert float(run.norms(1.0, [k])[0]) ** 2 <= until * start**2
        assert k == 0 or float(run.norms(1.0, [k - 1])[0]) ** 2 > until * start**2


def test_steps_to_says_never():
    kernel = torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64))
    ones = torch.ones(2, dtype=torch.float64)
    assert linearise(kernel, ones).steps_to(2.1, 1e-3) is None  # beyond 2/lambda_max
    assert linearise(torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)), ones).steps_to(1.0, 1e-3) is None
    assert linearise(kernel, 0 * ones).steps_to(1.0, 1e-3) == 0
    assert linearise(kernel, ones).steps_to(1.0, 0.0) is None  # nearer and nearer, never there


def test_an_empty_direction_stays_empty_where_its_factor_overflows():
    kernel = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
    norms = predict_descent(kernel, torch.tensor([1.0, 0.0], dtype=torch.float64), 1.0, [0, 1, 100, 3000])
    assert norms.tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, r: predict_descent(k, r, 0.0, [1]), "step is 0.0"),
        (lambda k, r: predict_descent(k, r, float("nan"), [1]), "step is nan"),
        (lambda k, r: predict_descent(k, r, 1.0, [-1]), "negative step"),
        (lambda k, r: predict_descent(k, r[:2], 1.0, [1]), r"residual has shape \(2,\)"),
        (lambda k, r: predict_descent(k, r * torch.inf, 1.0, [1]), "NaN or infinity"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.eye(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
