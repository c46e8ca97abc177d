"""Predictions against slow twins: iterations in the space of outputs, mpmath's digits, and means over drawn batches."""

from __future__ import annotations

import math
import time

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import rows
from zeroloss import fully_connected, limit_kernel, predict_descent
from zeroloss.training import Batches, forecast_descent, predict
from zeroloss.training.filters import descent_filter, flow_filter, heavy_ball_filter
from zeroloss.training.sgd_moments import expected_squares

KS = torch.tensor([0, 1, 2, 3, 7, 50, 1001], dtype=torch.float64)


def problem(n: int, m: int, k: int, seed: int, full: bool = False):
    """A kernel of largest eigenvalue 1 over n rows, across to m test points, and residuals of both."""
    size, other = (n * k, m * k) if full else (n, m)
    features = rows(size + other, size + other + 2, seed)
    joint = features @ features.T
    joint = joint / torch.linalg.eigvalsh(joint[:size, :size])[-1]
    return joint[:size, :size], joint[size:, :size], rows(n, k, seed + 1), rows(m, k, seed + 2)


@given(
    seed=st.integers(0, 1000),
    k=st.integers(1, 3),
    step=st.floats(0.05, 1.95),
    mu=st.sampled_from([0.0, 0.5, 0.9]),
    full=st.booleans(),
)
def test_train_and_test_residuals_are_those_of_the_iteration(seed, k, step, mu, full):
    K, cross, r0, t0 = problem(4, 3, k, seed, full)
    steps = [0, 1, 2, 5, 11]
    told = predict(K, r0, step, steps, momentum=mu, cross=cross, test_residual=t0)
    r, t = (z.reshape(len(M), -1) for z, M in ((r0, K), (t0, cross)))
    v, w = torch.zeros_like(r), torch.zeros_like(t)
    seen = []
    for _ in range(12):
        seen.append((r.reshape(r0.shape), t.reshape(t0.shape)))
        v, w = mu * v - step * K @ r, mu * w - step * cross @ r
        r, t = r + v, t + w
    for i, step_number in enumerate(steps):
        a, b = seen[step_number]
        torch.testing.assert_close(told.residuals[i], a, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(told.test_residuals[i], b, rtol=1e-9, atol=1e-10)
        assert float(told.test_losses[i]) == pytest.approx(float(b.square().sum()) / 2, rel=1e-9)
        assert float(told.losses[i]) == pytest.approx(float(a.square().sum()) / 2, rel=1e-9, abs=1e-20)


@pytest.mark.parametrize("a", [0.0, 1e-300, 1e-17, 1e-9, 1e-3, 0.5, 1.0, 1.5, 2 - 1e-9, 2.0, 2.01, -1e-12])
def test_filters_keep_their_digits(a):
    """Relative accuracy at both ends: tiny eigenvalues, where 1-p cancels, and many steps, where p is tiny."""
    lam, step = torch.tensor([a], dtype=torch.float64), 1.0
    with mpmath.workdps(60):
        for made, exact in (
            (descent_filter, lambda x, k: (1 - x) ** int(k)),
            (flow_filter, lambda x, k: mpmath.exp(-x * k)),
        ):
            p, s = made(lam, step, KS)
            for i, k in enumerate(KS.tolist()):
                x = mpmath.mpf(a)
                left = exact(x, k)
                moved = (1 - left) / x if a and abs(a) > 1e-50 else mpmath.mpf(k)
                for ours, true in ((p[i, 0], left), (s[i, 0], moved)):
                    assert abs(mpmath.mpf(float(ours)) - true) <= 1e-12 * abs(true) + mpmath.mpf("1e-300"), (made, a, k)


@pytest.mark.parametrize("mu", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("a", [0.0, 1e-9, 1e-3, (1 - 0.9**0.5) ** 2, 0.5, 1.9, 3.7])
def test_heavy_ball_keeps_its_digits(a, mu):
    p, s = heavy_ball_filter(torch.tensor([a], dtype=torch.float64), 1.0, mu, KS)
    with mpmath.workdps(60):
        left, velocity, moved, at = mpmath.mpf(1), mpmath.mpf(0), mpmath.mpf(0), {}
        scale = mpmath.mpf(1)
        for k in range(1002):
            at[k] = (left, moved, max(abs(left), mpmath.mpf(mu) ** (mpmath.mpf(k) / 2)))
            velocity = left + mu * velocity
            left, moved = left - a * velocity, moved + velocity
        for i, k in enumerate(KS.int().tolist()):
            true, far, scale = at[k]
            if abs(true) < mpmath.mpf("1e280"):
                assert abs(mpmath.mpf(float(p[i, 0])) - true) <= 1e-11 * scale
                assert abs(mpmath.mpf(float(s[i, 0])) - far) <= 1e-11 * max(abs(far), 1)


def test_tiny_residuals_keep_their_relative_accuracy():
    """After 600 steps the norm is 1e-120; a difference of outputs and targets would have left 1e-16."""
    K, cross, r0, t0 = problem(5, 2, 1, 3)
    K = K + 0.3 * torch.eye(5, dtype=torch.float64)
    told = predict(K, r0, 1.0, [600], cross=cross, test_residual=t0)
    r = [mpmath.mpf(float(v)) for v in r0.flatten()]
    with mpmath.workdps(60):
        power = mpmath.eye(5) - mpmath.matrix(K.tolist())
        power = power**600 * mpmath.matrix(r)
        for ours, true in zip(told.residuals.flatten().tolist(), power, strict=True):
            assert abs(ours - true) <= 1e-9 * mpmath.norm(power)
        assert float(told.norms[0]) == pytest.approx(float(mpmath.norm(power)), rel=1e-10)
    assert float(told.norms[0]) < 1e-60


def test_the_flow_is_the_limit_of_small_steps_and_takes_fractions():
    K, cross, r0, t0 = problem(4, 2, 2, 5)
    flow = predict(K, r0, 1.0, [0.5, 3.0], method="flow", cross=cross, test_residual=t0)
    fine = predict(K, r0, 1e-6, [500_000, 3_000_000], cross=cross, test_residual=t0)
    torch.testing.assert_close(flow.residuals, fine.residuals, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(flow.test_residuals, fine.test_residuals, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(flow.residuals[1], torch.matrix_exp(-3 * K) @ r0)
    assert predict_descent(K, r0, 1.0, [0.5], method="flow").item() == pytest.approx(float(flow.norms[0]))


def drawn(K, z0, size, step, mu, b, replacement, last, runs, seed):
    """Means and standard errors of the squares of r and of t over independent runs."""
    n = K.shape[1] // size
    generator = torch.Generator().manual_seed(seed)
    z = z0[None].repeat(runs, 1, 1)
    v = torch.zeros_like(z)
    for _ in range(last):
        order = torch.rand(runs, n, generator=generator, dtype=torch.float64).argsort(dim=1)[:, :b]
        if replacement:
            order = torch.randint(n, (runs, b), generator=generator)
        weight = torch.zeros(runs, n, dtype=torch.float64).scatter_add_(
            1, order, torch.full((runs, b), n / b, dtype=torch.float64)
        )
        v = mu * v - step * torch.einsum("Nk,rkc->rNc", K, weight.repeat_interleave(size, dim=1)[:, :, None] * z[:, : K.shape[1]])
        z = z + v
    parts = [z[:, : K.shape[1]], z[:, K.shape[1] :]]
    squares = [part.square().sum(dim=(1, 2)) for part in parts]
    return z, [(float(q.mean()), float(q.std()) / math.sqrt(runs)) for q in squares]


@pytest.mark.parametrize("mu", [0.0, 0.6])
@pytest.mark.parametrize(("b", "replacement"), [(1, False), (2, False), (2, True), (5, True)])
@pytest.mark.parametrize("full", [False, True])
def test_sgd_in_expectation_is_the_mean_over_drawn_batches(b, replacement, mu, full):
    K, cross, r0, t0 = problem(5, 3, 2, 7, full)
    step, last, runs = 0.15, 12, 20_000
    told = predict(
        K, r0, step, [last], method="sgd", momentum=mu, batch=b, replacement=replacement, cross=cross, test_residual=t0
    )
    z0 = torch.cat([r0.reshape(len(K), -1), t0.reshape(len(cross), -1)])
    joint = torch.cat([K, cross])
    z, ((mean, error), (test_mean, test_error)) = drawn(joint, z0, 2 if full else 1, step, mu, b, replacement, last, runs, b)
    assert abs(2 * float(told.losses[0]) - mean) < 4 * error
    assert abs(2 * float(told.test_losses[0]) - test_mean) < 4 * test_error
    means = z.mean(dim=0)
    errors = z.std(dim=0) / math.sqrt(runs)
    expected = torch.cat([told.residuals[0].reshape(len(K), -1), told.test_residuals[0].reshape(len(cross), -1)])
    assert float(((means - expected).abs() / errors).max()) < 4.5
    # the other rule, and the noiseless run, are told apart
    if b > 1:
        other = predict(K, r0, step, [last], method="sgd", momentum=mu, batch=b, replacement=not replacement)
        assert abs(2 * float(other.losses[0]) - mean) > 6 * error
    assert abs(float(predict(K, r0, step, [last], momentum=mu).norms[0]) ** 2 - mean) > 6 * error


@pytest.mark.parametrize("mu", [0.0, 0.8])
def test_sgd_with_all_rows_is_gradient_descent(mu):
    K, cross, r0, t0 = problem(6, 3, 2, 9, full=True)
    steps = [0, 1, 5, 40, 41]
    plain = predict(K, r0, 0.7, steps, momentum=mu, cross=cross, test_residual=t0)
    drawn_all = predict(K, r0, 0.7, steps, method="sgd", momentum=mu, batch=6, cross=cross, test_residual=t0)
    assert drawn_all.norms.tolist() == pytest.approx(plain.norms.tolist(), rel=1e-9)
    assert drawn_all.test_losses.tolist() == pytest.approx(plain.test_losses.tolist(), rel=1e-9)
    run = forecast_descent(K, r0, torch.zeros_like(r0), 0.7, momentum=mu, max_steps=41, until=0.0)
    assert run.loss[steps].tolist() == pytest.approx(drawn_all.losses.tolist(), rel=1e-9)


@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_sgd_with_replacement_is_the_mean_of_the_forecasts(mu):
    """The batches of ``descend`` itself, over 400 seeds."""
    K, _, r0, _ = problem(6, 1, 1, 11)
    told = predict_descent(K, r0, 0.2, [9], method="sgd", momentum=mu, batch=2, replacement=True).square() / 2
    losses = torch.tensor(
        [
            float(
                forecast_descent(K, r0, 0 * r0, 0.2, batch=2, replacement=True, momentum=mu, max_steps=9, until=0.0, seed=s).loss[
                    -1
                ]
            )
            for s in range(400)
        ]
    )
    assert abs(float(told[0]) - float(losses.mean())) < 4 * float(losses.std()) / 20


def test_sgd_that_grows_ends_at_infinity_and_a_mean_may_fall_while_squares_grow():
    K = torch.eye(8, dtype=torch.float64)
    ones = torch.ones(8, 1, dtype=torch.float64)
    told = predict(K, ones, 0.5, [0, 1, 30, 5000], method="sgd", batch=1)
    assert float(told.residuals[2].norm()) < 1e-8
    # every row on its own: kept with chance 7/8, multiplied by 1 - 8/2 with 1/8
    assert told.norms[:3].tolist() == pytest.approx([8**0.5 * (7 / 8 + 9 / 8) ** (k / 2) for k in (0, 1, 30)], rel=1e-12)
    assert math.isinf(told.norms[3])


def test_one_row_and_one_draw():
    one = torch.ones(1, 1, dtype=torch.float64)
    for replacement in (False, True):
        assert predict_descent(one, 3 * one, 0.5, [2], method="sgd", batch=1, replacement=replacement).item() == pytest.approx(
            0.75
        )
    squares, _ = expected_squares(one, one, 0.5, 0.0, Batches(1, 1, replacement=True), torch.tensor([3.0]).double())
    assert float(squares[0]) == pytest.approx(1 / 64)


def test_an_overflowing_direction_without_residual_stays_empty():
    K = torch.diag(torch.tensor([1.0, 9.0], dtype=torch.float64))
    r0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for mu in (0.0, 0.5):
        told = predict(K, r0, 0.5, [2000], momentum=mu)
        assert torch.isfinite(told.residuals).all()
        assert math.isinf(predict(K, r0.flip(0), 0.5, [2000], momentum=mu).norms[0])


def test_late_steps_are_instant_and_the_limit_kernel_is_a_kernel():
    net = fully_connected(3, 16, 1, scheme="du", activation="erf")
    x = torch.nn.functional.normalize(rows(60, 3), dim=1)
    K, start = limit_kernel(net)(x), time.perf_counter()
    far = predict(K, rows(60, 1), 1.0 / float(torch.linalg.eigvalsh(K)[-1]), [10**5, 10**9], momentum=0.9)
    curve = predict_descent(K, rows(60, 1), 0.01, range(100_000))
    assert time.perf_counter() - start < 5
    assert len(curve) == 100_000
    assert bool((curve.diff() <= 0).all())
    assert float(far.norms[1]) <= float(far.norms[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sdg"}, "did you mean 'sgd'"),
        ({"method": "sgd"}, "batch is None with method='sgd'"),
        ({"method": "sgd", "batch": 4}, "whole number from 1 to 3"),
        ({"batch": 2}, "batch, replacement are 2"),
        ({"replacement": True}, "batch, replacement are None and True"),
        ({"method": "flow", "momentum": 0.5}, "momentum is 0.5 with the flow"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"steps": [0.5]}, "fraction"),
        ({"steps": [math.inf]}, "fraction or infinity"),
        ({"steps": [-1], "method": "flow"}, "negative step"),
        ({"step": -1.0}, "step is -1.0"),
        ({"cross": torch.ones(2, 3).double()}, "not both given"),
        ({"cross": torch.ones(2, 4).double(), "test_residual": torch.ones(2, 1)}, "have shapes"),
        ({"cross": torch.ones(2, 3).double(), "test_residual": torch.ones(3, 1)}, "have shapes"),
        ({"cross": torch.ones(2, 3).double(), "test_residual": torch.tensor([1.0, math.nan])}, "test_residual has NaN"),
        ({"residual": torch.ones(0, 1)}, "residual has shape"),
        ({"residual": torch.ones(2, 1)}, "residual has shape"),
    ],
)
def test_mistakes_take_one_line(options, message):
    call = {"residual": torch.ones(3, 1, dtype=torch.float64), "step": 0.5, "steps": [1]} | options
    with pytest.raises(ValueError, match=message) as caught:
        predict(torch.eye(3, dtype=torch.float64), call.pop("residual"), call.pop("step"), call.pop("steps"), **call)
    assert "\n" not in str(caught.value)
