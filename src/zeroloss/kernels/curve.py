r"""A kernel of one variable: polynomials for the whole depth of a network, in the angle between two inputs.

Between rows of one norm, or where the network is homogeneous, a limit kernel depends on the correlation alone, however deep the
network. With $m=1-|\rho|$ it is a polynomial in $v=2u-1$, $u=\tfrac{(1+b)z}{1+bz}$, on each side of a right angle. The variable $z$ is
$\sqrt m$ for networks with kinks, whose kernel has a square root there, and may be $m$ for smooth ones. The deeper the network the
nearer a singularity comes to $z=0$ from outside, and $b$ moves it away again, so that the degree hardly grows with depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

PULLS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0)  # b
NODES = 96
LARGEST_DEGREE = 72
# relative to the diagonal: the estimate at which a polynomial is good, and the error beyond which there is none
GOOD = {torch.float32: 4e-7, torch.float64: 1.2e-14}
WORST = {torch.float32: 2.5e-6, torch.float64: 6e-14}
SAFETY = 1.25  # over the largest slope on a grid of angles, for that between its points

Function = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Side:
    r"""The polynomial on one side of a right angle.

    Args:
        root: whether $z$ is $\sqrt m$; else it is $m$.
        pull: $b\ge 0$.
        coefficients: of $v^0, v^1, \dots$, relative to the diagonal.
    """

    root: bool
    pull: float
    coefficients: tuple[float, ...]

    def at(self, m: Float[Tensor, " *n"]) -> Float[Tensor, " *n"]:
        r"""The polynomial's value.

        Args:
            m: $1-|\rho|$, any shape; computed in its dtype.

        Returns:
            One value each.

        Example:
            >>> Side(False, 0.0, (0.5, 0.5)).at(torch.tensor([0.0, 1.0]))
            tensor([0., 1.])
        """
        z = m.sqrt() if self.root else m
        v = 2 * ((1 + self.pull) * z / (1 + self.pull * z)) - 1
        total = torch.full_like(v, self.coefficients[-1])
        for coefficient in reversed(self.coefficients[:-1]):
            total = total * v + coefficient
        return total


@dataclass(frozen=True)
class Curve:
    r"""A kernel's dependence on the correlation, for rows of one norm.

    Args:
        diagonal: its value at $\rho=1$, exact.
        same: for $\rho\ge 0$.
        opposite: for $\rho<0$.
        error: what it may differ by from the recursion over layers, relative to the diagonal, evaluated in its dtype.
        steepness: $\sup|dK/d\theta|$, relative to the diagonal.
    """

    diagonal: float
    same: Side
    opposite: Side
    error: float
    steepness: float

    def at(self, signed: Float[Tensor, " *n"]) -> Float[Tensor, " *n"]:
        r"""The kernel's values, the slow way, in torch: on any device, and differentiable where $m>0$.

        Args:
            signed: $m=1-|\rho|$ with the sign of $\rho$ (for $\rho=-1$ a negative number of no size).

        Returns:
            One value each, absolute.

        Example:
            >>> line = Side(False, 0.0, (0.5, -0.5))  # 1 - m
            >>> Curve(2.0, line, line, 0.0, 1.0).at(torch.tensor([0.0, 0.25]))
            tensor([2.0000, 1.5000])
        """
        m = signed.abs()
        values = torch.where(torch.signbit(signed), self.opposite.at(m), self.same.at(m))
        return values * self.diagonal


def fit_curve(function: Function, dtype: torch.dtype) -> Curve | None:
    r"""The curve of a kernel that is given as a function of the correlation.

    Args:
        function: from $1-\rho$ and $1+\rho$ (each with its own digits), n each, to the kernel, n; float64.
        dtype: in which the curve is to be evaluated, float32 or float64.

    Returns:
        The curve, or None where no polynomial of degree 72 reaches the error that the dtype should have.

    Example:
        >>> curve = fit_curve(lambda versine, coversine: 1 - versine, torch.float64)
        >>> curve.diagonal, curve.error < 1e-14
        (1.0, True)
    """
    zero = torch.zeros(1, dtype=torch.float64)
    diagonal = float(function(zero, 2 - zero))
    if not math.isfinite(diagonal) or diagonal < 0:
        return None
    scale = diagonal if diagonal > 0 else 1.0
    sides = []
    for flip in (False, True):

        def relative(m: NDArray[np.float64], flip: bool = flip) -> NDArray[np.float64]:
            near = torch.from_numpy(m)
            values: NDArray[np.float64] = function(*((2 - near, near) if flip else (near, 2 - near))).numpy() / scale
            return values

        side = _fit_side(relative, dtype)
        if side is None:
            return None
        sides.append((side, _gap(side, relative, dtype)))
    (same, gap), (opposite, other) = sides
    if not (gap <= WORST[dtype] and other <= WORST[dtype]):  # NaN is no curve either
        return None
    rounding = float(torch.finfo(dtype).eps)
    return Curve(diagonal, same, opposite, 2 * max(gap, other) + 4 * rounding, max(map(_steepness, (same, opposite))))


def _fit_side(relative: Callable[[NDArray[np.float64]], NDArray[np.float64]], dtype: torch.dtype) -> Side | None:
    """The polynomial of the smallest degree that is good enough, else the best one."""
    order = np.arange(NODES)
    u = (np.cos(math.pi * (order + 0.5) / NODES) + 1) / 2
    z = np.concatenate([u / (1 + b - b * u) for b in PULLS])
    values = relative(np.concatenate([z**2, z])).reshape(2, len(PULLS), NODES)
    transform = 2 / NODES * np.cos(math.pi / (2 * NODES) * ((2 * order + 1) * order[:, None] % (4 * NODES)))
    transform[0] /= 2
    found = []
    for root, rows in zip((True, False), values, strict=True):
        for pull, row in zip(PULLS, rows, strict=True):
            series = transform @ row
            tails = np.cumsum(np.abs(series[::-1]))[::-1]
            degree, estimate, powers = _truncate(series, tails, dtype)
            # good ones by their degree; others by their error; and the plainer variable where there is nothing between them
            found.append(((estimate > GOOD[dtype], degree if estimate <= GOOD[dtype] else estimate, pull), root, pull, powers))
    _, root, pull, powers = min(found, key=lambda one: one[0])
    return Side(root, pull, tuple(float(c) for c in powers)) if np.isfinite(powers).all() else None


def _truncate(
    series: NDArray[np.float64], tails: NDArray[np.float64], dtype: torch.dtype
) -> tuple[int, float, NDArray[np.float64]]:
    """The degree at which what is left out and what rounding adds come to least, or are good; with the powers' coefficients."""
    unit = float(torch.finfo(dtype).eps) / 2
    powers = np.cumsum(series[: LARGEST_DEGREE + 1, None] * _monomials(), axis=0)  # row d: the series up to degree d
    estimates = tails[1 : LARGEST_DEGREE + 2] + unit * np.abs(powers).sum(axis=1)
    estimates[:2] = math.inf
    good = np.flatnonzero(estimates <= GOOD[dtype])
    degree = int(good[0]) if len(good) else int(np.argmin(estimates))
    return degree, float(estimates[degree]), powers[degree, : degree + 1]


