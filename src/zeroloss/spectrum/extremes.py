"""The ends of a symmetric matrix's spectrum, with a lower bound for the smallest eigenvalue that rounding cannot break."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from zeroloss.errors import ArgumentError

UNIT = 2.0**-53  # float64's unit roundoff
SMALL = 64  # operators up to this size are written out
RESIDUAL = 1e-7  # of a spectral norm's square, relative


@dataclass(frozen=True)
class Extremes:
    r"""The ends of a spectrum.

    Args:
        smallest: $\lambda_{\min}$ as computed.
        largest: $\lambda_{\max}$ as computed.
        smallest_bound: a number that $\lambda_{\min}$ of the given float64 matrix provably is not below; None for an operator.
    """

    smallest: float
    largest: float
    smallest_bound: float | None

    @property
    def condition(self) -> float:
        r"""$\kappa=\lambda_{\max}/\lambda_{\min}$; infinite where the matrix is not positive definite."""
        return self.largest / self.smallest if self.smallest > 0 else float("inf")


def extremes(matrix_or_operator: Tensor | NDArray[np.float64] | LinearOperator, entry_error: float = 0.0) -> Extremes:
    r"""Smallest and largest eigenvalue of a symmetric matrix or operator, in float64.

    The bound: let $C$ be the computed Cholesky factor of $G-\mu I$ for $\mu$ just below $\lambda_{\min}$. Since
    $CC^\top \succeq 0$ for any $C$, $\lambda_{\min}(G) \ge \mu - \|G-\mu I-CC^\top\|_\infty$; the norm is bounded with the
    rounding of its own evaluation included, so neither LAPACK's eigenvalues nor its Cholesky are trusted (CERTIFICATE,
    "Rigorous floating point", 3).

    Args:
        matrix_or_operator: n×n symmetric tensor or array, or a scipy LinearOperator.
        entry_error: what every entry may differ by from that of the matrix that is meant, such as ``K.entry_error(x)`` of a limit
            kernel; the bound is then one for the matrix that is meant, lower by n times this, since $\\|E\\|_2\\le n\\max|E_{ij}|$.

    Returns:
        Both ends, and the bound where a matrix was given.

    Raises:
        ArgumentError: for a matrix that is not square, not symmetric, empty, or has NaN or infinity.

    Example:
        >>> ends = extremes(torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
        >>> round(ends.smallest, 9), round(ends.largest, 9), 1 - 1e-12 < ends.smallest_bound <= 1
        (1.0, 3.0, True)
    """
    if not (entry_error >= 0 and math.isfinite(entry_error)):
        raise ArgumentError("entry_error", f"is {entry_error}", "pass a finite number of at least 0")
    if isinstance(matrix_or_operator, LinearOperator):  # no bound, and no use for the error
        return _operator_extremes(matrix_or_operator)
    matrix = symmetric(matrix_or_operator)
    values = scipy.linalg.eigvalsh(matrix)
    low, high = float(values[0]), float(values[-1])
    bound = smallest_bound(matrix, low)
    if entry_error > 0:
        bound = math.nextafter(bound - len(matrix) * entry_error * (1 + 4 * UNIT), -math.inf)
    return Extremes(low, high, bound)


def largest_eigenvalue(operator: LinearOperator, tolerance: float = 1e-8) -> float:
    r"""$\lambda_{\max}$ of a symmetric positive semidefinite operator, by Lanczos from a fixed start.

    Args:
        operator: n×n.
        tolerance: relative.

    Returns:
        The eigenvalue.

    Example:
        >>> from scipy.sparse.linalg import aslinearoperator
        >>> round(largest_eigenvalue(aslinearoperator(np.diag(np.arange(100.0)))), 6)
        99.0
    """
    n = operator.shape[0]
    if n <= SMALL:
        return float(scipy.linalg.eigvalsh(_dense(operator))[-1])
    values = eigsh(operator, k=1, which="LA", v0=_start(n), tol=tolerance, return_eigenvectors=False)
    return float(values[0])


def spectral_norm(matrix: Tensor) -> float:
    r"""$\|M\|_2$ of a matrix of any shape, by Lanczos on $MM^\top$ from a fixed start.

    It ends where the residual of the largest eigenvalue is 1e-7 of it: the eigenvalue errs by the residual's square over the gap to the
    next, which is rounding, and by the residual itself where the two nearly coincide. The movement of a layer is nearly of low rank, so
    that a few products do; ARPACK asks only after twenty.

    Args:
        matrix: p×q.

    Returns:
        The largest singular value.

    Example:
        >>> spectral_norm(torch.zeros(300, 200))
        0.0
    """
    wide = matrix.detach().to(torch.float64).cpu()
    wide = wide if wide.shape[0] <= wide.shape[1] else wide.T
    size = len(wide)
    if size <= SMALL:
        return _thin_norm(wide.numpy())
    basis = torch.empty(size, size, dtype=torch.float64)  # memory that no step reaches is never touched
    diagonal: list[float] = []
    beside: list[float] = []
    largest = 0.0
    new = torch.from_numpy(_start(size))
    length = float(new.norm())
    for step in range(size):
        basis[step] = new / length
        new = wide @ (wide.T @ basis[step])
        diagonal.append(float(new @ basis[step]))
        known = basis[: step + 1]
        for _ in range(2):  # once leaves rounding of the old directions, which would grow
            new = new - known.T @ (known @ new)
        length = float(new.norm())
        values, vectors = scipy.linalg.eigh_tridiagonal(diagonal, beside, select="i", select_range=(step, step))
        largest = max(float(values[0]), 0.0)
        if length * abs(float(vectors[-1, 0])) <= RESIDUAL * largest:
            break
        beside.append(length)
    return math.sqrt(largest)


def _thin_norm(array: NDArray[np.float64]) -> float:
    r"""$\sqrt{\lambda_{\max}(MM^\top)}$ of a wide matrix, to rounding, where a full SVD takes ten times as long."""
    scale = float(np.abs(array).max()) if array.size else 0.0
    if scale == 0.0:
        return 0.0
    scaled = array / scale  # its squares must neither overflow nor vanish
    return scale * math.sqrt(float(scipy.linalg.eigvalsh(scaled @ scaled.T)[-1]))


def symmetric(matrix: Tensor | NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix as a float64 array, checked to be square, finite and symmetric to rounding, then exactly symmetrised."""
    array = matrix.detach().cpu().numpy() if isinstance(matrix, Tensor) else np.asarray(matrix)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] == 0:
        raise ArgumentError("matrix", f"has shape {array.shape}", "pass a non-empty square one")
    if array.dtype.kind not in "fiu":
        raise ArgumentError("matrix", f"has dtype {array.dtype}", "pass real numbers")
    eps = float(np.finfo(array.dtype).eps) if array.dtype.kind == "f" else UNIT
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ArgumentError("matrix", f"has NaN or infinity (first: row {row})", "find out where it was formed")
    gap = float(np.abs(array - array.T).max())
    if gap > 1e3 * eps * float(np.abs(array).max()):
        raise ArgumentError("matrix", f"is not symmetric (entries differ by {gap:.3g})", "pass (M + M.T) / 2 if that is meant")
    result: NDArray[np.float64] = array / 2 + array.T / 2
    return result


