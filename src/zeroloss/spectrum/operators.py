"""What a spectrum is asked of: a checked symmetric matrix, or an operator that was seen to be symmetric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from zeroloss.errors import ArgumentError

Matrix: TypeAlias = Tensor | NDArray[Any]
Vector: TypeAlias = NDArray[np.float64]

UNIT = 2.0**-53  # float64's unit roundoff
TILE = 256  # rows that are read at once: two tiles fit the cache, and a strip of this height costs no memory that counts
ASYMMETRY = 1e-4  # of two products, relative: above the rounding of an operator that computes in float32


def symmetric(matrix: Matrix) -> NDArray[np.float64]:
    """The matrix as a float64 array, checked to be square, finite and symmetric to rounding, then exactly symmetrised.

    Args:
        matrix: n×n tensor or array of real numbers.

    Returns:
        n×n, rows one after the other in memory. It is the very array that was given where that is exactly symmetric already, so that
        nobody may write into it.

    Raises:
        ArgumentError: for a matrix that is not square, not symmetric, empty, not real, or has NaN or infinity.

    Example:
        >>> symmetric(np.array([[1, 2], [2, 3]]))
        array([[1., 2.],
               [2., 3.]])
    """
    array = matrix.detach().cpu().numpy() if isinstance(matrix, Tensor) else np.asarray(matrix)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] == 0:
        raise ArgumentError("matrix", f"has shape {array.shape}", "pass a non-empty square one")
    if array.dtype.kind not in "fiu":
        raise ArgumentError("matrix", f"has dtype {array.dtype}", "pass real numbers")
    eps = float(np.finfo(array.dtype).eps) if array.dtype.kind == "f" else UNIT
    result: NDArray[np.float64] = np.ascontiguousarray(array, dtype=np.float64)
    if not result.flags.writeable:  # torch warns of sharing such memory
        result = result.copy()
    n = len(result)
    largest = gap = 0.0
    for i in range(0, n, TILE):
        rows = result[i : i + TILE]
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise ArgumentError(
                "matrix", f"has NaN or infinity (first: row {i + int(np.argmin(finite))})", "find out where it was formed"
            )
        largest = max(largest, float(rows.max()), -float(rows.min()))
        for j in range(0, i + 1, TILE):  # a transposed tile stays in the cache, a transposed matrix does not
            with np.errstate(over="ignore"):
                gap = max(gap, float(np.abs(rows[:, j : j + TILE] - result[j : j + TILE, i : i + TILE].T).max()))
    if gap > 1e3 * eps * largest:
        raise ArgumentError("matrix", f"is not symmetric (entries differ by {gap:.3g})", "pass (M + M.T) / 2 if that is meant")
    return result if gap == 0 else result / 2 + result.T / 2


def symmetric_operator(operator: LinearOperator) -> LinearOperator:
    r"""The operator itself, once it is seen to be square and finite, and symmetric on one pair of random vectors.

    Symmetric means here $u^\top(Av) = v^\top(Au)$ to 1e-4 of $(\|u\|\|Av\| + \|v\|\|Au\|)/\sqrt n$, which is how random vectors
    meet: rounding in float32 passes, an antisymmetric part of more than a thousandth does not. Costs two products.

    Args:
        operator: n×n.

    Returns:
        The operator.

    Raises:
        ArgumentError: where it is none of this.

    Example:
        >>> from scipy.sparse.linalg import aslinearoperator
        >>> symmetric_operator(aslinearoperator(np.eye(3))).shape
        (3, 3)
    """
    rows, columns = operator.shape
    if rows != columns or rows == 0:
        raise ArgumentError("operator", f"has shape {operator.shape}", "pass a non-empty square one")
    if np.dtype(operator.dtype).kind not in "fiu":
        raise ArgumentError("operator", f"has dtype {operator.dtype}", "pass real numbers")
    generator = np.random.default_rng(1)
    u, v = generator.standard_normal((2, rows))
    of_u, of_v = product(operator, u), product(operator, v)
    size = np.linalg.norm(u) * np.linalg.norm(of_v) + np.linalg.norm(v) * np.linalg.norm(of_u)
    gap = abs(float(u @ of_v) - float(v @ of_u))
    if gap > ASYMMETRY * float(size) / np.sqrt(rows):
        raise ArgumentError("operator", "is not symmetric (u·Av and v·Au differ)", "pass (A + A.T) / 2 if that is meant")
    return operator


def product(operator: LinearOperator, vector: Vector) -> Vector:
    """One product in float64, refused where it is not finite.

    Args:
        operator: n×n.
        vector: n.

    Returns:
        n numbers.

    Raises:
        ArgumentError: where any of them is NaN or infinite.

    Example:
        >>> from scipy.sparse.linalg import aslinearoperator
        >>> product(aslinearoperator(np.eye(2)), np.array([1.0, 2.0]))
        array([1., 2.])
    """
    result: Vector = np.asarray(operator @ vector, dtype=np.float64).reshape(-1)
    if not np.isfinite(result).all():
        raise ArgumentError("operator", "gave NaN or infinity", "find out where it was formed")
    return result


def written_out(operator: LinearOperator) -> NDArray[np.float64]:
    """The n×n matrix of a symmetric operator, by n products.

    Args:
        operator: n×n.

    Returns:
        The matrix, exactly symmetric.

    Raises:
        ArgumentError: where it is not symmetric or not finite.

    Example:
        >>> from scipy.sparse.linalg import aslinearoperator
        >>> written_out(aslinearoperator(np.eye(2)))
        array([[1., 0.],
               [0., 1.]])
    """
    n = symmetric_operator(operator).shape[0]
    columns = np.empty((n, n))
    for i in range(n):
        unit = np.zeros(n)
        unit[i] = 1.0
        columns[i] = product(operator, unit)
    return (columns + columns.T) / 2


def as_matrix(matrix_or_operator: Matrix | LinearOperator) -> NDArray[np.float64]:
    """The checked matrix, written out where it is an operator.

    Args:
        matrix_or_operator: n×n.

    Returns:
        n×n, exactly symmetric; see :func:`symmetric`.

    Raises:
        ArgumentError: for what is not square, symmetric and finite.

    Example:
        >>> as_matrix(np.eye(1))
        array([[1.]])
    """
    if isinstance(matrix_or_operator, LinearOperator):
        return written_out(matrix_or_operator)
    return symmetric(matrix_or_operator)


def as_product(matrix_or_operator: Matrix | LinearOperator) -> Callable[[Vector], Vector]:
    r"""$v\mapsto Av$ of the checked matrix or operator.

    Args:
        matrix_or_operator: n×n.

    Returns:
        The product, in float64.

    Raises:
        ArgumentError: for what is not square, symmetric and finite.

    Example:
        >>> as_product(np.eye(2))(np.array([1.0, 2.0]))
        array([1., 2.])
    """
    if isinstance(matrix_or_operator, LinearOperator):
        operator = symmetric_operator(matrix_or_operator)
        return lambda v: product(operator, v)
    return times(symmetric(matrix_or_operator))


def times(matrix: NDArray[np.float64]) -> Callable[[Vector], Vector]:
    r"""$v\mapsto Mv$ of a matrix that is checked already, by torch, which reads it with all threads.

    Args:
        matrix: n×n.

    Returns:
        The product.

    Example:
        >>> times(np.eye(2))(np.array([1.0, 2.0]))
        array([1., 2.])
    """
    tensor = torch.from_numpy(matrix)

    def apply(v: Vector) -> Vector:
        result: Vector = torch.mv(tensor, torch.from_numpy(v)).numpy()
        return result

    return apply


def start(n: int, seed: int = 0) -> Vector:
    """A fixed random start: ARPACK's own is another every time, and a resumed run must repeat itself to the bit.

    Args:
        n: its length.
        seed: another number, another start.

    Returns:
        n standard normal numbers.

    Example:
        >>> bool((start(3) == start(3)).all())
        True
    """
    return np.random.default_rng(seed).standard_normal(n)