@lru_cache(maxsize=1)
def _monomials() -> NDArray[np.float64]:
    """Row k: the coefficients of the Chebyshev polynomial of degree k in powers."""
    rows = np.zeros((LARGEST_DEGREE + 1, LARGEST_DEGREE + 1))
    rows[0, 0] = rows[1, 1] = 1.0
    for k in range(2, LARGEST_DEGREE + 1):
        rows[k, 1:] = 2 * rows[k - 1, :-1]
        rows[k] -= rows[k - 2]
    return rows


def _gap(side: Side, relative: Callable[[NDArray[np.float64]], NDArray[np.float64]], dtype: torch.dtype) -> float:
    """The largest difference from the function over a grid that is no grid of nodes, evaluated in the curve's dtype."""
    m = np.concatenate([[0.0], np.geomspace(1e-16, 1e-3, 160), np.linspace(1e-3, 1.0, 640)])
    if dtype == torch.float32:
        m = m.astype(np.float32).astype(np.float64)
    ours = side.at(torch.from_numpy(m).to(dtype)).double().numpy()
    return float(np.abs(ours - relative(m)).max())


def _steepness(side: Side) -> float:
    """The largest slope in the angle."""
    theta = torch.linspace(1e-6, math.pi / 2, 2049, dtype=torch.float64).requires_grad_()
    values = side.at(2 * torch.sin(theta / 2) ** 2)
    (slope,) = torch.autograd.grad(values.sum(), theta)
    return SAFETY * float(slope.abs().max())
