"""The four theorems on problems where they are sharp, and on random ones against what really happens."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from zeroloss.certificate import Fails, gradient_descent, gradient_flow, newton, stochastic_descent

POSITIVE = st.floats(1e-3, 1e3)


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 250.0])
@pytest.mark.parametrize("lip", [1e-6, 1.0, 1e4])
def test_sharp_example_is_certified_to_within_a_millionth(sigma, lip):
    """f = sigma x - lip x^2/2 reaches y = rho if and only if 2 lip rho <= sigma^2; J' = -lip exactly."""
    limit = sigma**2 / (2 * lip)
    inside = gradient_flow(limit * (1 - 1e-6), sigma, lambda _: lip)
    assert not isinstance(inside, Fails)
    assert isinstance(gradient_flow(limit * (1 + 1e-6), sigma, lambda _: lip), Fails)
    root = (sigma - math.sqrt(sigma**2 - 2 * lip * limit * (1 - 1e-6))) / lip
    assert root <= inside.path <= root * (1 + 1e-5)
    assert isinstance(newton(sigma / lip / 2 * (1 + 1e-6), sigma, lambda _: lip), Fails)
    assert newton(sigma / lip / 2 * (1 - 1e-6), sigma, lambda _: lip).radius == pytest.approx(root, rel=1e-5)


@given(sigma=POSITIVE, lip=POSITIVE, share=st.floats(1e-6, 0.999))
def test_flow_on_the_worst_function(sigma, lip, share):
    """On the example the bounds of path and rate are attained: the path is the root, the slope there is alpha."""
    rho = share * sigma**2 / (2 * lip)
    found = gradient_flow(rho, sigma, lambda _: lip)
    assert not isinstance(found, Fails)
    root = 2 * rho / (sigma + math.sqrt(sigma**2 - 2 * lip * rho))
    assert root * (1 - 1e-11) <= found.path <= root * (1 + 1e-6)
    slope = sigma - lip * root
    assert found.alpha <= slope * (1 + 1e-6) + 1e-12
    assert found.path <= found.radius


@given(sigma=POSITIVE, lip=POSITIVE, share=st.floats(1e-3, 0.95), part=st.floats(0.05, 1.0))
def test_descent_on_the_worst_function(sigma, lip, share, part):
    """Real steps on f = sigma x - lip x^2/2: within the path, at the rate."""
    rho = share * sigma**2 / (2 * lip)
    found = gradient_descent(rho, sigma, sigma, lambda _: lip)
    assume(not isinstance(found, Fails))
    assert not isinstance(found, Fails)
    eta = found.step * part
    tried = gradient_descent(rho, sigma, sigma, lambda _: lip, eta)
    assume(not isinstance(tried, Fails))
    assert not isinstance(tried, Fails)
    x, path = 0.0, 0.0
    r = -rho
    for _ in range(200):
        move = -eta * (sigma - lip * x) * r
        x, path = x + move, path + abs(move)
        new = sigma * x - lip * x * x / 2 - rho
        assert abs(new) <= tried.q * abs(r) * (1 + 1e-9) + 1e-12 * rho
        r = new
    assert path <= tried.path * (1 + 1e-9)
    assert eta < 2 / tried.beta**2


def quadratic(n: int, P: int, lip: float, seed: int):
    """r(theta) = J theta + lip/2 |theta|^2 a - b, |a| = 1: J(theta) is Lipschitz with exactly lip."""
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(n, P, dtype=torch.float64, generator=generator)
    a, b = torch.randn(2, n, dtype=torch.float64, generator=generator)
    a = a / a.norm()

    def residual(theta):
        return J @ theta + lip / 2 * theta.dot(theta) * a - b

    def jacobian(theta):
        return J + lip * torch.outer(a, theta)

    return J, b, residual, jacobian


