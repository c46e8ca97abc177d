r"""Theorems 1 to 4 as functions of their constants: what they conclude, or which inequality fails (docs/certificates.md).

All of them take $\rho\ge\|r(\theta_0)\|$, $\sigma_0\le\sigma_{\min}(J(\theta_0))$ and a nondecreasing $\Lambda(R)$, and look for the
smallest ball that carries the argument: $R\mapsto s(\Lambda(R))$ is nondecreasing, so iterating from below ends in its smallest fixed
point or at a radius where the inequality fails, and then it fails for every larger one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Modulus = Callable[[float], float]  # R -> a Lipschitz constant of J on the ball of radius R

DOWN, UP = 1 - 1e-12, 1 + 1e-12  # each side of a comparison is a handful of operations
GROWTH = 1 + 1e-9
ROUNDS = 200
HALVINGS = 60


@dataclass(frozen=True)
class Flow:
    r"""Gradient flow (Theorem 1): path of length at most ``path``, $\|r(t)\|\le e^{-\alpha^2t}\|r(0)\|$.

    Args:
        radius: R, of the ball on which ``lipschitz`` holds.
        lipschitz: $\Lambda(R)$.
        path: $s^*\le R$.
        alpha: $\sqrt{\sigma_0^2-2\Lambda\rho}$.
        rate: $\alpha^2$.
    """

    radius: float
    lipschitz: float
    path: float
    alpha: float
    rate: float


@dataclass(frozen=True)
class Descent:
    r"""Gradient descent (Theorem 2): $\|r_{j+1}\|\le q\|r_j\|$, steps of total length at most ``path``.

    Args:
        step: $\eta$.
        c: $1-\eta\beta^2/2$.
        radius: R.
        lipschitz: $\Lambda(R)$.
        beta: $\beta_0+\Lambda R$.
        alpha: $\sqrt{c^2\sigma_0^2-2\Lambda\rho}$.
        rate: $\eta(\sigma_0-\Lambda s_c)\alpha=1-q$, the share of the residual that every step removes at least.
        path: $s_c\le R$.
    """

    step: float
    c: float
    radius: float
    lipschitz: float
    beta: float
    alpha: float
    rate: float
    path: float

    @property
    def q(self) -> float:
        """The factor, rounded up."""
        return math.nextafter(1 - self.rate, 2.0)


@dataclass(frozen=True)
class Stochastic:
    r"""Mini-batches (Theorem 3): with probability at least $1-\delta$ no iterate leaves the ball and $r_j\to0$.

    $\mathbb{E}[\|r_j\|;\text{inside until }j]\le q^j\rho$.

    Args:
        step: $\eta$.
        batch: b, rows a step.
        samples: rows in all.
        radius: R.
        lipschitz: $\Lambda(R)$.
        beta: $\beta_0+\Lambda R$.
        alpha: $\sigma_0-\Lambda R$.
        rate: a lower bound of $1-q$.
        delta: $\delta$.
    """

    step: float
    batch: int
    samples: int
    radius: float
    lipschitz: float
    beta: float
    alpha: float
    rate: float
    delta: float

    @property
    def q(self) -> float:
        """The factor, rounded up."""
        return math.nextafter(1 - self.rate, 2.0)


@dataclass(frozen=True)
class Newton:
    r"""Existence by Newton's step (Theorem 4): $f(\theta^*)=y$ with $\|\theta^*-\theta_0\|\le$ ``radius``.

    Args:
        length: $D_0\ge\|J_0^+r_0\|$.
        lipschitz: $\Lambda$ on the ball.
        h: $\Lambda D_0/\sigma_0\le1/2$.
        radius: $R_N=2D_0/(1+\sqrt{1-2h})$.
    """

    length: float
    lipschitz: float
    h: float
    radius: float


@dataclass(frozen=True)
class Fails:
    """An inequality that does not hold.

    Args:
        left: its left side, which ought to be below ``right``.
        right: its right side.
        lipschitz: the constant with which it was tried, on the smallest ball that any proof would need.
        radius: of that ball.
    """

    left: float
    right: float
    lipschitz: float
    radius: float


def gradient_flow(residual: float, sigma: float, modulus: Modulus) -> Flow | Fails:
    r"""Theorem 1: $2\Lambda\rho<\sigma_0^2$ and $R\ge s^*=2\rho/(\sigma_0+\sqrt{\sigma_0^2-2\Lambda\rho})$.

    Args:
        residual: $\rho$.
        sigma: $\sigma_0>0$.
        modulus: $\Lambda$.

    Returns:
        What it concludes, or the inequality that fails.

    Example:
        >>> round(gradient_flow(0.25, 1.0, lambda R: 1.0).path, 6)  # f = x - x^2/2, y = 1/4: the root is 1 - sqrt(1/2)
        0.292893
        >>> gradient_flow(0.5, 1.0, lambda R: 1.0)
        Fails(left=1.0, right=1.0, lipschitz=1.0, radius=0.5)
    """
    found = _smallest_ball(residual, sigma, lambda _: 1.0, modulus)
    if isinstance(found, Fails):
        return found
    radius, lip, _ = found
    root, path = _path(residual, sigma, 1.0, lip)
    return Flow(radius, lip, path, root, root * root * DOWN)


def gradient_descent(residual: float, sigma: float, beta0: float, modulus: Modulus, step: float | None = None) -> Descent | Fails:
    r"""Theorem 2: $0<\eta<2/\beta^2$, $2\Lambda\rho<c^2\sigma_0^2$ and $R\ge s_c$.

    Args:
        residual: $\rho$.
        sigma: $\sigma_0>0$.
        beta0: at least $\|J(\theta_0)\|_2$.
        modulus: $\Lambda$.
        step: $\eta$, or None for the largest of $1/\beta_0^2$ halved again and again for which it holds.

    Returns:
        What it concludes, or the inequality that fails for the last step tried.

    Example:
        >>> run = gradient_descent(1e-3, 1.0, 2.0, lambda R: 1.0)
        >>> round(run.step, 4), run.q < 1
        (0.25, True)
    """
    eta = DOWN / (beta0 * beta0) if step is None else step
    for _ in range(HALVINGS):
        found = _descent(residual, sigma, beta0, modulus, eta)
        if step is not None or isinstance(found, Descent):
            return found
        if isinstance(gradient_flow(residual, sigma, modulus), Fails):
            return found  # no step, however small, will do
        eta /= 2
    return found


def stochastic_descent(
    residual: float,
    sigma: float,
    beta0: float,
    modulus: Modulus,
    samples: int,
    batch: int,
    largest: float,
    step: float | None = None,
) -> Stochastic | Fails:
    r"""Theorem 3: $q=\sqrt{1-2\eta\alpha^2+\eta^2\beta^4n/b}+\frac12\Lambda\eta^2(n/b)^2\beta^2(\rho+\beta R)<1$.

    Then $\delta=\eta\beta\sqrt{n/b}\,\rho/((1-q)R)$. The norm of a batch's Jacobian is replaced by $\beta$, and the ball's radius is chosen
    to make $\delta$ smallest.

    Args:
        residual: $\rho$.
        sigma: $\sigma_0>0$.
        beta0: at least $\|J(\theta_0)\|_2$.
        modulus: $\Lambda$.
        samples: n, repeated rows counted.
        batch: b.
        largest: no larger ball is tried (where pieces are left).
        step: $\eta$, or None for the best of a few.

    Returns:
        What it concludes with the smallest $\delta$ found; fails (left: $\delta$ or q) where that is not below 1.

    Example:
        >>> stochastic_descent(1e-9, 1.0, 2.0, lambda R: 1.0, 10, 2, 1.0).delta < 1e-5
        True
    """
    share = samples / batch
    best: Stochastic | Fails = Fails(math.inf, 1.0, math.inf, largest)
    radius = residual / sigma * 2
    while radius <= largest and radius < sigma / 1e-300:
        lip = modulus(radius)
        alpha, beta = sigma - lip * radius * UP, (beta0 + lip * radius) * UP
        if not alpha > 0:
            break
        ideal = alpha**2 / (beta**4 * share)
        for eta in [step] if step is not None else [ideal * 2.0**-i for i in range(12)]:
            # sqrt(1 - t) <= 1 - t/2, which keeps the digits of a q near 1
            gained = eta * alpha**2 * DOWN - eta**2 * beta**4 * share / 2 * UP
            lost = 0.5 * lip * eta**2 * share**2 * beta**2 * (residual + beta * radius) * UP
            rate = (gained - lost) - 4e-16 * (abs(gained) + lost)
            if not rate > 0:
                if isinstance(best, Fails):
                    best = Fails(1 - rate, 1.0, lip, radius)
                continue
            kept = 1 - math.nextafter(1 - rate, 2.0)  # what a file with the rounded q says
            if not kept > 0:
                continue
            delta = eta * beta * math.sqrt(share) * residual / (kept * radius) * (1 + 1e-9)
            if delta < 1 and (isinstance(best, Fails) or delta < best.delta):
                best = Stochastic(eta, batch, samples, radius, lip, beta, alpha * DOWN, rate, delta)
            elif isinstance(best, Fails):
                best = Fails(delta, 1.0, lip, radius)
        radius *= 2
    return best


def newton(length: float, sigma: float, modulus: Modulus) -> Newton | Fails:
    r"""Theorem 4: $h=\Lambda D_0/\sigma_0\le1/2$ and $R\ge R_N=2D_0/(1+\sqrt{1-2h})$.

    Args:
        length: $D_0\ge\|J_0^+r_0\|$.
        sigma: $\sigma_0>0$.
        modulus: $\Lambda$.

    Returns:
        What it concludes, or the inequality that fails.

    Example:
        >>> newton(0.25, 1.0, lambda R: 1.0).radius < 0.2929
        True
    """
    radius = length * UP
    for _ in range(ROUNDS):
        lip = modulus(radius)
        h = lip * length / sigma * UP
        if not h <= 0.5:
            return Fails(h, 0.5, lip, radius)
        needed = 2 * length / (1 + math.sqrt(max(0.0, 1 - 2 * h) * DOWN)) * UP
        if needed <= radius:
            return Newton(length, lip, h, radius)
        radius = needed * GROWTH
    return Fails(needed, radius, lip, radius)


def _path(residual: float, sigma: float, c: float, lip: float) -> tuple[float, float]:
    """A lower bound of the root and an upper bound of s; the root is NaN where the inequality fails."""
    room = (c * sigma) ** 2 * DOWN - 2 * lip * residual * UP
    if not room > 0:
        return math.nan, math.inf
    root = math.sqrt(room) * DOWN
    return root, 2 * residual / (c * sigma + root) * UP


def _smallest_ball(
    residual: float, sigma: float, share: Callable[[float], float], modulus: Modulus
) -> tuple[float, float, float] | Fails:
    radius = residual / sigma
    for _ in range(ROUNDS):
        lip = modulus(radius)
        c = share(lip * radius)
        if not c > 0:
            return Fails(1 - c, 1.0, lip, radius)
        root, path = _path(residual, sigma, c, lip)
        if math.isnan(root):
            return Fails(2 * lip * residual, (c * sigma) ** 2, lip, radius)
        if path <= radius:
            return radius, lip, c
        radius = path * GROWTH
    return Fails(path, radius, lip, radius)


def _descent(residual: float, sigma: float, beta0: float, modulus: Modulus, step: float) -> Descent | Fails:
    def share(moved: float) -> float:
        return 1 - step * ((beta0 + moved) * UP) ** 2 / 2 * UP

    found = _smallest_ball(residual, sigma, share, modulus)
    if isinstance(found, Fails):
        return found
    radius, lip, c = found
    c *= DOWN
    root, path = _path(residual, sigma, c, lip)
    slope = sigma - lip * path * UP
    if math.isnan(root) or path > radius or not slope > 0:
        return Fails(path, radius, lip, radius)
    beta = (beta0 + lip * radius) * UP
    return Descent(step, c, radius, lip, beta, root, step * slope * root * DOWN, path)
