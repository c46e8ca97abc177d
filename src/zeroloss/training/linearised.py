r"""The linearised prediction: with a kernel that stands still, $r_{k+1} = (I-\eta K)r_k$ (DU section 3; THEORY 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.spectrum.extremes import symmetric

BLOCK = 2**22  # factors at once


@dataclass(frozen=True, eq=False)
class Linearised:
    r"""A residual in the eigenbasis of a kernel.

    Args:
        eigenvalues: $\lambda_i$ of the kernel, ascending.
        weights: $c_i^2$, the squared residual along each eigenvector (summed over outputs).
        ends: the unit eigenvectors of the smallest and of the largest eigenvalue.
    """

    eigenvalues: Float[Tensor, " N"]
    weights: Float[Tensor, " N"]
    ends: Float[Tensor, "N 2"]

    def norms(self, step: float, steps: Sequence[int] | Tensor) -> Float[Tensor, " s"]:
        r"""$\|r_k\| = \sqrt{\sum_i (1-\eta\lambda_i)^{2k}c_i^2}$ at the given steps.

        Args:
            step: $\eta$.
            steps: the k's.

        Returns:
            One norm a step.
        """
        k = torch.as_tensor(steps, dtype=torch.float64).reshape(-1)
        part = self.weights > 0  # a direction without residual stays empty, even where its factor overflows
        factors, weights = (1 - step * self.eigenvalues[part]).abs(), self.weights[part]
        some = max(1, BLOCK // max(1, len(weights)))  # of the steps at once
        return torch.cat([(factors[None, :].pow(2 * part_k[:, None]) @ weights).sqrt() for part_k in torch.split(k, some)])

    def steps_to(self, step: float, until: float) -> int | None:
        r"""The first k at which the loss has fallen to ``until`` times its start.

        Args:
            step: $\eta$.
            until: the target for $F_k/F_0$.

        Returns:
            k, or None where the linearised run never gets there: $\eta \ge 2/\lambda_{\max}$, or a part of the residual lies
            where the kernel is zero.
        """
        start = float(self.weights.sum())
        if start == 0:
            return 0
        if until <= 0 or bool((((1 - step * self.eigenvalues).abs() > 1 + 1e-9) & (self.weights > 0)).any()):
            return None  # ever nearer to zero and never there, or growing

        def reached(k: int) -> bool:
            return float(self.norms(step, [k])[0]) ** 2 <= until * start

        high = 1
        while not reached(high):
            high *= 2
            if high > 2**52:
                return None
        low = high // 2
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (low, middle) if reached(middle) else (middle, high)
        return 0 if reached(0) else high


def linearise(kernel: Float[Tensor, "K K"], residual: Tensor) -> Linearised:
    r"""Express a residual in a kernel's eigenbasis.

    Args:
        kernel: n×n (applied to every output alike) or (nk)×(nk), sample-major, symmetric.
        residual: $r_0 = f(x)-y$, n or n×k.

    Returns:
        Eigenvalues and weights.

    Raises:
        ArgumentError: where the shapes do not fit, or anything is NaN or infinite.
    """
    values, vectors, columns = decompose(kernel, residual)
    return Linearised(values, ((vectors.T @ columns) ** 2).sum(dim=1), vectors[:, [0, -1]])


def decompose(
    kernel: Float[Tensor, "K K"], residual: Tensor
) -> tuple[Float[Tensor, " K"], Float[Tensor, "K K"], Float[Tensor, "K c"]]:
    """A kernel's eigenvalues and eigenvectors, and the residual as columns on which it acts alike.

    Args:
        kernel: as for :func:`linearise`.
        residual: as for :func:`linearise`.

    Returns:
        Eigenvalues, ascending; eigenvectors, one a column; and n×k for a kernel n×n, nk×1 for one of all outputs.

    Raises:
        ArgumentError: as for :func:`linearise`.

    Example:
        >>> values, _, columns = decompose(torch.eye(4, dtype=torch.float64), torch.ones(2, 2))
        >>> values.tolist(), tuple(columns.shape)
        ([1.0, 1.0, 1.0, 1.0], (4, 1))
    """
    matrix = torch.from_numpy(symmetric(kernel))
    flat = residual.detach().to(device="cpu", dtype=torch.float64)
    if not bool(torch.isfinite(flat).all()):
        raise ArgumentError("residual", "has NaN or infinity", "start from finite outputs and targets")
    if flat.numel() == len(matrix):
        columns = flat.reshape(-1, 1)
    elif flat.ndim == 2 and flat.shape[0] == len(matrix):
        columns = flat
    else:
        raise ArgumentError(
            "residual",
            f"has shape {tuple(flat.shape)} for a kernel of size {len(matrix)}",
            "pass n, or n×k with nk or n rows of kernel",
        )
    return *torch.linalg.eigh(matrix), columns
