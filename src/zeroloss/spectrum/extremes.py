r"""The ends of a symmetric matrix's or operator's spectrum, and the bound that stands behind the lower one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from zeroloss.errors import ArgumentError
from zeroloss.spectrum.bound import smallest_bound
from zeroloss.spectrum.lanczos import lanczos
from zeroloss.spectrum.operators import UNIT, Matrix, as_product, start, symmetric, times, written_out
from zeroloss.spectrum.smallest import LARGE, STEPS, TOLERANCE, all_eigenvalues, by_inverse, settled

__all__ = ["Extremes", "extremes", "largest_eigenvalue", "smallest_bound", "symmetric"]

SMALL = 64  # operators up to this size are written out
WRITTEN = 3000  # likewise where Lanczos does not settle: restarts would take more products than there are rows


@dataclass(frozen=True)
class Extremes:
    r"""The ends of a spectrum.

    Args:
        smallest: $\lambda_{\min}$ as computed.
        largest: $\lambda_{\max}$ as computed.
        smallest_bound: a number that $\lambda_{\min}$ of the given float64 matrix provably is not below; None for an operator, and where
            none was asked for.
    """

    smallest: float
    largest: float
    smallest_bound: float | None

    @property
    def condition(self) -> float:
        r"""$\kappa=\lambda_{\max}/\lambda_{\min}$; infinite where the matrix is not positive definite."""
        return self.largest / self.smallest if self.smallest > 0 else float("inf")


def extremes(matrix_or_operator: Matrix | LinearOperator, entry_error: float = 0.0, bound: bool = True) -> Extremes:
    r"""Smallest and largest eigenvalue of a symmetric matrix or operator, in float64.

    A matrix of two thousand rows or more costs a Cholesky factor and some tens of passes over it and over the matrix, as
    :func:`smallest_eigenvalue` says; a smaller one, and one that is not positive definite, a full decomposition. An operator costs products
    until both ends' residuals are 1e-8 of them, which takes the more, the worse its condition: one of up to 3000 rows is
    written out where 300 do not do. Both ends are right to 1e-8, relatively, where rounding allows it.

    The bound: let $C$ be the computed Cholesky factor of $G-\mu I$ for $\mu$ just below $\lambda_{\min}$. Since
    $CC^\top \succeq 0$ for any $C$, $\lambda_{\min}(G) \ge \mu - \|G-\mu I-CC^\top\|_\infty$; the norm is bounded with the
    rounding of its own evaluation included, so neither LAPACK's eigenvalues nor its Cholesky are trusted (CERTIFICATE,
    "Rigorous floating point", 3). It costs a second factor and a product of as many operations, and holds the smallest eigenvalue
    between itself and what was computed: where they lie apart by more than rounding explains, the full decomposition is made.

    Args:
        matrix_or_operator: n×n symmetric tensor or array, or a scipy LinearOperator.
        entry_error: what every entry may differ by from that of the matrix that is meant, such as ``K.entry_error(x)`` of a limit
            kernel; the bound is then one for the matrix that is meant, lower by n times this, since $\|E\|_2\le n\max|E_{ij}|$.
        bound: whether to form the bound, which is half of the time for a large matrix.

    Returns:
        Both ends, and the bound where a matrix was given.

    Raises:
        ArgumentError: for a matrix that is not square, not symmetric, empty, or has NaN or infinity, and for an operator of the kind.

    Example:
        >>> ends = extremes(np.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> round(ends.smallest, 9), round(ends.largest, 9), 1 - 1e-12 < ends.smallest_bound <= 1
        (1.0, 3.0, True)
    """
    if not (entry_error >= 0 and math.isfinite(entry_error)):
        raise ArgumentError("entry_error", f"is {entry_error}", "pass a finite number of at least 0")
    if isinstance(matrix_or_operator, LinearOperator):  # no bound, and no use for the error
        return _operator_extremes(matrix_or_operator)
    matrix = symmetric(matrix_or_operator)
    work = np.empty_like(matrix)  # for both factors; untouched memory costs nothing
    fast = _fast_ends(matrix, work) if len(matrix) >= LARGE else None
    low, high = fast or _ends(matrix)
    if not bound:
        return Extremes(low, high, None)
    below = smallest_bound(matrix, low, work)
    if fast and low - below > TOLERANCE * low + 4 * len(matrix) ** 2 * UNIT * float(matrix.diagonal().max()):
        low, high = _ends(matrix)  # Lanczos has missed an eigenvalue
        below = smallest_bound(matrix, low, work)
    if entry_error > 0:
        below = math.nextafter(below - len(matrix) * entry_error * (1 + 4 * UNIT), -math.inf)
    return Extremes(low, high, below)


def largest_eigenvalue(operator: LinearOperator, tolerance: float = TOLERANCE) -> float:
    r"""$\lambda_{\max}$ of a symmetric operator, by Lanczos from a fixed start, until the residual is ``tolerance`` of it.

    Args:
        operator: n×n.
        tolerance: relative.

    Returns:
        The eigenvalue.

    Raises:
        ArgumentError: for an operator that is not square, not symmetric, empty, or gives NaN or infinity.

    Example:
        >>> from scipy.sparse.linalg import aslinearoperator
        >>> round(largest_eigenvalue(aslinearoperator(np.diag(np.arange(100.0)))), 6)
        99.0
    """
    apply, n = as_product(operator), operator.shape[0]
    if n <= SMALL:
        return float(all_eigenvalues(written_out(operator))[-1])
    known = lanczos(apply, start(n), lambda k: settled(k, tolerance), STEPS)
    if settled(known, tolerance):
        return float(known.values[-1])
    return _end(operator, "LA", tolerance)


def _ends(matrix: NDArray[np.float64]) -> tuple[float, float]:
    values = all_eigenvalues(matrix)
    return float(values[0]), float(values[-1])


def _fast_ends(matrix: NDArray[np.float64], work: NDArray[np.float64]) -> tuple[float, float] | None:
    found = by_inverse(matrix, work)
    if found is None:
        return None
    top = lanczos(times(matrix), start(len(matrix)), settled, STEPS)
    return (found.value, float(top.values[-1])) if settled(top) else None


def _operator_extremes(operator: LinearOperator) -> Extremes:
    apply, n = as_product(operator), operator.shape[0]
    if n <= SMALL:
        return Extremes(*_ends(written_out(operator)), None)
    known = lanczos(apply, start(n), lambda k: settled(k) and settled(k, end=0), STEPS)
    if settled(known) and settled(known, end=0):
        return Extremes(float(known.values[0]), float(known.values[-1]), None)
    if n <= WRITTEN:
        return Extremes(*_ends(written_out(operator)), None)
    return Extremes(_end(operator, "SA"), _end(operator, "LA"), None)


def _end(operator: LinearOperator, which: Literal["SA", "LA"], tolerance: float = TOLERANCE) -> float:
    """One end by restarted Lanczos, whose memory does not grow."""
    try:
        values = eigsh(operator, k=1, which=which, v0=start(operator.shape[0]), tol=tolerance, return_eigenvectors=False)
    except ArpackNoConvergence as error:
        raise ArgumentError(
            "operator", f"has an end that {STEPS} steps of Lanczos and its restarts do not settle", "form it, and pass the matrix"
        ) from error
    return float(values[0])
