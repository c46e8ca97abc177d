r"""Where a residual lies in a kernel's spectrum: in directions that are learnt quickly, or in those that are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.spectrum.eigenpairs import eigenpairs
from zeroloss.spectrum.operators import Matrix


@dataclass(frozen=True, eq=False)
class Alignment:
    r"""Energy of a residual along the eigenvectors of a kernel.

    Args:
        eigenvalues: $\lambda_1 \ge \lambda_2 \ge \dots$: all, or the largest that were asked for.
        shares: $(v_j^\top r)^2/\|r\|^2$, summed over outputs; all zero for a zero residual. Where eigenvalues coincide, single shares
            depend on the basis and only their sum does not: see :meth:`by_eigenvalue`.
        energy: $\|r\|^2$.
    """

    eigenvalues: Float[Tensor, " j"]
    shares: Float[Tensor, " j"]
    energy: float

    @property
    def cumulative(self) -> Float[Tensor, " j"]:
        """Share of the energy in the top 1, 2, … eigenvectors; the last is 1 where all were asked for."""
        return self.shares.cumsum(0)

    @property
    def mean_eigenvalue(self) -> float:
        r"""$r^\top Kr/\|r\|^2 = \sum_j\lambda_js_j$, over the eigenvectors at hand.

        Under gradient flow the loss falls at twice this rate, relatively.
        """
        return float(self.eigenvalues @ self.shares)

    def directions_for(self, share: float | int) -> int | None:
        """How few of the top eigenvectors hold that share of the energy.

        Args:
            share: from 0 to 1.

        Returns:
            The number; None where those at hand do not hold it.

        Raises:
            ArgumentError: for a share outside 0…1.
        """
        if not 0 <= share <= 1:
            raise ArgumentError("share", f"is {share}", "pass a number from 0 to 1")
        held = torch.cat([torch.zeros(1, dtype=torch.float64), self.cumulative])
        enough = torch.nonzero(held >= share - 1e-12)  # all of it, to rounding
        return int(enough[0]) if len(enough) else None

    def by_eigenvalue(self, tolerance: float = 1e-9) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"]]:
        r"""Shares of whole eigenspaces.

        Args:
            tolerance: of the largest eigenvalue in size: neighbours this near count as one.

        Returns:
            The mean eigenvalue of each group, descending, and its share.
        """
        if len(self.eigenvalues) == 0:
            return self.eigenvalues, self.shares
        apart = self.eigenvalues[:-1] - self.eigenvalues[1:] > tolerance * float(self.eigenvalues.abs().max())
        group = torch.cat([torch.zeros(1, dtype=torch.long), apart.long().cumsum(0)])
        empty = torch.zeros(int(group[-1]) + 1, dtype=torch.float64)
        counts = empty.index_add(0, group, torch.ones_like(self.shares))
        return empty.index_add(0, group, self.eigenvalues) / counts, empty.index_add(0, group, self.shares)


def alignment(matrix_or_operator: Matrix | LinearOperator, residual: Tensor | NDArray[Any], k: int | None = None) -> Alignment:
    r"""Shares of a residual's energy along a kernel's eigenvectors, largest eigenvalue first.

    Under $\dot r = -Kr$ the part along $v_j$ decays as $e^{-\lambda_jt}$: what lies along the last eigenvectors is what stays.

    Args:
        matrix_or_operator: n×n, which acts on every output alike, or (nk)×(nk) over outputs, sample-major; tensor, array or LinearOperator.
        residual: $r = f(x)-y$, n or n×k.
        k: only the k largest eigenvalues; None for all.

    Returns:
        Eigenvalues, shares and the energy.

    Raises:
        ArgumentError: where shapes do not fit, the residual is not finite, or the kernel is not square, symmetric and finite.

    Example:
        >>> found = alignment(torch.diag(torch.tensor([1.0, 3.0])), torch.tensor([3.0, 4.0]))
        >>> found.eigenvalues, found.cumulative
        (tensor([3., 1.], dtype=torch.float64), tensor([0.6400, 1.0000], dtype=torch.float64))
    """
    r = (residual.detach() if isinstance(residual, Tensor) else torch.from_numpy(np.array(residual))).to(
        device="cpu", dtype=torch.float64
    )
    if not bool(torch.isfinite(r).all()):
        raise ArgumentError("residual", "has NaN or infinity", "start from finite outputs and targets")
    size = matrix_or_operator.shape[0] if len(matrix_or_operator.shape) else 0
    if r.numel() == size and r.ndim in (1, 2):
        columns = r.reshape(-1, 1)
    elif r.ndim == 2 and r.shape[0] == size:
        columns = r
    else:
        raise ArgumentError(
            "residual", f"has shape {tuple(r.shape)} for a kernel of size {size}", "pass n, or n×k with nk or n rows of kernel"
        )
    pairs = eigenpairs(matrix_or_operator, k, "largest")
    scale = float(r.abs().max()) if r.numel() else 0.0
    if scale == 0:
        return Alignment(pairs.values, torch.zeros_like(pairs.values), 0.0)
    parts = ((pairs.vectors.T @ (columns / scale)) ** 2).sum(dim=1)
    whole = float(((columns / scale) ** 2).sum())
    return Alignment(pairs.values, parts / whole, whole * scale**2)
