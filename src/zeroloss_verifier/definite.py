r"""Positive semidefiniteness proved by residuals, and spectral norms proved with it."""

from __future__ import annotations

import math
import random

from flint import arb, arb_mat, ctx

from zeroloss_verifier.balls import ZERO, Row, matrix, most, rows_of, smaller, square_root

PANEL = 32
SMALL = 16


def is_semidefinite(A: arb_mat) -> bool:
    r"""Whether every symmetric matrix in the balls is positive semidefinite; False says only that it was not proved.

    With any $C$ at all, and $A=CC^\top+\varepsilon I+E$, $CC^\top\succeq0$ gives $\lambda_{\min}(A)\ge\varepsilon-\|E\|_\infty$. $C$ is a
    Cholesky factor of the midpoints, computed without care; the residual $E$ is computed with balls. Nothing grows with the order of the
    matrix, as pivots of an interval elimination do.

    Args:
        A: symmetric, N×N.

    Returns:
        True where the inequality above proves it.

    Example:
        >>> is_semidefinite(arb_mat([[2, 1], [1, 1]])), is_semidefinite(arb_mat([[1, 2], [2, 1]]))
        (True, False)
    """
    size = A.nrows()
    entries = rows_of(A)
    largest = most(abs(entries[i][i]) for i in range(size))
    if not largest.is_finite():
        return False
    if largest.is_zero():
        return all(entry.is_zero() for row in entries for entry in row)
    epsilon = (largest * arb(2) ** -(ctx.prec // 2)).upper()
    shifted = A - _diagonal(size, epsilon)
    factor = _approximate_factor(rows_of(shifted.mid()))
    if factor is None:
        return False
    C = matrix(factor)
    residual = rows_of(shifted - C * C.transpose())
    return bool(most(sum((abs(entry) for entry in row), ZERO) for row in residual) <= epsilon)


def spectral_norm(A: arb_mat) -> arb:
    r"""An upper bound of $\|A\|_2$, some $10^{-9}$ above it.

    The square is the largest eigenvalue of the smaller of $AA^\top$, $A^\top A$; that $\mu$ is one bound of it is proved by
    $\mu I-AA^\top\succeq0$, with $\mu$ a little above what Lanczos' method finds in floating point.

    Example:
        >>> spectral_norm(arb_mat([[3, 0], [0, 4]])) < 4.00001
        True
    """
    G = A * A.transpose() if A.nrows() <= A.ncols() else A.transpose() * A
    return square_root(largest_eigenvalue(G))


def largest_eigenvalue(G: arb_mat) -> arb:
    """An upper bound of the largest eigenvalue of a positive semidefinite matrix.

    Example:
        >>> abs(largest_eigenvalue(arb_mat([[2, 1], [1, 2]])) - 3) < 1e-6
        True
    """
    size, entries = G.nrows(), rows_of(G)
    if size == 1:
        return entries[0][0].upper()
    # the trace and the largest row sum are always bounds
    bound = smaller(
        sum((entries[i][i] for i in range(size)), ZERO).upper(), most(sum((abs(entry) for entry in row), ZERO) for row in entries)
    )
    if not bound.is_finite() or bound.is_zero():
        return bound
    if size <= SMALL:
        return smaller(bound, _by_squaring(G))
    estimate = arb(_lanczos([[float((entry / bound).mid()) for entry in row] for row in entries])) * bound
    for margin in (1e-10, 1e-8, 1e-6, 1e-4, 1e-2):
        mu = (estimate * (1 + arb(margin))).upper()
        if not mu < bound:
            break
        if is_semidefinite(_diagonal(size, mu) - G):
            return mu
    return bound


def _diagonal(size: int, value: arb) -> arb_mat:
    made = arb_mat(size, size)
    for i in range(size):
        made[i, i] = value
    return made


def _by_squaring(G: arb_mat) -> arb:
    # the largest eigenvalue is at most the 2^30-th root of the Frobenius norm of that power: (size)^(2^-31) above it
    times = 30
    power = G
    for _ in range(times):
        power = power * power
    root = square_root(sum((entry * entry for entry in power.entries()), ZERO))
    for _ in range(times):
        root = root.sqrt().upper()
    return root


def _approximate_factor(A: list[Row]) -> list[Row] | None:
    """A lower triangular C with C Cᵀ close to A, or None where a pivot is not positive; panels of columns, no error bounds."""
    size = len(A)
    factor = [[ZERO] * size for _ in range(size)]
    rest = A  # what is left to factor, rows and columns from `start` on
    for start in range(0, size, PANEL):
        width = min(PANEL, size - start)
        head = _small_factor([row[:width] for row in rest[:width]])
        if head is None:
            return None
        for i in range(width):
            factor[start + i][start : start + width] = head[i]
        if start + width == size:
            break
        below = matrix([row[:width] for row in rest[width:]]) * matrix(_inverse(head)).transpose()
        below = below.mid()
        for i, row in enumerate(rows_of(below)):
            factor[start + width + i][start : start + width] = row
        rest = rows_of((matrix([row[width:] for row in rest[width:]]) - below * below.transpose()).mid())
    return factor


def _small_factor(A: list[Row]) -> list[Row] | None:
    size = len(A)
    L = [[ZERO] * size for _ in range(size)]
    for j in range(size):
        pivot = (A[j][j] - sum((entry * entry for entry in L[j][:j]), ZERO)).mid()
        if not pivot > 0:
            return None
        L[j][j] = pivot.sqrt().mid()
        for i in range(j + 1, size):
            L[i][j] = ((A[i][j] - sum((p * q for p, q in zip(L[i][:j], L[j][:j], strict=True)), ZERO)) / L[j][j]).mid()
    return L


def _inverse(L: list[Row]) -> list[Row]:
    size = len(L)
    made = [[ZERO] * size for _ in range(size)]
    for j in range(size):
        made[j][j] = (1 / L[j][j]).mid()
        for i in range(j + 1, size):
            made[i][j] = (-sum((L[i][k] * made[k][j] for k in range(j, i)), ZERO) / L[i][i]).mid()
    return made


def _lanczos(G: list[list[float]]) -> float:
    """An estimate, no bound: the largest eigenvalue found in floating point after a few dozen products."""
    size = len(G)
    draw = random.Random(0)
    vector = [draw.gauss(0.0, 1.0) for _ in range(size)]
    basis: list[list[float]] = []
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(size, 70)):
        length = math.sqrt(_dot(vector, vector))
        if basis:
            beside.append(length)
        if length < 1e-13:
            beside = beside[: len(basis) - 1]
            break
        vector = [entry / length for entry in vector]
        basis.append(vector)
        image = [_dot(row, vector) for row in G]
        diagonal.append(_dot(image, vector))
        for _ in range(2):
            for known in basis:
                share = _dot(image, known)
                image = [entry - share * k for entry, k in zip(image, known, strict=True)]
        vector = image
    return _largest_of_tridiagonal(diagonal, beside[: len(diagonal) - 1])


def _dot(first: list[float], second: list[float]) -> float:
    return sum(map(float.__mul__, first, second))


def _largest_of_tridiagonal(diagonal: list[float], beside: list[float]) -> float:
    high = max(abs(d) for d in diagonal) + 2 * max((abs(b) for b in beside), default=0.0)
    low = max(diagonal)
    for _ in range(80):
        middle = (low + high) / 2
        # Sturm: the pivots of (middle I - T) are all positive exactly where middle is above every eigenvalue
        pivot, above = middle - diagonal[0], True
        for d, b in zip(diagonal[1:], beside, strict=True):
            if pivot <= 0:
                above = False
                break
            pivot = middle - d - b * b / pivot
        if above and pivot > 0:
            high = middle
        else:
            low = middle
    return high
