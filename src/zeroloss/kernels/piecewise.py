r"""Duals of piecewise linear activations with knots anywhere, by Price's theorem.

With slopes $s_r$, knots $c_r$ and jumps $J_r = s_r-s_{r-1}$ the second derivative is $\sum_r J_r\delta_{c_r}$. Where the correlation is
$\cos\tau$, $\tfrac{d}{d\tau}\mathbb{E}[\sigma'(u)\sigma'(v)] = -\tfrac1{2\pi}\sum_{rs}J_rJ_s e_{rs}(\tau)$ with
$e_{rs}(\tau) = \exp\big(-\tfrac{a^2-2ab\cos\tau+b^2}{2\sin^2\tau}\big)$, $a=c_r/\sqrt{S_{ii}}$, $b=c_s/\sqrt{S_{jj}}$.
From $\rho=1$ down, with $C=\int_0^\theta e\,d\tau$ and $F=\int_0^\theta e\,(1-\cos\tau)\,d\tau$,

$\mathbb{E}[\sigma'\sigma'] = K_0 - \tfrac1{2\pi}\sum_{rs}J_rJ_s C_{rs}$ and
$\tfrac12\mathbb{E}(\sigma(u)-\sigma(v))^2 = D_0 + \sqrt{S_{ii}S_{jj}}\,\big(K_0w - \tfrac1{2\pi}\sum_{rs}J_rJ_s(wC_{rs}-F_{rs})\big)$,

where $K_0$ and $D_0$ are the two at $\rho=1$, when $u$ and $v$ are multiples of one variable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.kernels.pairs import Pairs
from zeroloss.networks import Activation

SPACING = 0.005  # between the points of a piece at which it is read: a feature narrower than this is not seen
NODES = 64  # Gauss-Legendre points for C and F
LAYER = 0.113  # exp(-1/(2 LAYER^2)) is 1e-17: below this multiple of |a-b| the integrand vanishes
BLOCK = 1024  # pairs at a time, each with all its nodes


@dataclass(frozen=True)
class Pieces:
    r"""A continuous piecewise linear function: $\sigma(z) = i_r + s_rz$ between knots $c_r$ and $c_{r+1}$.

    Args:
        knots: $c_1 < \dots < c_R$.
        slopes: $s_0, \dots, s_R$.
        intercepts: $i_0, \dots, i_R$.
    """

    knots: tuple[float, ...]
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]

    @property
    def homogeneous(self) -> bool:
        r"""Whether $\sigma(tz) = t\sigma(z)$ for $t>0$: one knot, at zero, and lines through it."""
        return self.knots == (0.0,) and not any(self.intercepts)


@lru_cache(maxsize=256)
def pieces_of(activation: Activation) -> Pieces | None:
    """The pieces of an activation that is linear between its kinks, or None where it is not, or has none.

    Example:
        >>> from zeroloss.networks import find_activation
        >>> pieces_of(find_activation("hard_tanh"))
        Pieces(knots=(-1.0, 1.0), slopes=(0.0, 1.0, 0.0), intercepts=(-1.0, 0.0, 1.0))
    """
    if not activation.kinks:
        return None
    edges = (activation.kinks[0] - 40, *activation.kinks, activation.kinks[-1] + 40)
    slopes, intercepts = [], []
    for low, high in pairwise(edges):
        count = max(32, round((high - low) / SPACING))
        z = low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count
        slope = activation.derivative(z)
        line = activation.function(z) - slope * z
        nearest = int(z.abs().argmin())
        slopes.append(float(slope[nearest]))
        intercepts.append(float(line[nearest]))
        bend = float((slope - slope[nearest]).abs().max())
        off = float((line - line[nearest]).abs().max())
        if bend > 1e-13 * max(1e-300, float(slope.abs().max())) or off > 1e-11 * max(1.0, float(line.abs().max())):
            return None
    return Pieces(activation.kinks, tuple(slopes), tuple(intercepts))


def piecewise_sums(pieces: Pieces, pairs: Pairs) -> tuple[Float[Tensor, "n1 n2 *p"], Float[Tensor, "n1 n2 *p"]]:
    r"""Half distances after the activation, and $\mathbb{E}[\sigma'(u)\sigma'(v)]$.

    Args:
        pieces: the activation.
        pairs: the pre-activations.

    Returns:
        Half distances and slopes, both as ``pairs.versine`` in shape.

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> half, slope = piecewise_sums(Pieces((0.0,), (0.0, 1.0), (0.0, 0.0)), Pairs(one, one, one[:, None]))  # ReLU at rho = 0
        >>> round(float(half) * 2 * math.pi, 12) == round(math.pi - 1, 12), round(float(slope), 12)
        (True, 0.25)
    """
    left, right = (side.sqrt().clamp(min=1e-150) for side in (pairs.left, pairs.right))
    first = left.flatten()[:1]
    if bool((left == first).all()) and bool((right == first).all()):  # one variance: its numbers serve every pair
        left, right = (first.reshape((1,) * side.ndim) for side in (left, right))
    p, q = left[:, None], right[None]
    gap, level = _aligned(pieces, p, q)
    correction, drop = torch.zeros_like(pairs.versine), torch.zeros_like(pairs.versine)
    theta = pairs.angle
    for (c, d), weight in _knot_pairs(pieces).items():
        a, b = ((knot / side).expand_as(theta) for knot, side in ((c, p), (d, q)))
        whole, part = _angle_integrals(a, b, theta)
        drop.add_(whole, alpha=weight / (2 * math.pi))
        correction.add_(pairs.versine * whole - part, alpha=weight / (2 * math.pi))
    half = gap + p * q * (level * pairs.versine - correction)
    return half.clamp(min=0), level - drop


def piecewise_moments(pieces: Pieces, variance: Float[Tensor, " *n"]) -> tuple[Float[Tensor, " *n"], Float[Tensor, " *n"]]:
    r"""$\mathbb{E}\sigma$ and $\mathbb{E}\sigma^2$ at each variance, in closed form.

    Args:
        pieces: the activation.
        variance: $v \ge 0$, any shape.

    Returns:
        Means and second moments.

    Example:
        >>> [float(m) for m in piecewise_moments(Pieces((0.0,), (-1.0, 1.0), (0.0, 0.0)), torch.tensor(4.0, dtype=torch.float64))][1]
        4.0
    """
    root = variance.sqrt()
    edges = _edges(pieces, root.clamp(min=1e-150))
    mean, second = torch.zeros_like(root), torch.zeros_like(root)
    for r, (i, s) in enumerate(zip(pieces.intercepts, pieces.slopes, strict=True)):
        zeroth, first, square = _truncated(edges[r], edges[r + 1])
        mean += i * zeroth + s * root * first
        second += i**2 * zeroth + 2 * i * s * root * first + (s * root) ** 2 * square
    return mean, second


def _knot_pairs(pieces: Pieces) -> dict[tuple[float, float], float]:
    """The products of jumps, with the pairs of knots that have one integrand, (c, d) and (-c, -d), added up."""
    jumps = [after - before for before, after in pairwise(pieces.slopes)]
    weights: dict[tuple[float, float], float] = {}
    for c, jump in zip(pieces.knots, jumps, strict=True):
        for d, other in zip(pieces.knots, jumps, strict=True):
            key = max((c, d), (-c, -d))
            weights[key] = weights.get(key, 0.0) + jump * other
    return weights


def _edges(pieces: Pieces, root: Tensor) -> list[Tensor]:
    r"""At every scaled knot $x=c/\sqrt v$, and at both infinities: $x$, the normal tail below and above it, $\phi(x)$ and $x\phi(x)$."""
    edges = []
    for knot in (-math.inf, *pieces.knots, math.inf):
        x = knot / root
        density = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
        moment = torch.where(density > 0, x * density, torch.zeros_like(x))
        edges.append(torch.stack([x, torch.special.ndtr(x), torch.special.ndtr(-x), density, moment]))
    return edges


def _truncated(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""$\mathbb{E}[1, Z, Z^2;\ x<Z<y]$ from two rows of :func:`_edges`, each tail taken where it keeps its digits."""
    zeroth = torch.where(low[0] > 0, low[2] - high[2], high[1] - low[1])
    return zeroth, low[3] - high[3], zeroth + low[4] - high[4]