def smallest_bound(matrix: NDArray[np.float64], near: float) -> float:
    r"""A rigorous lower bound for $\lambda_{\min}$, given a good guess; see :func:`extremes`.

    Args:
        matrix: n×n, exactly symmetric, float64.
        near: an approximation of $\lambda_{\min}$.

    Returns:
        The bound; Gershgorin's where no Cholesky factor was found.
    """
    n = len(matrix)
    row_sums = np.abs(matrix).sum(axis=1)
    best = float(np.min(np.diag(matrix) - (row_sums - np.abs(np.diag(matrix)))) - 4 * n * UNIT * row_sums.max())
    margin = 2 * UNIT * max(float(row_sums.max()), 1e-300)
    for _ in range(12):
        mu = near - margin
        shifted = matrix - mu * np.eye(n)
        try:
            factor = np.linalg.cholesky(shifted)
        except np.linalg.LinAlgError:
            margin *= 8
            continue
        product = factor @ factor.T
        positive = np.abs(factor)
        gamma = (n + 2) * UNIT / (1 - (n + 2) * UNIT)
        error = np.abs(shifted - product).sum(axis=1)
        error += gamma * (positive @ positive.sum(axis=0))  # rounding of the product, whatever the summation order
        error += 2 * UNIT * (row_sums + abs(mu) + np.abs(product).sum(axis=1))  # of the shift and of the difference
        return max(best, float(mu - error.max() * (1 + (2 * n + 64) * UNIT) - 1e-290))
    return best


def _operator_extremes(operator: LinearOperator) -> Extremes:
    n = operator.shape[0]
    if n <= SMALL:
        values = scipy.linalg.eigvalsh(_dense(operator))
        return Extremes(float(values[0]), float(values[-1]), None)
    low = eigsh(operator, k=1, which="SA", v0=_start(n), tol=1e-8, return_eigenvectors=False)
    return Extremes(float(low[0]), largest_eigenvalue(operator), None)


def _dense(operator: LinearOperator) -> NDArray[np.float64]:
    columns: NDArray[np.float64] = np.stack([operator @ column for column in np.eye(operator.shape[0])], axis=1)
    return (columns + columns.T) / 2


def _start(n: int) -> NDArray[np.float64]:
    """A fixed start: ARPACK's own is random, and a resumed run must repeat itself to the bit."""
    return np.random.default_rng(0).standard_normal(n)
