r"""Dual activations: what a wide layer does to a pair of Gaussian pre-activations (THEORY 3.6).

For $(u,v)\sim N(0,S)$ each dual gives the moments of $\sigma(u),\sigma(v)$ as new :class:`Pairs`, the means, and
$\mathbb{E}[\sigma'(u)\sigma'(v)]$. Sine and cosine and a function that is linear but for a
kink at zero have closed forms, another piecewise linear one an integral over the angle; every other smooth activation uses its
Hermite series. One that bends between kinks has a table by the angle where its only kink is at zero
(:mod:`zeroloss.kernels.sectors`), and integrals beside the series otherwise (:mod:`zeroloss.kernels.cuts`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.kernels.cuts import cut_sums
from zeroloss.kernels.hermite import hermite_coefficients
from zeroloss.kernels.mehler import mehler_sums
from zeroloss.kernels.pairs import Pairs, from_half_distances
from zeroloss.kernels.piecewise import Pieces, pieces_of, piecewise_moments, piecewise_sums
from zeroloss.kernels.sectors import sector_moments, sector_sums
from zeroloss.kernels.waves import wave_moments, wave_sums
from zeroloss.networks import ACTIVATIONS, Activation


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
    mean_left: Float[Tensor, " n1 *p"]
    mean_right: Float[Tensor, " n2 *p"]


def dual(activation: Activation, pairs: Pairs) -> Dual:
    r"""The dual of an activation.

    Args:
        activation: one of ours, or any elementwise function that :func:`zeroloss.networks.find_activation` accepts.
        pairs: the covariance of the pre-activations.

    Returns:
        Its moments, exact to about 1e-15 relative to the diagonal where it is smooth or has its only kink at zero, to about 1e-13
        elsewhere. One exception: a kink's slope has a square root at opposite inputs, where it keeps 8 digits
        (absolute error below 1e-8) unless the pairs carry their coversine.

    Raises:
        ArgumentError: where the Hermite series or the table of a steep activation at a large variance does not settle.

    Example:
        >>> from zeroloss.networks import find_activation
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> result = dual(find_activation("relu"), Pairs(one, one, 0 * one[:, None]))
        >>> float(result.pairs.left), float(result.slope)
        (0.5, 0.5)
    """
    pieces = pieces_of(activation)
    if pieces is not None and pieces.homogeneous:
        return _homogeneous_dual(pieces, pairs)
    sign = parity(activation)
    if sign == 0 or pairs.coversine is None:
        return _one_sided_dual(activation, pieces, pairs)
    # an odd or even function makes of opposite inputs what it makes of equal ones: the nearer end of the turn keeps its digits
    wide = pairs.versine > 1
    near = torch.where(wide, pairs.coversine, pairs.versine)
    after = _one_sided_dual(activation, pieces, Pairs(pairs.left, pairs.right, near))
    if sign > 0:
        return replace(after, slope=torch.where(wide, -after.slope, after.slope))
    versine, opposite = after.pairs.versine, 2 - after.pairs.versine
    turned = (torch.where(wide, opposite, versine), torch.where(wide, versine, opposite))
    return replace(after, pairs=Pairs(after.pairs.left, after.pairs.right, *turned))


@lru_cache(maxsize=256)
def parity(activation: Activation) -> int:
    r"""1 where $\sigma(-z)=\sigma(z)$ up to rounding, -1 where it is $-\sigma(z)$, 0 for neither.

    Example:
        >>> from zeroloss.networks import find_activation
        >>> [parity(find_activation(name)) for name in ("erf", "cos", "gelu")]
        [-1, 1, 0]
    """
    z = torch.linspace(0.0, 40.0, 4001, dtype=torch.float64)
    value, mirrored = activation.function(z), activation.function(-z)
    close = 1e-15 * value.abs()
    return next((sign for sign in (1, -1) if bool(((mirrored - sign * value).abs() <= close).all())), 0)


def _one_sided_dual(activation: Activation, pieces: Pieces | None, pairs: Pairs) -> Dual:
    if activation in (ACTIVATIONS["sin"], ACTIVATIONS["cos"]):
        return _wave_dual(activation == ACTIVATIONS["sin"], pairs)
    if pieces is not None:
        return _piecewise_dual(pieces, pairs)
    return _sector_dual(activation, pairs) if activation.kinks == (0.0,) else _hermite_dual(activation, pairs)


def _homogeneous_dual(pieces: Pieces, pairs: Pairs) -> Dual:
    r"""Cho and Saul's arc-cosine formulas, for $\sigma(z)=\alpha z$ above zero and $\beta z$ below.

    $\mathbb{E}[u_+v_+] = \tfrac12\sqrt{S_{ii}S_{jj}}\,\kappa_1(\rho)$, $\mathbb{E}[u_+(-v)_+]$ the same at $-\rho$, and
    $\kappa_1(\rho) = \rho+\kappa_1(-\rho)$; so the versine becomes $w - c\,\kappa_1(-\rho)$ with
    $c=\tfrac{(\alpha-\beta)^2}{\alpha^2+\beta^2}$ and $\kappa_1(-\rho) = (\sin\theta-\theta\cos\theta)/\pi$. Beyond a right angle the same
    number is $(2-c) - (1-c)(1+\rho) - c\,\kappa_1(\rho)$, which keeps its digits where $c=2$ (the absolute value) takes it to 0.
    """
    below, above = pieces.slopes
    power = above**2 + below**2
    bend = (above - below) ** 2 / power
    theta = pairs.angle
    wide = theta > math.pi / 2
    opposite = 2 - pairs.versine if pairs.coversine is None else pairs.coversine
    turned = torch.where(wide, math.pi - theta, theta)
    if pairs.coversine is not None:  # pi - theta has lost what 1 + rho knows
        turned = torch.where(wide, 2 * torch.atan2(opposite.sqrt(), pairs.versine.sqrt()), turned)
    folded = bend / math.pi * _excess(turned)
    versine = torch.where(wide, (2 - bend) - (1 - bend) * opposite - folded, pairs.versine - folded).clamp(0, 2)
    coversine = torch.where(wide, bend + (1 - bend) * opposite + folded, 2 - versine).clamp(0, 2)
    moments = Pairs(pairs.left * (power / 2), pairs.right * (power / 2), versine, coversine)
    mean = (above - below) / math.sqrt(2 * math.pi)
    # (power / 2)(1 - theta / pi) + alpha beta theta / pi, from whichever end of the turn is nearer
    slope = torch.where(wide, above * below + (power / 2 - above * below) / math.pi * turned, power / 2 * (1 - turned / math.pi))
    slope = torch.where(wide, slope, slope + above * below / math.pi * turned)
    return Dual(moments, slope, pairs.left.sqrt() * mean, pairs.right.sqrt() * mean)


def _excess(theta: Tensor) -> Tensor:
    r"""$\sin\theta-\theta\cos\theta$ on $[0, \pi/2]$."""
    square = theta**2
    # t^3/3 - t^5/30 + t^7/840 - t^9/45360 + ...: below 0.1 the closed form would cancel
    series = theta * square / 3 * (1 - square / 10 * (1 - square / 28 * (1 - square / 54 * (1 - square / 88))))
    return torch.where(theta < 0.1, series, torch.sin(theta) - theta * torch.cos(theta))


def _piecewise_dual(pieces: Pieces, pairs: Pairs) -> Dual:
    """Price's theorem, knot by knot."""
    half, slope = piecewise_sums(pieces, pairs)
    (mean, second), (mean_right, second_right) = (piecewise_moments(pieces, side) for side in (pairs.left, pairs.right))
    return Dual(from_half_distances(second, second_right, half), slope, mean, mean_right)


