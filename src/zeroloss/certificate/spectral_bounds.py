r"""Eigenvalue and norm bounds that trust no LAPACK routine.

For any matrix $C$ whatever, $CC^\top\succeq0$, so $\lambda_{\min}(S)\ge-\|S-CC^\top\|_2$. Take for $C$ the computed Cholesky factor and
bound the norm, the rounding of its own evaluation included: if the factorisation was wrong the norm is large and the bound useless,
never false (CERTIFICATE, "Rigorous floating point", 3 and 4; weaker assumptions than Rump 2006, at the cost of one product).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zeroloss.certificate.rounding import TINY, UNIT, gamma, norm_bound, up
from zeroloss.spectrum import spectral_norm

BLOCK = 1024
DENSE = 1200  # rows up to which all eigenvalues are computed for a first guess
FACTORED = 3000  # Gram matrices up to this size get the sharp upper bound
SHARES = (1 - 1e-3, 0.99, 0.9, 0.5)  # of a guess, tried in turn as the bound


def defect(matrix: Tensor) -> float:
    r"""A number $d\ge0$ with $\lambda_{\min}(S)\ge-d$, infinite where no factor was found.

    Args:
        matrix: S, n×n, exactly symmetric.

    Returns:
        $\|S-CC^\top\|_F+\gamma_{n+2}\min(\|C\|_F^2,\||C||C|^\top\|_\infty)$ for the computed factor C, rounded up.

    Example:
        >>> defect(torch.eye(3, dtype=torch.float64)) < 1e-14, defect(-torch.eye(3, dtype=torch.float64))
        (True, inf)
    """
    n = len(matrix)
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info) != 0 or not bool(torch.isfinite(factor.sum())):
        return math.inf
    total = 0.0
    for top in range(0, n, BLOCK):
        for left in range(0, top + 1, BLOCK):
            stop = min(left + BLOCK, n)  # what lies right of the diagonal block is no part of C
            part = matrix[top : top + BLOCK, left:stop] - factor[top : top + BLOCK, :stop] @ factor[left:stop, :stop].T
            total += float(part.square_().sum()) * (1 if left == top else 2)
    magnitude = factor.abs_()
    rows = magnitude @ magnitude.sum(0)
    grown = min(float(magnitude.square_().sum()), float(rows.max()))
    return up(math.sqrt(total) + gamma(n + 2) * grown, n * n) + TINY


def smallest_eigenvalue_bound(matrix: Tensor, error: float) -> tuple[float, float]:
    r"""A lower bound of $\lambda_{\min}$ of every symmetric matrix within ``error`` of the given one.

    Args:
        matrix: n×n, exactly symmetric, positive definite if anything is to come of it.
        error: in the spectral norm.

    Returns:
        The bound ($-\infty$ where nothing was found) and $\lambda_{\min}$ as estimated.

    Example:
        >>> bound, near = smallest_eigenvalue_bound(torch.eye(3, dtype=torch.float64), 0.0)
        >>> 0.998 < bound < 1, near
        (True, 1.0)
    """
    near = _smallest_estimate(matrix)
    if not near > 0 or not math.isfinite(error):
        return -math.inf, near
    for share in SHARES:
        mu = share * near
        shifted = matrix.clone()
        shifted.diagonal().sub_(mu)
        lost = 2 * UNIT * float(shifted.diagonal().abs().max())  # rounding of the shift
        d = defect(shifted)
        if d < math.inf:
            return mu - up(d + lost + error), near
    return -math.inf, near


def largest_eigenvalue_bound(matrix: Tensor, error: float) -> float:
    r"""An upper bound of $\|G'\|_2$ for every symmetric positive semidefinite $G'$ within ``error`` of the given matrix.

    Args:
        matrix: n×n, exactly symmetric.
        error: in the spectral norm.

    Returns:
        The smaller of the Frobenius norm, a Collatz-Wielandt bound of $|G|$, and (up to ``FACTORED`` rows) the sharp one, $\mu+d$ where
        $\mu I-G\succeq-d$.

    Example:
        >>> 2.0 <= largest_eigenvalue_bound(torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64)), 0.0) < 2.001
        True
    """
    n = len(matrix)
    best = min(norm_bound(matrix), _row_bound(matrix))
    if n <= FACTORED:
        near = _largest_estimate(matrix)
        for share in (1e-6, 1e-3, 0.1):
            mu = near * (1 + share) + TINY
            shifted = -matrix
            shifted.diagonal().add_(mu)
            d = defect(shifted)
            if d < math.inf:
                best = min(best, up(mu + d + 2 * UNIT * float(shifted.diagonal().abs().max())))
                break
    return up(best + error)


def matrix_norm_bound(matrix: Tensor) -> float:
    r"""An upper bound of $\|M\|_2$ for a matrix of exact float64 numbers.

    Args:
        matrix: p×q.

    Returns:
        $\sqrt{\lambda_{\max}}$ of the smaller Gram matrix, bounded from above, or the Frobenius norm where that is smaller.

    Example:
        >>> 2.0 <= matrix_norm_bound(torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64))) < 2.00001
        True
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    frobenius = norm_bound(wide)
    if len(wide) == 1 or not math.isfinite(frobenius) or frobenius < 1e-100 or frobenius > 1e100:
        return frobenius
    product = wide @ wide.T
    symmetrise(product)
    error = gamma(wide.shape[1] + 3) * frobenius * frobenius  # sum of |m_i||m_j| over all entries is below it
    near = spectral_norm(wide) ** 2
    for share in (1e-6, 1e-4, 1e-2, 0.1):
        mu = near * (1 + share) + TINY
        shifted = -product
        shifted.diagonal().add_(mu)
        d = defect(shifted)
        if d < math.inf:
            bound = up(mu + d + error + 2 * UNIT * float(shifted.diagonal().abs().max()))
            return min(frobenius, up(math.sqrt(bound)))
    return frobenius


