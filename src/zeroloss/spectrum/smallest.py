r"""The smallest eigenvalue of a matrix without its other n-1: one Cholesky factor, and Lanczos on the inverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.linalg.blas
import torch
from numpy.typing import NDArray

from zeroloss.spectrum.bound import absolute_row_sums, cholesky
from zeroloss.spectrum.lanczos import Krylov, lanczos
from zeroloss.spectrum.operators import UNIT, Matrix, Vector, start, symmetric

LARGE = 2000  # rows from which the factor is faster than a full decomposition (docs/decisions/010)
STEPS = 300  # of Lanczos at most; a full decomposition takes as long as some hundred more
TOLERANCE = 1e-8  # of the inverse's Ritz value, for its residual: the eigenvalue then errs by the residual's square over the gap


@dataclass(frozen=True)
class Smallest:
    r"""The smallest eigenvalue, and what stands behind it.

    Args:
        value: $\lambda_{\min}$ as computed.
        residual: $\|G^{-1}v-\nu v\|/\nu$ of the unit vector $v$ with $\lambda_{\min}\approx1/\nu$: in exact arithmetic some eigenvalue of
            $G$ is nearer than this, relatively; zero after a full decomposition.
        rounding: what one rounding of $\|G\|_\infty$ is of the value, the scale on which methods that compute in float64 differ;
            infinite for zero.
        steps: Lanczos steps; zero after a full decomposition.
    """

    value: float
    residual: float
    rounding: float
    steps: int


def smallest_eigenvalue(matrix: Matrix) -> Smallest:
    r"""$\lambda_{\min}$ of a symmetric matrix, to 1e-8 where rounding allows it, in about a quarter of a full decomposition's time.

    From two thousand rows on: $G = CC^\top$, then Lanczos on $v\mapsto C^{-\top}C^{-1}v$ with full reorthogonalisation from a fixed start,
    until the residual of its largest Ritz value $\nu$ is 1e-8 of it; $\lambda_{\min} = 1/\nu$. It takes n³/3 operations and some tens of
    passes over the factor, where a full decomposition takes 4n³/3, half of them at the speed of memory. A full decomposition is made for
    fewer rows, where there is no Cholesky factor, and where 300 steps do not do.

    Args:
        matrix: n×n, symmetric.

    Returns:
        The eigenvalue with its residual.

    Raises:
        ArgumentError: for a matrix that is not square, not symmetric, empty, or has NaN or infinity.

    Example:
        >>> round(smallest_eigenvalue(torch.tensor([[2.0, 1.0], [1.0, 2.0]])).value, 12)
        1.0
    """
    return smallest_of(symmetric(matrix))


def smallest_of(matrix: NDArray[np.float64], out: NDArray[np.float64] | None = None, large: int = LARGE) -> Smallest:
    """As :func:`smallest_eigenvalue`, of a matrix that is checked already.

    Args:
        matrix: n×n, exactly symmetric, contiguous by rows.
        out: n×n memory to work in, overwritten; None for new memory.
        large: rows from which the factor is used.

    Returns:
        The eigenvalue with its residual.

    Example:
        >>> smallest_of(np.diag(np.arange(1.0, 50.0)), large=10).steps > 0
        True
    """
    found = by_inverse(matrix, out) if len(matrix) >= large else None
    return found or _smallest(matrix, float(all_eigenvalues(matrix)[0]), 0.0, 0)


def all_eigenvalues(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """A full decomposition's eigenvalues, by whichever library is faster: scipy's up to two thousand rows, then torch's.

    Args:
        matrix: n×n, exactly symmetric.

    Returns:
        n eigenvalues, ascending.

    Example:
        >>> all_eigenvalues(np.diag([2.0, 1.0]))
        array([1., 2.])
    """
    if len(matrix) < LARGE:
        return np.asarray(scipy.linalg.eigvalsh(matrix), dtype=np.float64)
    values: NDArray[np.float64] = torch.linalg.eigvalsh(torch.from_numpy(matrix)).numpy()
    return values


def by_inverse(matrix: NDArray[np.float64], out: NDArray[np.float64] | None = None) -> Smallest | None:
    r"""The smallest eigenvalue by a factor and Lanczos on the inverse, or nothing.

    Args:
        matrix: n×n, exactly symmetric, contiguous by rows.
        out: n×n memory to work in, overwritten; None for new memory.

    Returns:
        The eigenvalue; None where the matrix is not positive definite to rounding, or Lanczos did not settle.

    Example:
        >>> by_inverse(np.array([[0.0]])) is None
        True
    """
    factor = cholesky(matrix, 0.0, np.empty_like(matrix) if out is None else out)
    if factor is None:
        return None

    known = lanczos(inverse_of(factor), start(len(matrix)), settled, STEPS)
    nu, residual = float(known.values[-1]), float(known.residuals[-1])
    return _smallest(matrix, 1 / nu, residual / nu, known.steps) if nu > 0 and settled(known) else None


def inverse_of(factor: NDArray[np.float64]) -> Callable[[Vector], Vector]:
    r"""$v\mapsto C^{-\top}C^{-1}v$.

    Args:
        factor: $C$, lower triangular, contiguous by columns.

    Returns:
        The two triangular solves.

    Example:
        >>> inverse_of(np.array([[2.0]]))(np.array([8.0]))
        array([2.])
    """

    def inverse(v: Vector) -> Vector:
        half = scipy.linalg.blas.dtrsv(factor, v, lower=1)
        result: Vector = scipy.linalg.blas.dtrsv(factor, half, lower=1, trans=1)
        return result

    return inverse


def settled(known: Krylov, tolerance: float = TOLERANCE, end: int = -1) -> bool:
    """Whether the Ritz value at an end of the spectrum has a residual that is small enough.

    Args:
        known: what Lanczos knows.
        tolerance: of the value, for the residual.
        end: -1 for the largest value, 0 for the smallest.

    Returns:
        Whether it is.

    Example:
        >>> settled(lanczos(lambda v: v, np.ones(3), lambda known: False, most=3))
        True
    """
    return float(known.residuals[end]) <= tolerance * abs(float(known.values[end]))


def _smallest(matrix: NDArray[np.float64], value: float, residual: float, steps: int) -> Smallest:
    unit = UNIT * float(absolute_row_sums(matrix).max())
    return Smallest(value, residual, unit / abs(value) if value else float("inf"), steps)
