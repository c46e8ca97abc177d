r"""How far apart the inputs are: nearest neighbours, the separation $\delta$, and parallel pairs, without an n×n matrix."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zeroloss.data.duplicates import duplicate_groups
from zeroloss.typing import Rows, Vector

TILE = 1024  # rows of a tile: two tiles and their product stay within the cache and 30 MB
MAX_PARALLEL = 10_000  # pairs listed at most: past that, the data set and not the pair is the finding

_EPS = torch.finfo(torch.float64).eps
_TINY = torch.finfo(torch.float64).tiny
_CHUNK = 1 << 22  # numbers held at once where pairs are recomputed (32 MB)


def row_norms(x: Rows) -> Vector:
    r"""Euclidean norms $\|x_i\|$, safe from overflow and underflow (rows of 1e200 or 1e-200 lose nothing).

    Args:
        x: n×d rows.

    Returns:
        n norms in the units of x; 0 for a zero row.

    Example:
        >>> row_norms(torch.tensor([[3e200, 4e200], [3e-200, 4e-200], [0.0, 0.0]], dtype=torch.float64))
        tensor([5.0000e+200, 5.0000e-200,  0.0000e+00], dtype=torch.float64)
    """
    largest = x.abs().amax(1)
    divisor = torch.where((largest > 0) & torch.isfinite(largest), largest, 1.0)
    norms: Tensor = torch.linalg.vector_norm(x / divisor[:, None], dim=1)
    return norms * divisor


def largest_entry(x: Float[Tensor, "*shape"]) -> float:
    r"""The largest magnitude $\max|x_{ij}|$, without a second tensor of that size.

    Args:
        x: at least one number.

    Returns:
        The magnitude; NaN if any entry is.

    Example:
        >>> largest_entry(torch.tensor([[1.0, -3.0]]))
        3.0
    """
    low, high = torch.aminmax(x)
    return max(-float(low), float(high))


def unit_rows(x: Rows) -> Rows:
    r"""Rows divided by their norms, $x_i/\|x_i\|$, without forming a norm that could overflow; zero rows stay zero.

    Args:
        x: n×d rows.

    Returns:
        n×d rows of norm 1 (or 0).

    Example:
        >>> unit_rows(torch.tensor([[3e200, 4e200], [0.0, 0.0]], dtype=torch.float64))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]], dtype=torch.float64)
    """
    largest = torch.linalg.vector_norm(x, math.inf, dim=1, keepdim=True)
    scaled = x / torch.where(largest > 0, largest, 1.0)
    norms = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled.div_(torch.where(norms > 0, norms, 1.0))


def nearest_distances(x: Rows) -> Vector:
    r"""Distance from every row to its nearest other row, $\min_{j\neq i}\|x_i-x_j\|$.

    Tiles of $\|x_i-x_j\|^2 = \|x_i\|^2+\|x_j\|^2-2\langle x_i,x_j\rangle$ say which rows *could* be nearest; those pairs are then
    measured as $\|x_i-x_j\|$, so that near duplicates keep all their digits. Relative error at most $3(d+8)\epsilon$.

    Args:
        x: n×d rows, float64, finite.

    Returns:
        n distances in the units of x: 0 exactly where a row has a duplicate, and only there; infinite where n = 1.

    References:
        $\delta$ of AZ Assumption 2.1 is the smallest of them (THEORY 1.1).

    Example:
        >>> nearest_distances(torch.tensor([[0.0], [1e-9], [3.0]], dtype=torch.float64))
        tensor([1.0000e-09, 1.0000e-09, 3.0000e+00], dtype=torch.float64)
    """
    # Duplicates are found exactly and once: a thousand copies of a row must not become a million pairs to recompute.
    repeated = duplicate_groups(x)
    keep = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for group in repeated:
        keep[list(group[1:])] = False
    nearest = x.new_zeros(len(x))
    nearest[keep] = _nearest_distinct(x[keep] if repeated else x)
    for group in repeated:
        nearest[group[0]] = 0.0
    return nearest


def _nearest_distinct(x: Rows) -> Vector:
    r"""``nearest_distances`` of rows that are all different.

    Which pairs must be recomputed. Let $u = \epsilon/2$, $\gamma_m = mu/(1-mu)$ and $Q = \|x_i\|^2+\|x_j\|^2$. In any order of
    summation, fused or not, a computed inner product of d terms is within $\gamma_d\|x_i\|\|x_j\|$ of the true one, a computed
    square norm within $\gamma_d\|x_i\|^2$. The two additions round once each, so the computed $s$ differs from the true
    $\|x_i-x_j\|^2$ by at most $\gamma_{d+2}(\|x_i\|+\|x_j\|)^2 \le 2\gamma_{d+2}Q \le (d+8)\epsilon\,\hat Q$ for the computed
    $\hat Q$ (the spare 6 covers the rounding of $\hat Q$, of the bar itself and of the subtraction), plus underflow, at most
    ``_TINY`` a product. Hence `lower` $= s - (d+8)\epsilon\hat Q - 4(d+8)\,$``_TINY`` never exceeds the true squared distance.

    A pair is left alone only if `lower` $\ge b^2(1-\tau)$, with $b$ the best *direct* distance of row i so far and
    $\tau = 4(d+8)\epsilon$. As $b$ only falls, every pair left alone is truly $b\sqrt{1-\tau}$ apart or more, for the final $b$
    too: what is returned exceeds the true minimum by a relative $\tau/2+O(\tau^2)$ at most, of the order that the direct norm
    itself may err by. Were $\tau=0$, rows at one common distance (one-hot rows) would make every pair a candidate: $\tau$ spares
    them wherever $b^2 \ge Q/3$, and near duplicates, where the bar dwarfs $b^2$, are all recomputed.
    """
    n, d = x.shape
    nearest = x.new_full((n,), math.inf)
    if n < 2:
        return nearest
    # A power of two scales without rounding, and brings the largest entry near 1, so that no square overflows.
    exponent = math.frexp(largest_entry(x))[1]
    scale = 2.0 ** -max(-1000, min(1000, exponent))
    scaled = x * scale
    square = (scaled * scaled).sum(1)
    bar, slack = (d + 8) * _EPS, 1 - 4 * (d + 8) * _EPS
    for top in range(0, n, TILE):
        for left in range(top, n, TILE):
            lower = square[top : top + TILE, None] + square[None, left : left + TILE]
            width = bar * lower
            lower -= 2 * (scaled[top : top + TILE] @ scaled[left : left + TILE].T)
            lower -= width.add_(4 * (d + 8) * _TINY)
            if top == left:
                lower.fill_diagonal_(math.inf)
            _settle(x, lower, top, left, nearest, scale, slack)
            if top != left:
                _settle(x, lower.T, left, top, nearest, scale, slack)
    return nearest


def _settle(x: Rows, lower: Float[Tensor, "a b"], first: int, second: int, nearest: Vector, scale: float, slack: float) -> None:
    """Measure every pair of this tile that could still be the nearest of its row, and lower ``nearest`` in place."""
    rows = slice(first, first + lower.shape[0])
    # Each row's likeliest partner first: with it measured, few others can still do better.
    least, partner = lower.min(1)
    i = torch.nonzero(least < (nearest[rows] * scale) ** 2 * slack).flatten()
    _measure(x, i + first, partner[i] + second, nearest)
    open_pairs = lower < ((nearest[rows] * scale) ** 2 * slack)[:, None]
    open_pairs[i, partner[i]] = False
    if first == second:
        open_pairs = (open_pairs | open_pairs.T).triu()  # a pair measured serves both of its rows
    i, j = torch.nonzero(open_pairs, as_tuple=True)
    _measure(x, i + first, j + second, nearest)


def _measure(x: Rows, i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"], nearest: Vector) -> None:
    """Lower ``nearest`` in place to the directly computed distances of the pairs (i, j)."""
    step = max(1, _CHUNK // x.shape[1])
    for start in range(0, len(i), step):
        a, b = i[start : start + step], j[start : start + step]
        difference = x[a] - x[b]
        distance = torch.linalg.vector_norm(difference, dim=1)
        # Squares of such numbers overflow or vanish: take the slower, scaled norm for them alone.
        extreme = (distance < 1e-140) | (distance > 1e140)
        if bool(extreme.any()):
            distance[extreme] = row_norms(difference[extreme])
        nearest.scatter_reduce_(0, a, distance, "amin")
        nearest.scatter_reduce_(0, b, distance, "amin")


def parallel_pairs(x: Rows, tolerance: float = 1e-12) -> tuple[tuple[int, int], ...]:
    r"""Pairs of rows on one line through the origin, $x_i = \pm c\,x_j$: the inputs that DU's theorems exclude.

    A pair counts when $\min_\pm\|x_i/\|x_i\| \pm x_j/\|x_j\|\|$ is at most the tolerance; $|\cos|$ alone, flat at 1, could
    not tell angles below 1e-8. A zero row has no direction and is in no pair.

    Args:
        x: n×d rows, float64, finite.
        tolerance: on the distance between the unit vectors.

    Returns:
        Pairs (i, j) with i < j, at most ``MAX_PARALLEL`` of them.

    References:
        DU Theorem 5.1 (no two inputs parallel, so that $\lambda_{\min}(K^{(H)}) > 0$; THEORY 3.7, I8).

    Example:
        >>> parallel_pairs(torch.tensor([[1.0, 2.0], [-2.0, -4.0], [2.0, 1.0]], dtype=torch.float64))
        ((0, 1),)
    """
    unit = unit_rows(x)
    n, d = unit.shape
    # |cos| >= 1 - tolerance^2/2 for a pair that counts; the product and the norms err by (d + 8) eps together.
    threshold = 1 - tolerance**2 / 2 - 2 * (d + 8) * _EPS
    found: list[tuple[int, int]] = []
    step = max(1, _CHUNK // d)
    for top in range(0, n, TILE):
        for left in range(top, n, TILE):
            near = (unit[top : top + TILE] @ unit[left : left + TILE].T).abs_() >= threshold
            if top == left:
                near = near.triu(1)
            pairs = torch.nonzero(near) + torch.tensor([top, left], device=x.device)
            for start in range(0, len(pairs), step):
                some = pairs[start : start + step]
                a, b = unit[some[:, 0]], unit[some[:, 1]]
                gap = torch.minimum(torch.linalg.vector_norm(a - b, dim=1), torch.linalg.vector_norm(a + b, dim=1))
                found += [(int(i), int(j)) for i, j in some[gap <= tolerance].tolist()]
                if len(found) >= MAX_PARALLEL:
                    return tuple(sorted(found[:MAX_PARALLEL]))
    return tuple(sorted(found))
