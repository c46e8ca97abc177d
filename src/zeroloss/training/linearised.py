r"""The linearised prediction: with a kernel that stands still, $r_{k+1} = (I-\eta K)r_k$ (DU section 3; THEORY 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.spectrum.extremes import symmetric


@dataclass(frozen=True, eq=False)
class Linearised:
    r"""A residual in the eigenbasis of a kernel.

    Args:
        eigenvalues: $\lambda_i$ of the kernel, ascending.
        weights: $c_i^2$, the squared residual along each eigenvector (summed over outputs).
    """

    eigenvalues: Float[Tensor, " N"]
    weights: Float[Tensor, " N"]

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
        factors = (1 - step * self.eigenvalues[part]).abs()
        return (factors[None, :].pow(2 * k[:, None]) @ self.weights[part]).sqrt()

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
    matrix = torch.from_numpy(symmetric(kernel))
    values, vectors = torch.linalg.eigh(matrix)
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
    return Linearised(values, ((vectors.T @ columns) ** 2).sum(dim=1))


def predict_descent(
    kernel: Float[Tensor, "K K"], residual: Tensor, step: float, steps: Sequence[int] | Tensor
) -> Float[Tensor, " s"]:
    r"""Residual norms that gradient descent would show if the kernel did not move.

    $\|r_k\| = \|(I-\eta K)^k r_0\|$, so the loss is half its square.

    Args:
        kernel: finite Gram or limit kernel: n×n, or (nk)×(nk) sample-major.
        residual: $r_0 = f(x)-y$, n or n×k.
        step: $\eta > 0$.
        steps: the steps k to predict, any order.

    Returns:
        One norm a step, float64.

    Raises:
        ArgumentError: for shapes that do not fit, a step that is not positive, or negative steps.

    Example:
        >>> predict_descent(torch.eye(2, dtype=torch.float64), torch.tensor([3.0, 4.0]), 0.5, [0, 1, 2])
        tensor([5.0000, 2.5000, 1.2500], dtype=torch.float64)
    """
    if isinstance(step, bool) or not isinstance(step, int | float) or not (math.isfinite(step) and step > 0):
        raise ArgumentError("step", f"is {step!r}", "pass a positive number")
    if not bool((torch.as_tensor(steps) >= 0).all()):
        raise ArgumentError("steps", "contains a negative step or NaN", "count steps from 0")
    return linearise(kernel, residual).norms(step, steps)
