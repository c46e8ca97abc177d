r"""A lower bound for $\lambda_{\min}$ that rounding cannot break: a Cholesky factor whose product is compared with the matrix."""

from __future__ import annotations

import numpy as np
import scipy.linalg.lapack
from numpy.typing import NDArray

from zeroloss.spectrum.operators import TILE, UNIT


def cholesky(matrix: NDArray[np.float64], shift: float, out: NDArray[np.float64]) -> NDArray[np.float64] | None:
    r"""$C$ with $CC^\top \approx M - \mu I$, lower triangular, in the memory of ``out``.

    Args:
        matrix: $M$, n×n, exactly symmetric.
        shift: $\mu$.
        out: n×n, contiguous by rows; overwritten.

    Returns:
        The factor, contiguous by columns, zero above the diagonal; None where a pivot was not positive.

    Example:
        >>> cholesky(np.array([[5.0]]), 1.0, np.empty((1, 1)))
        array([[2.]])
    """
    np.copyto(out, matrix)
    out.flat[:: len(out) + 1] -= shift
    factor, info = scipy.linalg.lapack.dpotrf(out.T, lower=1, overwrite_a=1, clean=1)  # symmetric: the transpose is the matrix
    return factor if info == 0 and bool(np.isfinite(np.diag(factor)).all()) else None


def smallest_bound(matrix: NDArray[np.float64], near: float, out: NDArray[np.float64] | None = None) -> float:
    r"""A rigorous lower bound for $\lambda_{\min}$, given a good guess.

    Let $C$ be the computed Cholesky factor of $G-\mu I$ for $\mu$ just below $\lambda_{\min}$. Since $CC^\top \succeq 0$ for any $C$,
    $\lambda_{\min}(G) \ge \mu - \|G-\mu I-CC^\top\|_\infty$; the norm is bounded with the rounding of its own evaluation included, so
    neither LAPACK's eigenvalues nor its Cholesky are trusted (CERTIFICATE, "Rigorous floating point", 3).

    Args:
        matrix: $G$, n×n, exactly symmetric, float64.
        near: an approximation of $\lambda_{\min}$.
        out: n×n memory to work in, overwritten; None for new memory.

    Returns:
        The bound; Gershgorin's where no Cholesky factor was found.

    Example:
        >>> 1 - 1e-12 < smallest_bound(np.array([[2.0, 1.0], [1.0, 2.0]]), near=1.0) <= 1
        True
    """
    n = len(matrix)
    row_sums = absolute_row_sums(matrix)
    diagonal = np.diag(matrix)
    best = float(np.min(diagonal - (row_sums - np.abs(diagonal))) - 4 * n * UNIT * row_sums.max())
    margin = 2 * UNIT * max(float(row_sums.max()), 1e-300)
    out = np.empty((n, n)) if out is None else out
    for _ in range(12):
        mu = near - margin
        factor = cholesky(matrix, mu, out)
        if factor is None:
            margin *= 8
            continue
        error = _defect(matrix, mu, factor)
        error += 4 * UNIT * (row_sums + abs(mu))  # of the shift
        return max(best, float(mu - error.max() * (1 + (2 * n + 64) * UNIT) - 1e-290))
    return best


def absolute_row_sums(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""$\sum_j|M_{ij}|$, with no second matrix.

    Args:
        matrix: p×q.

    Returns:
        p sums.

    Example:
        >>> absolute_row_sums(np.array([[1.0, -2.0]]))
        array([3.])
    """
    return np.concatenate([np.abs(matrix[i : i + TILE]).sum(axis=1) for i in range(0, len(matrix), TILE)])


def _defect(matrix: NDArray[np.float64], mu: float, factor: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Row sums of $|M-\mu I-CC^\top|$ and of what rounding may have hidden of it: only the lower half is formed, strip by strip.

    The half has n³/3 operations, as many as the factorisation. Rounding of a product is at most $\gamma_n|C||C|^\top$, in whatever order
    its terms were summed.
    """
    n = len(matrix)
    error = np.zeros(n)
    columns = np.zeros(n)
    for j in range(0, n, TILE):
        end = min(j + TILE, n)
        strip = factor[j:, :end] @ factor[j:end, :end].T  # columns past the end meet zeros of the factor's own rows j to end
        squares = strip.diagonal().copy()
        np.subtract(matrix[j:, j:end], strip, out=strip)
        np.fill_diagonal(strip[: end - j], (matrix.diagonal()[j:end] - mu) - squares)
        np.abs(strip, out=strip)
        error[j:] += strip.sum(axis=1)
        error[j:end] += strip[end - j :].sum(axis=0)  # the upper half mirrors the lower
        columns[:end] += np.abs(factor[j:end, :end]).sum(axis=0)
    gamma = (n + 2) * UNIT / (1 - (n + 2) * UNIT)
    for j in range(0, n, TILE):
        end = min(j + TILE, n)
        error[j:end] += gamma * (np.abs(factor[j:end, :end]) @ columns[:end])
    return error * (1 + 2 * UNIT)  # of the differences
