"""What a certificate is about: the chain, its weights, and the data with equal rows merged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zeroloss.certificate.stages import Chain
from zeroloss.data import Dataset


@dataclass(frozen=True, eq=False)
class Problem:
    r"""A system of equations $f(\theta)_i=y_i$, each with a weight.

    Rows that are equal, inputs and targets, are one equation of weight $\sqrt w$: the loss $\frac12\sum_iw_i\|f(x_i)-y_i\|^2$ is the
    same function of the weights, and the Jacobian of the merged system can have full rank where the original cannot.

    Args:
        chain: the network.
        x: inputs.
        y: n×k targets.
        multiplicity: $w$, n whole numbers.
    """

    chain: Chain
    x: Tensor
    y: Tensor
    multiplicity: Tensor

    @property
    def roots(self) -> Tensor:
        r"""$\sqrt{w_i}$."""
        return self.multiplicity.sqrt()


def merge(chain: Chain, data: Dataset, dedupe: bool = True) -> Problem:
    """Pair the chain with the data.

    Args:
        chain: the network.
        data: without conflicts.
        dedupe: whether to merge equal rows.

    Returns:
        The problem, its rows in the order of their first appearance.

    Example:
        >>> merge(Chain((), {}), Dataset([[0.0], [1.0], [0.0]], [1, 2, 1])).multiplicity
        tensor([2., 1.], dtype=torch.float64)
    """
    counts = torch.ones(data.n, dtype=torch.float64)
    keep = torch.ones(data.n, dtype=torch.bool)
    for group in data.duplicates if dedupe else ():
        counts[group[0]] = len(group)
        keep[list(group[1:])] = False
    x, y = data.x.to("cpu", torch.float64), data.y.to("cpu", torch.float64)
    return Problem(chain, x[keep].contiguous(), y[keep].contiguous(), counts[keep])