def _wave_dual(sine: bool, pairs: Pairs) -> Dual:
    """The characteristic function of a Gaussian."""
    half, slope = wave_sums(sine, pairs)
    (mean, second), (mean_right, second_right) = (wave_moments(sine, side) for side in (pairs.left, pairs.right))
    return Dual(from_half_distances(second, second_right, half), slope, mean, mean_right)


def _sector_dual(activation: Activation, pairs: Pairs) -> Dual:
    """Tables by the angle."""
    half, slope = sector_sums(activation, pairs)
    mean, mean_right, second, second_right = sector_moments(activation, pairs)
    return Dual(from_half_distances(second, second_right, half), slope, mean, mean_right)


def _hermite_dual(activation: Activation, pairs: Pairs) -> Dual:
    """The Hermite series, each distinct variance's coefficients computed once."""
    n1 = len(pairs.left)
    distinct, where = torch.unique(torch.cat([pairs.left, pairs.right]), return_inverse=True)
    coefficients = hermite_coefficients(activation, distinct)
    if activation.smooth:
        half, slope = mehler_sums(coefficients, where[:n1], where[n1:], pairs)
    else:
        half, slope = cut_sums(activation, coefficients, where[:n1], where[n1:], pairs)
    second, mean = coefficients.second[where], coefficients.value[0][where]
    return Dual(from_half_distances(second[:n1], second[n1:], half), slope, mean[:n1], mean[n1:])