@pytest.mark.parametrize("seed", range(8))
def test_descent_on_quadratic_systems(seed):
    lip = 0.05
    J, b, residual, jacobian = quadratic(3, 8, lip, seed)
    values = torch.linalg.svdvals(J)
    found = gradient_descent(float(b.norm()), float(values[-1]), float(values[0]), lambda _: lip)
    if isinstance(found, Fails):
        assert isinstance(gradient_flow(float(b.norm()) * 8, float(values[-1]), lambda _: lip), Fails)
        return
    theta, path, r = torch.zeros(8, dtype=torch.float64), 0.0, residual(torch.zeros(8, dtype=torch.float64))
    for _ in range(2000):
        move = -found.step * jacobian(theta).T @ r
        theta, path = theta + move, path + float(move.norm())
        new = residual(theta)
        assert float(new.norm()) <= found.q * float(r.norm()) + 1e-12
        r = new
    assert path <= found.path


def test_a_step_beyond_the_bound_is_refused_and_really_diverges():
    found = gradient_descent(1e-9, 1.0, 1.0, lambda _: 1.0, 2.001)
    assert isinstance(found, Fails)
    assert not isinstance(gradient_descent(1e-9, 1.0, 1.0, lambda _: 1.0, 1.99), Fails)


def test_stochastic_descent_leaves_no_more_often_than_delta():
    lip, n, batch = 1e-3, 4, 2
    J, b, residual, jacobian = quadratic(n, 12, lip, 3)
    values = torch.linalg.svdvals(J)
    b_small = b * 0.02
    found = stochastic_descent(float(b_small.norm()), float(values[-1]), float(values[0]), lambda _: lip, n, batch, 100.0)
    assert not isinstance(found, Fails)
    generator = torch.Generator().manual_seed(0)
    left, ratios = 0, []
    for _ in range(60):
        theta = torch.zeros(12, dtype=torch.float64)
        for _ in range(300):
            rows = torch.randperm(n, generator=generator)[:batch]
            r = residual(theta) + b - b_small
            theta = theta - found.step * n / batch * jacobian(theta)[rows].T @ r[rows]
            if float(theta.norm()) > found.radius:
                left += 1
                break
        ratios.append(float((residual(theta) + b - b_small).norm() / b_small.norm()))
    assert left / 60 <= found.delta + 0.1
    assert sum(ratios) / len(ratios) <= found.q**300 * 1.05
    assert found.q < 1


def test_newton_is_sharp_too():
    found = newton(0.25, 1.0, lambda _: 1.0)
    assert not isinstance(found, Fails)
    assert found.h == pytest.approx(0.25)
    assert found.radius == pytest.approx(1 - math.sqrt(0.5), rel=1e-8)


def test_a_modulus_that_grows_is_followed_to_its_fixed_point():
    found = gradient_flow(0.1, 1.0, lambda R: 1 + 10 * R)
    assert not isinstance(found, Fails)
    assert found.lipschitz == pytest.approx(1 + 10 * found.radius)
    assert found.path <= found.radius <= found.path * 1.01
    assert isinstance(gradient_flow(0.1, 1.0, lambda R: 1 + 100 * R), Fails)
    assert isinstance(gradient_flow(0.1, 1.0, lambda R: math.inf if R > 0.1 else 0.1), Fails)


def test_no_curvature_means_no_condition():
    found = gradient_flow(5.0, 0.1, lambda _: 0.0)
    assert not isinstance(found, Fails)
    assert found.path == pytest.approx(50.0)
    assert found.rate == pytest.approx(0.01)


@given(sigma=POSITIVE, lip=POSITIVE, share=st.floats(0.3, 3.0))
def test_certified_exactly_where_the_paper_and_pencil_condition_holds(sigma, lip, share):
    """The control: a theorem with constant 4 in place of 2, or 1, would disagree here."""
    rho = share * sigma**2 / (2 * lip)
    assume(abs(share - 1) > 1e-6)
    assert isinstance(gradient_flow(rho, sigma, lambda _: lip), Fails) == (share > 1)
