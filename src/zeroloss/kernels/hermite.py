r"""Hermite coefficients of an activation at every variance: $a_k(v) = \mathbb{E}[\sigma(\sqrt v Z)\,h_k(Z)]$, $h_k$ orthonormal.

Images bring tens of thousands of different variances. The coefficients are analytic in $\log v$ (for an activation that is analytic in
a sector about the real line, in a strip of twice the sector's angle), so a few Chebyshev nodes a band of variances give them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.networks import Activation, gaussian_rule

MAX_TERMS = 1024
TAIL = 1e-15  # relative to the second moment: what the dropped Hermite terms may weigh
WORST_TAIL = 1e-9  # beyond this the series of a smooth activation is refused, not trusted
NODES = 32  # Chebyshev points a band of variances
BAND = 16.0  # the largest ratio of variances in a band, so that small ones keep their digits too
SETTLED = 2e-15  # relative to the band's largest second moment: the last Chebyshev coefficients of a band that is resolved


@dataclass(frozen=True, eq=False)
class Coefficients:
    r"""Hermite coefficients at several variances.

    Args:
        value: $a_k$ of $\sigma$, terms×n.
        slope: $a_k$ of $\sigma'$, terms×n.
        second: $\mathbb{E}\sigma^2$, n; by quadrature, so that the diagonal owes nothing to the series.
        second_slope: $\mathbb{E}\sigma'^2$, n, likewise.
    """

    value: Float[Tensor, "k n"]
    slope: Float[Tensor, "k n"]
    second: Float[Tensor, " n"]
    second_slope: Float[Tensor, " n"]


def hermite_coefficients(activation: Activation, variance: Float[Tensor, " n"]) -> Coefficients:
    r"""The coefficients at every variance, as many terms as the worst of them needs.

    Args:
        activation: $\sigma$.
        variance: $v \ge 0$, increasing and distinct, float64.

    Returns:
        The coefficients; interpolation adds at most about 1e-14 of the second moment's root.

    Raises:
        ArgumentError: where the terms kept leave more than ``WORST_TAIL`` of the second moment, unless the activation has kinks.

    Example:
        >>> from zeroloss.networks import find_activation
        >>> hermite_coefficients(find_activation("swish"), torch.ones(1, dtype=torch.float64)).slope[0]  # E sigma' = 1/2
        tensor([0.5000], dtype=torch.float64)
    """
    # one number of terms for all: what is dropped from one of two near variances and kept in the other would be a distance of theirs
    least, terms = 0, len(_quadrature(activation, variance[-1:]).value)
    while least < terms:
        least = terms
        bands = _bands(activation, variance, least)
        terms = max(len(band.value) for band in bands)
    found = Coefficients(
        torch.cat([band.value for band in bands], 1),
        torch.cat([band.slope for band in bands], 1),
        torch.cat([band.second for band in bands]),
        torch.cat([band.second_slope for band in bands]),
    )
    _judge(activation, variance, found)
    return found


def _bands(activation: Activation, variance: Tensor, least: int) -> list[Coefficients]:
    if len(variance) <= 2 * NODES:
        return [_quadrature(activation, variance, least)]
    positive = variance > 0
    if not bool(positive.all()):
        return [_quadrature(activation, variance[~positive], least), *_bands(activation, variance[positive], least)]
    low, high = math.log(float(variance[0])), math.log(float(variance[-1]))
    if high - low <= math.log(BAND) and (band := _interpolated(activation, variance, low, high, least)) is not None:
        return [band]
    middle = variance.log() < (low + high) / 2
    return [*_bands(activation, variance[middle], least), *_bands(activation, variance[~middle], least)]


def _interpolated(activation: Activation, variance: Tensor, low: float, high: float, least: int) -> Coefficients | None:
    """The coefficients from Chebyshev nodes in the logarithm of the variance, or None where so few nodes do not resolve them."""
    order = torch.arange(NODES, dtype=variance.dtype, device=variance.device)
    # angles modulo a whole turn, so that high orders lose no digits
    transform = 2 / NODES * torch.cos(math.pi / (2 * NODES) * ((2 * order + 1) * order[:, None] % (4 * NODES)))
    nodes = _quadrature(activation, torch.exp((low + high) / 2 + (high - low) / 2 * (NODES / 2 * transform[1])), least)
    transform[0] /= 2
    place = ((2 * variance.log() - low - high) / (high - low)).clamp(-1, 1)
    basis = torch.cos(order[:, None] * place.acos())
    found = []
    for at_nodes, square in (
        (nodes.value, nodes.second),
        (nodes.slope, nodes.second_slope),
        (nodes.second[None], nodes.second**2),
        (nodes.second_slope[None], nodes.second_slope**2),
    ):
        series = at_nodes @ transform.T
        if float(series[:, -2:].abs().max()) > SETTLED * float(square.max().sqrt()):
            return None
        found.append(series @ basis)
    return Coefficients(found[0], found[1], found[2][0], found[3][0])


def _quadrature(activation: Activation, variance: Tensor, least: int = 0) -> Coefficients:
    """The coefficients by integration, until what they leave of the second moments is rounding."""
    z, weight = gaussian_rule(variance, activation.kinks)
    points = variance.sqrt()[:, None] * z
    value, slope = activation.function(points), activation.derivative(points)
    weighted, weighted_slope = weight * value, weight * slope
    second, second_slope = (weighted * value).sum(1), (weighted_slope * slope).sum(1)
    values, slopes = [], []
    below, here = torch.zeros_like(z), torch.ones_like(z)
    rest, rest_slope = second.clone(), second_slope.clone()
    for k in range(MAX_TERMS):
        values.append((weighted * here).sum(1))
        slopes.append((weighted_slope * here).sum(1))
        rest, rest_slope = rest - values[-1] ** 2, rest_slope - slopes[-1] ** 2
        # nine terms to begin with: the remainder of an odd or even function stands still at every other one
        if k + 1 >= max(least, 9) and bool((rest <= TAIL * second).all()) and bool((rest_slope <= 8 * TAIL * second_slope).all()):
            break
        below, here = here, (z * here - math.sqrt(k) * below) / math.sqrt(k + 1)
    return Coefficients(torch.stack(values), torch.stack(slopes), second, second_slope)


def _judge(activation: Activation, variance: Tensor, found: Coefficients) -> None:
    """Refuse a series that has not settled; that of an activation with kinks is used only where it has (:mod:`zeroloss.kernels.cuts`)."""
    rest = max(_remainder(found.value, found.second), _remainder(found.slope, found.second_slope))
    if activation.smooth and rest > WORST_TAIL:
        raise ArgumentError(
            "x",
            f"gives pre-activations of variance {float(variance[-1]):.3g}, where the limit of {activation.name} has not settled "
            f"after {MAX_TERMS} Hermite terms",
            "divide the inputs by a number, or put them on the unit sphere",
        )


def _remainder(rows: Tensor, whole: Tensor) -> float:
    rest = (whole - rows.square().sum(0)) / whole
    return float(torch.where(whole > 0, rest, torch.zeros_like(rest)).max())
