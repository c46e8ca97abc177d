r"""How many directions a positive semidefinite matrix has in effect: three measures that agree on projections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.spectrum.operators import UNIT, Matrix, as_matrix

FLOAT32 = 2.0**-23


@dataclass(frozen=True)
class EffectiveRank:
    r"""Effective ranks of a spectrum; all are r for r equal eigenvalues beside zeros, and 0 for the zero matrix.

    In general stable ≤ participation ≤ entropy ≤ n, and none changes with the matrix's scale.

    Args:
        entropy: $\exp(-\sum_ip_i\ln p_i)$ with $p_i = \lambda_i/\sum_j\lambda_j$ (Roy and Vetterli 2007, on eigenvalues).
        participation: $(\sum_i\lambda_i)^2/\sum_i\lambda_i^2$, the participation ratio.
        stable: $\sum_i\lambda_i/\lambda_{\max}$: the stable rank $\|J\|_F^2/\|J\|_2^2$ of a Jacobian whose Gram this is (Rudelson and
            Vershynin 2007), the intrinsic dimension of the Gram itself (Tropp 2015, section 7).
    """

    entropy: float
    participation: float
    stable: float


def effective_rank(matrix_or_operator: Matrix | LinearOperator) -> EffectiveRank:
    r"""The effective ranks of a positive semidefinite matrix or operator, by a full decomposition.

    Args:
        matrix_or_operator: n×n tensor or array, or a scipy LinearOperator, which is written out by n products.

    Returns:
        Three numbers from 1 to n; zeros for the zero matrix.

    Raises:
        ArgumentError: for what is not square, symmetric, finite, or is not positive semidefinite to rounding.

    Example:
        >>> effective_rank(torch.diag(torch.tensor([1.0, 1.0, 0.0])))
        EffectiveRank(entropy=2.0, participation=2.0, stable=2.0)
    """
    values = torch.linalg.eigvalsh(torch.from_numpy(as_matrix(matrix_or_operator)))
    return rank_of_eigenvalues(values, _eps(matrix_or_operator))


def rank_of_eigenvalues(values: Float[Tensor, " n"], eps: float = 2 * UNIT) -> EffectiveRank:
    r"""The effective ranks, given all eigenvalues.

    Args:
        values: $\lambda_i$, in any order.
        eps: of the matrix's dtype: eigenvalues above $-8n\,\mathrm{eps}\,\lambda_{\max}$ count as rounded zeros.

    Returns:
        Three numbers.

    Raises:
        ArgumentError: where values are empty, not finite, or negative beyond rounding.

    Example:
        >>> round(rank_of_eigenvalues(torch.tensor([3.0, 1.0])).participation, 12)
        1.6
    """
    values = values.detach().to(device="cpu", dtype=torch.float64)
    if values.numel() == 0 or not bool(torch.isfinite(values).all()):
        raise ArgumentError("values", "are empty, or have NaN or infinity", "pass all eigenvalues, finite")
    low, high = float(values.min()), float(values.max())
    if low < -8 * len(values) * eps * max(high, -low):
        raise ArgumentError(
            "matrix",
            f"has the eigenvalue {low:.3g} beside {high:.3g}",
            "pass a positive semidefinite one: shares of energy need it",
        )
    if high <= 0:
        return EffectiveRank(0.0, 0.0, 0.0)
    shares = values.clamp(min=0) / high  # by the largest first, so that no square overflows or vanishes
    stable = float(shares.sum())
    p = shares / stable
    return EffectiveRank(float(torch.exp(torch.special.entr(p).sum())), stable**2 / float((shares**2).sum()), stable)


def _eps(matrix: Matrix | LinearOperator) -> float:
    if isinstance(matrix, Tensor):
        return float(torch.finfo(matrix.dtype).eps) if matrix.is_floating_point() else 2 * UNIT
    if isinstance(matrix, LinearOperator):  # one that computes in float32 may say float64
        return FLOAT32
    dtype = np.asarray(matrix).dtype
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 2 * UNIT
