r"""Full and partial spectra with eigenvectors, every pair with its residual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.spectrum.bound import absolute_row_sums, cholesky
from zeroloss.spectrum.lanczos import Krylov, lanczos
from zeroloss.spectrum.operators import Matrix, Vector, as_matrix, as_product, start, symmetric, times
from zeroloss.spectrum.smallest import inverse_of

Which = Literal["smallest", "largest"]
DENSE = 500  # rows up to which everything is decomposed, and the pairs per eight rows beyond which it is
PROBE = 8  # steps at least of a run that looks for what is left
TOLERANCE = 1e-9  # of the largest Ritz value in size, for residuals
STEPS = 1000  # of one run of Lanczos at most, or four a pair: its basis is kept


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    r"""Some or all eigenvalues of a symmetric matrix with their vectors.

    Args:
        values: $\lambda_i$, ascending for the smallest, descending for the largest.
        vectors: $v_i$ as columns, orthonormal; n×k.
        residuals: $\|Av_i-\lambda_iv_i\|_2$: an eigenvalue of $A$ is this near or nearer.
        converged: whether Lanczos settled; False where 1000 steps did not do.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "n k"]
    residuals: Float[Tensor, " k"]
    converged: bool


def eigenpairs(matrix_or_operator: Matrix | LinearOperator, k: int | None = None, which: Which = "smallest") -> Eigenpairs:
    r"""All or k eigenpairs at one end of a spectrum, in float64.

    All are found by a full decomposition. A few of many rows are found by Lanczos with full reorthogonalisation, run until their residuals
    are 1e-9 of $\|A\|$ and then run again from other starts, orthogonal to what is known, until nothing further from the middle comes up: a
    single run sees one vector of every eigenspace, so that repeated eigenvalues need as many runs as they have copies. The smallest of a
    positive definite matrix are the largest of its inverse, by a Cholesky factor; without one it is decomposed. An operator is not
    written out unless it has up to 500 rows or an eighth of its pairs are wanted.

    Args:
        matrix_or_operator: n×n symmetric tensor or array, or a scipy LinearOperator such as ``tangent_operator(module, x)``.
        k: how many; None for all.
        which: "smallest" or "largest", by sign and not by size.

    Returns:
        The pairs.

    Raises:
        ArgumentError: for what is not square, symmetric and finite, and for k outside 1…n.

    Example:
        >>> pairs = eigenpairs(torch.diag(torch.arange(1.0, 5.0)), k=2, which="largest")
        >>> pairs.values
        tensor([4., 3.], dtype=torch.float64)
    """
    if which not in ("smallest", "largest"):
        raise unknown_name("which", which, ("smallest", "largest"))
    n = matrix_or_operator.shape[0] if len(matrix_or_operator.shape) else 0
    if k is not None and (isinstance(k, bool) or not 1 <= k <= max(n, 1)):
        raise ArgumentError("k", f"is {k} for {n} rows", f"pass a number from 1 to {n}, or None for all")
    if k is None or n <= DENSE or 8 * k >= n:
        return _decomposed(as_matrix(matrix_or_operator), k, which)
    if which == "largest":
        apply = as_product(matrix_or_operator)
        return _pairs(apply, *_outermost(apply, n, k))
    if isinstance(matrix_or_operator, LinearOperator):
        apply = as_product(matrix_or_operator)
        values, vectors, converged = _outermost(lambda v: -apply(v), n, k)
        return _pairs(apply, -values, vectors, converged)
    matrix = symmetric(matrix_or_operator)
    factor = cholesky(matrix, 0.0, np.empty_like(matrix))
    if factor is None:
        return _decomposed(matrix, k, which)
    values, vectors, converged = _outermost(inverse_of(factor), n, k)
    found = _pairs(times(matrix), 1 / values, vectors, converged, float(absolute_row_sums(matrix).max()))
    return found if found.converged else _decomposed(matrix, k, which)


def _decomposed(matrix: NDArray[np.float64], k: int | None, which: Which) -> Eigenpairs:
    tensor = torch.from_numpy(matrix)
    values, vectors = torch.linalg.eigh(tensor)
    if which == "largest":
        values, vectors = values.flip(0), vectors.flip(1)
    values, vectors = values[:k].clone(), vectors[:, :k].clone()
    return Eigenpairs(values, vectors, (tensor @ vectors - vectors * values).norm(dim=0), converged=True)


def _outermost(apply: Callable[[Vector], Vector], n: int, k: int) -> tuple[Vector, NDArray[np.float64], bool]:
    """The k largest pairs, descending, and whether Lanczos settled on all of them."""
    values, vectors, scale = np.empty(0), np.empty((n, 0)), 0.0
    for run in range(n):
        wanted = max(k - len(values), 1)
        floor = values[-1] if len(values) == k else -np.inf

        def enough(known: Krylov, wanted: int = wanted, scale: float = scale, floor: float = floor) -> bool:
            size = max(scale, float(np.abs(known.values).max()))
            settled = bool((known.residuals[-wanted:] <= TOLERANCE * size).all())
            # a copy of what is known already stands out as soon as the rest is seen to be far below
            far = known.steps >= PROBE and bool(known.values[-1] + 10 * known.residuals[-1] < floor)
            return known.steps >= wanted and (settled or far)

        known = lanczos(apply, start(n, seed=run), enough, max(STEPS, 4 * k), avoid=vectors if run else None)
        settled = enough(known) or known.beta == 0
        scale = max(scale, float(np.abs(known.values).max()))
        if known.values[-1] <= floor + TOLERANCE * scale:  # nothing further out is left
            break
        first = max(known.steps - wanted, 0)
        values = np.concatenate([values, known.values[first:]])
        vectors = np.concatenate([vectors, known.vectors(first, known.steps)], axis=1)
        kept = np.argsort(-values, kind="stable")[:k]
        values, vectors = values[kept], vectors[:, kept]
        if not settled:
            return values, vectors, False
    return values, vectors, True


def _pairs(
    apply: Callable[[Vector], Vector], values: Vector, vectors: NDArray[np.float64], converged: bool, scale: float | None = None
) -> Eigenpairs:
    """The pairs with residuals of their own, since those of Lanczos know nothing of an operator that rounds."""
    images = np.empty_like(vectors)
    for i in range(len(values)):
        images[:, i] = apply(np.ascontiguousarray(vectors[:, i]))
    residuals = np.linalg.norm(images - vectors * values, axis=0)
    if scale is not None:
        converged = converged and bool((residuals <= 2 * TOLERANCE * scale).all())
    return Eigenpairs(
        torch.from_numpy(values.copy()), torch.from_numpy(np.ascontiguousarray(vectors)), torch.from_numpy(residuals), converged
    )
