r"""The subject's tangent kernel: the full Gram in float64, and $\lambda_{\max}$ over rows too many to form it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.gram import gram, tangent_operator
from zeroloss.spectrum import largest_eigenvalue
from zeroloss.typing import Inputs

ROWS = 256  # in memory at once, of rows too many for a Gram
WORK = 2e10  # rows times parameters up to which the largest eigenvalue of all rows is computed, in about a minute


def full_gram(module: nn.Module, x: Inputs) -> Float[Tensor, "N N"]:
    r"""$JJ^\top$ over all nk outputs, sample-major, exactly symmetric.

    Args:
        module: any module that automatic differentiation runs through, samples kept apart.
        x: inputs, one a row.

    Returns:
        The Gram, float64, on the CPU.

    Raises:
        ArgumentError: where samples are mixed.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> full_gram(layer, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[ 5., 11.],
                [11., 25.]], dtype=torch.float64)
    """
    matrix = gram(module, x, "full").detach().to(device="cpu", dtype=torch.float64)
    return (matrix + matrix.T) / 2


def largest_over_rows(module: nn.Module, x: Inputs, sample_largest: float, sampled: int) -> tuple[float, bool]:
    r"""$\lambda_{\max}$ over all rows, where only some are in the Gram that was formed.

    Args:
        module: the subject's.
        x: all inputs.
        sample_largest: $\lambda_{\max}$ over the sampled rows.
        sampled: how many those are.

    Returns:
        The eigenvalue, and whether it was computed over all rows; else it is $n/m$ times the sample's, whose expectation is not below
        the true one, since $\lambda_{\max}$ is convex.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False).double()
        >>> largest, exact = largest_over_rows(layer, torch.ones(4, 1, dtype=torch.float64), 2.0, 2)
        >>> round(largest, 6), exact
        (4.0, True)
    """
    parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    if len(x) * parameters > WORK:
        return sample_largest * len(x) / sampled, False
    return largest_eigenvalue(tangent_operator(module, x, rows=ROWS), tolerance=1e-6), True
