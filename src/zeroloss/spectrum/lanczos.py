r"""Lanczos with full reorthogonalisation: Ritz pairs of a symmetric operator, each with the norm of its residual."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from zeroloss.spectrum.operators import UNIT, Vector

INTERVAL = 24  # the tridiagonal matrix is looked at after every step, after 24 every second, after 48 every third …


@dataclass(frozen=True, eq=False)
class Krylov:
    r"""What k steps of Lanczos know: $AQ^\top = Q^\top T + \beta_k q_{k+1}e_k^\top$.

    Args:
        basis: $Q$, k×n, orthonormal rows.
        values: Ritz values $\theta_i$, ascending: the eigenvalues of $T$.
        coefficients: $s_i$, k×k, the eigenvectors of $T$ as columns.
        beta: $\beta_k$, the length of what the last product added to the basis; zero where the basis is an invariant subspace.
    """

    basis: NDArray[np.float64]
    values: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    beta: float

    @property
    def steps(self) -> int:
        """k, the number of products."""
        return len(self.values)

    @property
    def residuals(self) -> NDArray[np.float64]:
        r"""$\|A v_i - \theta_i v_i\| = \beta_k|s_{ki}|$: some eigenvalue of $A$ is this near to $\theta_i$ or nearer."""
        bounds: NDArray[np.float64] = self.beta * np.abs(self.coefficients[-1])
        return bounds

    def vectors(self, first: int, end: int) -> NDArray[np.float64]:
        """Ritz vectors as columns.

        Args:
            first: index of the first, in ascending order of values.
            end: index after the last.

        Returns:
            n×(end - first), orthonormal.
        """
        return self.basis.T @ self.coefficients[:, first:end]


def lanczos(
    apply: Callable[[Vector], Vector],
    start: Vector,
    enough: Callable[[Krylov], bool],
    most: int,
    avoid: NDArray[np.float64] | None = None,
) -> Krylov:
    r"""Run Lanczos until enough is known.

    Every new direction is made orthogonal to all earlier ones twice, since once leaves rounding that would grow; the memory is that of
    the basis, k×n.

    Args:
        apply: $v \mapsto Av$ with a symmetric $A$.
        start: n numbers, not all zero.
        enough: asked after a step whether to stop; the number of steps between two questions grows with those made.
        most: steps at most.
        avoid: n×l with orthonormal columns to which every direction is held orthogonal, such as eigenvectors that are known; or None.

    Returns:
        What is known after the last step. Where the basis became invariant, residuals are zero; where a product was not finite, all is NaN.

    Example:
        >>> known = lanczos(lambda v: np.arange(9.0) * v, np.ones(9), lambda known: False, most=100)
        >>> known.steps, bool(np.allclose(known.values, np.arange(9.0)))
        (9, True)
    """
    n = len(start)
    most = min(most, n - (0 if avoid is None else avoid.shape[1]))
    basis = np.empty((most, n))  # memory that no step reaches is never touched
    new, length = _orthogonal(start, basis[:0], avoid)
    diagonal: list[float] = []
    beside: list[float] = []
    unit, scale, asked = 1.0, 0.0, 0
    for step in range(most):
        basis[step] = new / length
        image = apply(basis[step])
        if step == 0:
            unit = _power_of_two(image)
        image = image / unit  # exactly; squares of a spectrum around 1e200 would overflow
        if not np.isfinite(image).all():
            return Krylov(basis[: step + 1], np.full(step + 1, np.nan), np.eye(step + 1), float("nan"))
        diagonal.append(float(basis[step] @ image))
        scale = max(scale, float(np.linalg.norm(image)))
        new, length = _orthogonal(image, basis[: step + 1], avoid)
        if length <= 4 * UNIT * np.sqrt(n) * scale:  # nothing but rounding is left
            length = 0.0
        last = length == 0 or step + 1 == most
        if last or step + 1 - asked >= 1 + (step + 1) // INTERVAL:
            asked = step + 1
            values, coefficients = _tridiagonal(diagonal, beside)
            # a basis of all n directions is invariant, whatever rounding left of the next
            known = Krylov(basis[: step + 1], unit * values, coefficients, 0.0 if step + 1 == n else unit * length)
            if last or enough(known):
                return known
        beside.append(length)
    raise AssertionError("unreachable: the last step returns")


def _power_of_two(image: Vector) -> float:
    peak = float(np.abs(image).max())
    return math.ldexp(1.0, min(max(math.frexp(peak)[1], -1000), 1000)) if 0 < peak < math.inf else 1.0


def _orthogonal(
    vector: Vector, basis: NDArray[np.float64], avoid: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], float]:
    for _ in range(2):
        if avoid is not None:
            vector = vector - avoid @ (avoid.T @ vector)
        vector = vector - basis.T @ (basis @ vector)
    return vector, float(np.linalg.norm(vector))


def _tridiagonal(diagonal: list[float], beside: list[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(diagonal) == 1:
        return np.array(diagonal), np.ones((1, 1))
    values, vectors = scipy.linalg.eigh_tridiagonal(np.array(diagonal), np.array(beside))
    return np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)
