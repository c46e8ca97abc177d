r"""The inequalities of the four theorems, held with claimed constants that were confirmed before.

$\rho\ge\|r(\theta_0)\|$, $\sigma_0\le\sigma_{\min}(J(\theta_0))$, $\beta_0\ge\|J(\theta_0)\|_2$, and $\Lambda$ a Lipschitz constant of J on
the ball of radius R. Every comparison is one of exact numbers and balls, and holds for all numbers of the balls or fails.
"""

from __future__ import annotations

from collections.abc import Mapping

from flint import arb

from zeroloss_verifier.balls import ONE
from zeroloss_verifier.outcome import RejectedError

ROUNDING = arb(2) ** -36  # h is shown for the reader: it must be what it stands for up to rounding
Numbers = Mapping[str, arb]


def _hold(condition: bool, statement: str) -> None:
    if not condition:
        raise RejectedError(f"{statement} does not hold")


def hold_flow(claims: Numbers) -> None:
    r"""Theorem 1: $2\Lambda\rho<\sigma_0^2$ and $R\ge s\ge s^*=2\rho/(\sigma_0+\sqrt{\sigma_0^2-2\Lambda\rho})$.

    $\alpha\le\sqrt{\sigma_0^2-2\Lambda\rho}$, and the rate is at most $\alpha^2$.

    Args:
        claims: residual, sigma0, lipschitz, R, path, alpha, rate, h.

    Raises:
        RejectedError: naming the inequality that fails.

    Example:
        >>> numbers = dict(residual=0.375, sigma0=1, lipschitz=1, R=0.5, path=0.5, alpha=0.5, rate=0.25, h=0.375)
        >>> hold_flow({name: arb(number) for name, number in numbers.items()})
    """
    rho, sigma, lip = claims["residual"], claims["sigma0"], claims["lipschitz"]
    _hold(sigma > 0, "Theorem 1: sigma0 > 0")
    room = sigma * sigma - 2 * lip * rho
    _hold(room > 0, "Theorem 1: 2 lipschitz residual < sigma0^2")
    # s* = s means rho - sigma0 s + lip s^2/2 = 0 at the smaller root: without a root, so that exact data can be decided
    _hold(_reaches(claims["path"], sigma, lip, rho), "Theorem 1: path >= s*")
    _hold(claims["path"] <= claims["R"], "Theorem 1: path <= R")
    _hold(claims["alpha"] > 0 and claims["alpha"] ** 2 <= room, "Theorem 1: alpha <= sqrt(sigma0^2 - 2 lipschitz residual)")
    _hold(claims["rate"] > 0 and claims["rate"] <= claims["alpha"] ** 2, "Theorem 1: rate <= alpha^2")
    h = lip * rho / (sigma * sigma)
    _hold(abs(claims["h"] - h) <= ROUNDING * h, "h = lipschitz residual / sigma0^2")


def hold_descent(claims: Numbers, gd: Numbers) -> None:
    r"""Theorem 2: $0<\eta<2/\beta^2$, $2\Lambda\rho<c^2\sigma_0^2$ and $R\ge s\ge s_c$.

    $\beta\ge\beta_0+\Lambda R$, $c\le1-\eta\beta^2/2$, $q\ge1-\eta(\sigma_0-\Lambda s_c)\alpha_c$.

    A c below $1-\eta\beta^2/2$ serves the proof as well: it only asks for more.

    Args:
        claims: residual, sigma0, beta0.
        gd: step, c, R, lipschitz, beta, alpha, q, path.

    Raises:
        RejectedError: naming the inequality that fails.
    """
    rho, sigma, eta, c, lip, beta = claims["residual"], claims["sigma0"], gd["step"], gd["c"], gd["lipschitz"], gd["beta"]
    _hold(sigma > 0, "Theorem 2: sigma0 > 0")
    _hold(beta >= claims["beta0"] + lip * gd["R"], "Theorem 2: beta >= beta0 + lipschitz R")
    _hold(eta > 0 and eta * beta * beta < 2, "Theorem 2: 0 < step < 2/beta^2")
    _hold(c > 0 and c <= 1 - eta * beta * beta / 2, "Theorem 2: 0 < c <= 1 - step beta^2/2")
    room = (c * sigma) ** 2 - 2 * lip * rho
    _hold(room > 0, "Theorem 2: 2 lipschitz residual < c^2 sigma0^2")
    _hold(_reaches(gd["path"], c * sigma, lip, rho), "Theorem 2: path >= s_c")
    _hold(gd["path"] <= gd["R"], "Theorem 2: path <= R")
    _hold(gd["alpha"] > 0 and gd["alpha"] ** 2 <= room, "Theorem 2: alpha <= sqrt(c^2 sigma0^2 - 2 lipschitz residual)")
    exact_path = 2 * rho / (c * sigma + room.sqrt())
    _hold(0 < gd["q"] < 1, "Theorem 2: 0 < q < 1")
    _hold(gd["q"] >= 1 - eta * (sigma - lip * exact_path) * room.sqrt(), "Theorem 2: q >= 1 - step a alpha")