def _aligned(pieces: Pieces, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    r"""$D_0=\tfrac12\mathbb{E}(\sigma(pZ)-\sigma(qZ))^2$ and $K_0=\mathbb{E}[\sigma'(pZ)\sigma'(qZ)]$, piece by piece.

    On each interval the difference is one line, squared; so nothing cancels as $p\to q$, and $p=q$ gives exactly 0.
    """
    one, other = _edges(pieces, p), _edges(pieces, q)
    gap = torch.zeros_like(p * q)
    level = torch.zeros_like(gap)
    lines = list(zip(pieces.intercepts, pieces.slopes, strict=True))
    for r, (i, s) in enumerate(lines):
        for t, (j, k) in enumerate(lines):
            low = torch.where(one[r][0] > other[t][0], one[r], other[t])
            high = torch.where(one[r + 1][0] < other[t + 1][0], one[r + 1], other[t + 1])
            met = low[0] < high[0]
            zeroth, first, square = (torch.where(met, m, torch.zeros_like(m)) for m in _truncated(low, high))
            offset, tilt = i - j, s * p - k * q
            gap += (offset**2 * zeroth + 2 * offset * tilt * first + tilt**2 * square).clamp(min=0) / 2
            level += s * k * zeroth
    return gap, level


def _angle_integrals(a: Tensor, b: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    r"""$C$ and $F$ for every pair.

    Near $\tau=0$ the integrand is $\exp(-\delta^2/(2\sin^2\tau))$ times a smooth one, $\delta=|a-b|$: a layer as thin as two variances are
    close. In $\log\tau$, from where it vanishes, the layer is a smooth step of one width. Near $\pi$ the same holds with $\delta=|a+b|$.
    """
    shape = theta.shape
    whole, part = torch.empty_like(theta).flatten(), torch.empty_like(theta).flatten()
    a, b, theta = a.flatten(), b.flatten(), theta.flatten()
    for start in range(0, len(theta), BLOCK):
        at = slice(start, start + BLOCK)
        upper = theta[at].clamp(max=math.pi / 2)
        whole[at], part[at] = _half_turn(a[at], b[at], torch.zeros_like(upper), upper)
        wide = torch.nonzero(theta[at] > math.pi / 2).squeeze(1) + start
        if len(wide):
            more, complement = _half_turn(a[wide], -b[wide], math.pi - theta[wide], torch.full_like(theta[wide], math.pi / 2))
            whole[wide] += more
            part[wide] += 2 * more - complement  # 1 - cos(pi - y) = 2 - (1 - cos y)
    return whole.reshape(shape), part.reshape(shape)


def _half_turn(a: Tensor, b: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\int e$ and $\int e(1-\cos\tau)$ over $[\ell, u]\subset[0,\pi/2]$, with $e=\exp(-(a-b)^2/(2\sin^2\tau) - ab/(1+\cos\tau))$."""
    x, weight = (t.to(a.device) for t in _legendre())
    top = upper.clamp(min=1e-120).log()  # at a diagonal entry, small enough for F to vanish
    bottom = torch.maximum(torch.maximum(lower, upper * 1e-16), LAYER * (a - b).abs()).clamp(min=1e-136).log()
    length = (top - bottom).clamp(min=0)[:, None]
    tau = torch.exp(top[:, None] - length * x)
    versine = 2 * torch.sin(tau / 2) ** 2
    height = torch.exp(-((a - b) ** 2)[:, None] / (2 * versine * (2 - versine)) - (a * b)[:, None] / (2 - versine))
    height *= tau * length * weight
    return height.sum(1), (height * versine).sum(1)


@lru_cache(maxsize=1)
def _legendre() -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
