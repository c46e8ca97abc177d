r"""Dual activations: what a wide layer does to a pair of Gaussian pre-activations (THEORY 3.6).

For $(u,v)\sim N(0,S)$ each dual gives the moments of $\sigma(u),\sigma(v)$ as new :class:`Pairs`, the means, and
$\mathbb{E}[\sigma'(u)\sigma'(v)]$. ReLU has a closed form; every smooth activation uses its Hermite series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.kernels.hermite import hermite_coefficients
from zeroloss.kernels.mehler import mehler_sums
from zeroloss.kernels.pairs import Pairs, from_half_distances
from zeroloss.networks import Activation


@dataclass(frozen=True, eq=False)
class Dual:
    r"""The moments of an activation over pairs of Gaussian pre-activations.

    Args:
        pairs: second moments of $\sigma$.
        slope: $\mathbb{E}[\sigma'(u)\sigma'(v)]$, n1×n2 (×P).
        mean_left: $\mathbb{E}\sigma(u)$, n1 (×P).
        mean_right: $\mathbb{E}\sigma(v)$, n2 (×P).
    """

    pairs: Pairs
    slope: Float[Tensor, "n1 n2 *p"]
    mean_left: Float[Tensor, n1 * p]
    mean_right: Float[Tensor, n2 * p]


def dual(activation: Activation, pairs: Pairs) -> Dual:
    r"""The dual of an activation.

    Args:
        activation: relu, or any smooth one.
        pairs: the covariance of the pre-activations.

    Returns:
        Its moments, exact to about 1e-15 relative to the diagonal. One exception: ReLU's slope has a square root at opposite inputs,
        where it keeps 8 digits (absolute error below 1e-8).

    Raises:
        ArgumentError: where the Hermite series of a steep activation at a large variance does not settle.

    Example:
        >>> from zeroloss.networks import find_activation
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> result = dual(find_activation("relu"), Pairs(one, one, 0 * one[:, None]))
        >>> float(result.pairs.left), float(result.slope)
        (0.5, 0.5)
    """
    return _relu_dual(pairs) if activation.name == "relu" else _hermite_dual(activation, pairs)


def _relu_dual(pairs: Pairs) -> Dual:
    r"""Cho and Saul's arc-cosine formulas in the versine.

    $\kappa_0 = 1-\theta/\pi$ and $1-\kappa_1 = w - (\sin\theta-\theta\cos\theta)/\pi$.
    """
    theta = 2 * torch.asin((pairs.versine / 2).sqrt().clamp(max=1))
    square = theta**2
    # sin t - t cos t = t^3/3 - t^5/30 + t^7/840 - t^9/45360 + ...: below 0.1 the closed form would cancel
    series = theta * square / 3 * (1 - square / 10 * (1 - square / 28 * (1 - square / 54 * (1 - square / 88))))
    excess = torch.where(theta < 0.1, series, torch.sin(theta) - theta * torch.cos(theta))
    versine = (pairs.versine - excess / math.pi).clamp(0, 2)
    moments = Pairs(pairs.left / 2, pairs.right / 2, versine)
    root = math.sqrt(2 * math.pi)
    return Dual(moments, (1 - theta / math.pi) / 2, pairs.left.sqrt() / root, pairs.right.sqrt() / root)


def _hermite_dual(activation: Activation, pairs: Pairs) -> Dual:
    """The Hermite series, each distinct variance's coefficients computed once."""
    n1 = len(pairs.left)
    distinct, where = torch.unique(torch.cat([pairs.left, pairs.right]), return_inverse=True)
    coefficients = hermite_coefficients(activation, distinct)
    half, slope = mehler_sums(coefficients, where[:n1], where[n1:], pairs)
    second, mean = coefficients.second[where], coefficients.value[0][where]
    return Dual(from_half_distances(second[:n1], second[n1:], half), slope, mean[:n1], mean[n1:])