def hold_stochastic(claims: Numbers, sgd: Numbers, samples: arb) -> None:
    r"""Theorem 3, with $\beta$ for the norm of a batch's Jacobian and n/b for N/b, batches being of samples.

    $\alpha\le\sigma_0-\Lambda R$, $q\ge\sqrt{1-2\eta\alpha^2+\eta^2\beta^4n/b}+\frac12\Lambda\eta^2(n/b)^2\beta^2(\rho+\beta R)$,
    $\delta\ge\eta\beta\sqrt{n/b}\,\rho/((1-q)R)$.

    Args:
        claims: residual, sigma0, beta0.
        sgd: step, batch, R, lipschitz, beta, alpha, q, delta.
        samples: n, repeated ones counted.

    Raises:
        RejectedError: naming the inequality that fails.
    """
    rho, sigma, eta, lip, beta, R = claims["residual"], claims["sigma0"], sgd["step"], sgd["lipschitz"], sgd["beta"], sgd["R"]
    _hold(1 <= sgd["batch"] <= samples, "Theorem 3: 1 <= batch <= samples")
    _hold(eta > 0 and R > 0, "Theorem 3: step > 0 and R > 0")
    _hold(beta >= claims["beta0"] + lip * R, "Theorem 3: beta >= beta0 + lipschitz R")
    _hold(sgd["alpha"] > 0 and sgd["alpha"] <= sigma - lip * R, "Theorem 3: 0 < alpha <= sigma0 - lipschitz R")
    ratio = samples / sgd["batch"]
    square = 1 - 2 * eta * sgd["alpha"] ** 2 + eta**2 * beta**4 * ratio
    _hold(square >= 0, "Theorem 3: a sum of squares")
    q = square.sqrt() + lip * eta**2 * ratio**2 * beta**2 * (rho + beta * R) / 2
    _hold(sgd["q"] >= q, "Theorem 3: q is large enough")
    _hold(sgd["q"] < 1, "Theorem 3: q < 1")
    _hold(sgd["delta"] >= eta * beta * ratio.sqrt() * rho / ((1 - sgd["q"]) * R), "Theorem 3: delta is large enough")
    _hold(sgd["delta"] < 1, "Theorem 3: delta < 1")


def hold_newton(claims: Numbers, newton: Numbers) -> None:
    r"""Theorem 4: $h=\Lambda D_0/\sigma_0\le1/2$ and $R\ge\text{radius}\ge R_N=2D_0/(1+\sqrt{1-2h})$.

    Args:
        claims: sigma0.
        newton: D0, lipschitz, h, R, and radius, which is at least R_N.

    Raises:
        RejectedError: naming the inequality that fails.
    """
    sigma, lip, start = claims["sigma0"], newton["lipschitz"], newton["D0"]
    _hold(sigma > 0, "Theorem 4: sigma0 > 0")
    # the least root of lip t^2/(2 sigma0) - t + D0 is R_N: at most R where that parabola is not positive at R, or R is beyond its minimum
    _hold(2 * lip * start <= sigma, "Theorem 4: lipschitz D0 / sigma0 <= 1/2")
    _hold(_reaches(newton["radius"], ONE, lip / sigma, start), "Theorem 4: radius >= R_N")
    _hold(newton["radius"] <= newton["R"], "Theorem 4: radius <= R")
    h = lip * start / sigma
    _hold(newton["h"] <= arb(0.5) and abs(newton["h"] - h) <= ROUNDING * h, "h = lipschitz D0 / sigma0 <= 1/2")


def _reaches(path: arb, slope: arb, lip: arb, rho: arb) -> bool:
    r"""Whether a path is at least the smaller root of $\rho-\text{slope}\,s+\text{lip}\,s^2/2$, which exists."""
    return bool(rho - slope * path + lip * path * path / 2 <= 0 or lip * path >= slope)