def perron_bound(matrix: Tensor) -> float:
    r"""An upper bound of $\|M\|_2$ for a symmetric matrix of nonnegative numbers: $\max_i(Mv)_i/v_i$ for any $v>0$ (Collatz, Wielandt).

    Args:
        matrix: small.

    Returns:
        The bound.

    Example:
        >>> 2.0 <= perron_bound(torch.tensor([[0.0, 2.0], [2.0, 0.0]], dtype=torch.float64)) < 2.0001
        True
    """
    top = float(matrix.max())
    if top == 0.0:
        return 0.0
    scaled = matrix / top
    v = torch.ones(len(matrix), dtype=torch.float64)
    for _ in range(500):
        v = scaled @ v + 1e-3 * v  # the shift stops an oscillation between two classes of rows
        v = v / v.max() + 1e-13
    return up(float((scaled @ v / v).max()) * top, 4 * len(matrix))


def symmetrise(matrix: Tensor) -> None:
    """Average a matrix with its transpose, in place and by blocks; where both enclose a symmetric one within a radius, so does the mean.

    Args:
        matrix: n×n.
    """
    n = len(matrix)
    for top in range(0, n, BLOCK):
        rows = slice(top, min(top + BLOCK, n))
        for left in range(0, top + 1, BLOCK):
            columns = slice(left, min(left + BLOCK, n))
            mean = (matrix[rows, columns] + matrix[columns, rows].T) / 2
            matrix[rows, columns] = mean
            matrix[columns, rows] = mean.T


def _row_bound(matrix: Tensor) -> float:
    magnitude = matrix.abs()
    v = torch.ones(len(matrix), dtype=torch.float64)
    for _ in range(20):
        v = magnitude @ v
        top = float(v.max())
        if not 0 < top < math.inf:
            return math.inf
        v = v / top + 1e-6
    return up(float((magnitude @ v / v).max()), 2 * len(matrix))


def _smallest_estimate(matrix: Tensor) -> float:
    if len(matrix) <= DENSE:
        return float(torch.linalg.eigvalsh(matrix)[0])
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info) != 0:
        return -1.0
    block = torch.randn(len(matrix), 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near = math.inf
    for _ in range(40):
        block = torch.linalg.qr(torch.cholesky_solve(block, factor))[0]
        found = float(torch.linalg.eigvalsh(block.T @ (matrix @ block))[0])
        if found > near * (1 - 1e-5):
            break
        near = found
    return min(near, found)


def _largest_estimate(matrix: Tensor) -> float:
    if len(matrix) <= DENSE:
        return float(torch.linalg.eigvalsh(matrix)[-1])
    v = torch.ones(len(matrix), 1, dtype=torch.float64)
    for _ in range(60):
        v = matrix @ v
        v = v / v.norm()
    return float(v.T @ (matrix @ v))
