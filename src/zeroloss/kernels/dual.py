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

from zeroloss.errors import ArgumentError
from zeroloss.kernels.pairs import Pairs, from_half_distances
from zeroloss.networks import Activation, gaussian_rule

MAX_TERMS = 1024
TAIL = 1e-15  # relative to the second moment: what the dropped Hermite terms may weigh
WORST_TAIL = 1e-9  # beyond this the series is refused, not trusted


@dataclass(frozen=True, eq=False)
class Dual:
    r"""The moments of an activation over pairs of Gaussian pre-activations.

    Args:
        pairs: second moments of $\sigma$.
        slope: $\mathbb{E}[\sigma'(u)\sigma'(v)]$, n1×n2 (n1×n2×h×w for images, and so below).
        mean_left: $\mathbb{E}\sigma(u)$, n1.
        mean_right: $\mathbb{E}\sigma(v)$, n2.
    """

    pairs: Pairs
    slope: Float[Tensor, "n1 n2 *pixels"]
    mean_left: Float[Tensor, n1 * pixels]
    mean_right: Float[Tensor, n2 * pixels]


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
    r"""Mehler's formula, $\mathbb{E}[\sigma(u)\sigma(v)] = \sum_k a_k(i)a_k(j)\rho^k$, arranged so that near duplicates keep digits.

    $\tfrac12\mathbb{E}(\sigma(u)-\sigma(v))^2 = \sum_k \tfrac12(a_k(i)-a_k(j))^2 + a_k(i)a_k(j)(1-\rho^k)$, with
    $1-\rho^k = (1-\rho^{k-1}) + \rho^{k-1}w$.
    """
    both = torch.cat([pairs.left, pairs.right])  # one call, so that both sets have the same number of terms
    coefficients = _coefficients(activation, both)
    n1 = len(pairs.left)
    value1, value2 = coefficients.value[:n1], coefficients.value[n1:]
    slope1, slope2 = coefficients.slope[:n1], coefficients.slope[n1:]
    second1, second2 = coefficients.second[:n1], coefficients.second[n1:]
    one_norm = bool((both == both[:1]).all())
    rho = 1 - pairs.versine
    power, fall = torch.ones_like(rho), torch.zeros_like(rho)  # rho^k and 1 - rho^k
    half, slope = torch.zeros_like(rho), torch.zeros_like(rho)
    for k in range(value1.shape[-1]):
        a, b = value1[..., k], value2[..., k]
        half.addcmul_(a[:, None] * b, fall)
        if not one_norm:
            half.add_(0.5 * (a[:, None] - b) ** 2)
        slope.addcmul_(slope1[:, None, ..., k] * slope2[..., k], power)
        fall = fall.addcmul(power, pairs.versine)
        power = power * rho
    return Dual(from_half_distances(second1, second2, half), slope, value1[..., 0], value2[..., 0])


@dataclass(frozen=True, eq=False)
class _Coefficients:
    value: Tensor  # n x terms: a_k of sigma
    slope: Tensor  # n x terms: a_k of sigma'
    second: Tensor  # n: E sigma^2, by quadrature, so the diagonal owes nothing to the series


def _coefficients(activation: Activation, variance: Tensor) -> _Coefficients:
    """Normalised Hermite coefficients of the activation and its derivative at every variance (one row each)."""
    distinct, where = torch.unique(variance, return_inverse=True)
    z, weight = gaussian_rule(distinct, activation.kinks)
    points = distinct.sqrt()[:, None] * z
    value, slope = activation.function(points), activation.derivative(points)
    second, slope_second = (weight * value**2).sum(1), (weight * slope**2).sum(1)
    values, slopes = [], []
    below, here = torch.zeros_like(z), torch.ones_like(z)
    rest, slope_rest = second.clone(), slope_second.clone()
    for k in range(MAX_TERMS):
        values.append((weight * value * here).sum(1))
        slopes.append((weight * slope * here).sum(1))
        rest, slope_rest = rest - values[-1] ** 2, slope_rest - slopes[-1] ** 2
        # two small remainders in a row: an odd function has every other term zero
        if k > 8 and bool((rest <= TAIL * second).all()) and bool((slope_rest <= 8 * TAIL * slope_second).all()):
            break
        below, here = here, (z * here - math.sqrt(k) * below) / math.sqrt(k + 1)
    if bool((rest > WORST_TAIL * second).any()) or bool((slope_rest > WORST_TAIL * slope_second).any()):
        raise ArgumentError(
            "x",
            f"gives pre-activations of variance {float(variance.max()):.3g}, where the limit of {activation.name} has not settled "
            f"after {MAX_TERMS} Hermite terms",
            "normalise the rows (normalise='sphere')",
        )
    return _Coefficients(torch.stack(values, 1)[where], torch.stack(slopes, 1)[where], second[where])
