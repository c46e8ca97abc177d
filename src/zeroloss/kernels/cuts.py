r"""Duals of functions with kinks anywhere and any smooth shape between them (hard swish): a Hermite series, and integrals where it is slow.

Kinks make Hermite coefficients fall like a power of k, so the series converges like $|\rho|^k$ and no faster. Where $|\rho|$ is at
most 0.97, a thousand terms leave nothing. Closer pairs are integrated one by one, $u=\sqrt{S_{ii}}\,x$ and
$v=\sqrt{S_{jj}}(\rho x+\sqrt{1-\rho^2}\,y)$, on Gauss-Legendre panels that end at every kink of either: a thousand pairs take a second.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from zeroloss.kernels.hermite import Coefficients
from zeroloss.kernels.mehler import mehler_products
from zeroloss.kernels.pairs import Pairs
from zeroloss.networks import Activation

CLOSE = 0.97  # 0.97^1024 is 3e-14
POINTS = 16  # Gauss-Legendre points a panel
REACH = 9.0  # standard deviations: 1e-18 lies beyond
LAYER = (-9.0, -4.0, -1.5, 0.0, 1.5, 4.0, 9.0)  # where panels end about a kink of v, in the widths over which x meets it
CELLS = 2**20  # points at a time


def cut_sums(
    activation: Activation,
    coefficients: Coefficients,
    left: Int[Tensor, " n1 *p"],
    right: Int[Tensor, " n2 *p"],
    pairs: Pairs,
) -> tuple[Float[Tensor, "n1 n2 *p"], Float[Tensor, "n1 n2 *p"]]:
    r"""Half distances after the activation, and $\mathbb{E}[\sigma'(u)\sigma'(v)]$.

    Args:
        activation: a continuous function, smooth between the kinks it lists.
        coefficients: its Hermite coefficients at the distinct variances.
        left: which of those variances each entry of ``pairs.left`` has.
        right: the same for ``pairs.right``.
        pairs: the pre-activations.

    Returns:
        Half distances and slopes, both as ``pairs.versine`` in shape.

    Example:
        >>> from zeroloss.kernels.hermite import hermite_coefficients
        >>> from zeroloss.networks import activation_of
        >>> one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
        >>> sigma = activation_of(torch.nn.Hardswish())
        >>> found = hermite_coefficients(sigma, one)
        >>> half, _ = cut_sums(sigma, found, zero, zero, Pairs(one, one, 2 * one[:, None]))  # v = -u, and sigma(u) - sigma(-u) = u
        >>> round(float(half), 12)
        0.5
    """
    # the series of a product, whose tail falls like a power of rho; that of a half distance has the tail of the second moments
    whole = (coefficients.second[left][:, None] + coefficients.second[right][None]) / 2
    half = whole - mehler_products(coefficients.value, left, right, pairs)
    slope = mehler_products(coefficients.slope, left, right, pairs)
    same = (pairs.versine == 0) & (pairs.left[:, None] == pairs.right)  # an input with itself
    half.masked_fill_(same, 0.0)
    slope = torch.where(same, coefficients.second_slope[left][:, None].expand_as(slope), slope)
    close = torch.nonzero(((1 - pairs.versine).abs() > CLOSE) & ~same)
    if len(close):
        place = tuple(close.T)
        p, q = (side[(place[k], *place[2:])].sqrt() for k, side in enumerate((pairs.left, pairs.right)))
        half[place], slope[place] = _integrals(activation, p, q, pairs.versine[place])
    return half.clamp(min=0), slope


def _integrals(activation: Activation, p: Tensor, q: Tensor, versine: Tensor) -> tuple[Tensor, Tensor]:
    """Half distances and slopes of close pairs, a few at a time."""
    steps = math.ceil(REACH * max(1.0, float(torch.maximum(p, q).max()) / 2))
    kinks = torch.tensor(activation.kinks, dtype=p.dtype, device=p.device)
    outer = (2 * steps + len(kinks) * (1 + len(LAYER))) * POINTS
    size = max(1, CELLS // (outer * (4 + len(kinks)) * POINTS))
    pieces = (torch.split(values, size) for values in (p, q, versine))
    parts = [_few(activation, kinks, steps, *some) for some in zip(*pieces, strict=True)]
    half, slope = (torch.cat(values) for values in zip(*parts, strict=True))
    return half, slope


def _few(
    activation: Activation, kinks: Tensor, steps: int, p: Tensor, q: Tensor, versine: Tensor
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    p, q = (root.clamp(min=1e-150)[:, None] for root in (p, q))
    rho = (1 - versine)[:, None]
    side = (versine * (2 - versine)).sqrt().clamp(min=1e-150)[:, None]
    base = torch.linspace(-REACH, REACH, 2 * steps + 1, dtype=p.dtype, device=p.device).expand(len(p), -1)
    layers = torch.tensor(LAYER, dtype=p.dtype, device=p.device)
    bends = ((kinks / q)[..., None] + layers * side[..., None]) / rho[..., None]
    x, mass = _panels(torch.cat([base, kinks / p, bends.flatten(1)], 1))
    cuts = (kinks / q)[:, None] - rho[..., None] * x[..., None]
    ends = torch.linspace(-REACH, REACH, 5, dtype=p.dtype, device=p.device).expand(*x.shape, -1)
    y, inner = _panels(torch.cat([ends, cuts / side[..., None]], -1))
    u, v = p * x, q[..., None] * (rho[..., None] * x[..., None] + side[..., None] * y)
    apart = activation.function(u)[..., None] - activation.function(v)
    half = (mass * (inner * apart**2).sum(-1)).sum(-1) / 2
    slope = (mass * activation.derivative(u) * (inner * activation.derivative(v)).sum(-1)).sum(-1)
    return half, slope


def _panels(ends: Float[Tensor, "*n e"]) -> tuple[Float[Tensor, "*n x"], Float[Tensor, "*n x"]]:
    """Points between all the ends given, and their weights under the normal law."""
    nodes, weights = (torch.from_numpy(part).to(ends.device) for part in np.polynomial.legendre.leggauss(POINTS))
    edges = ends.clamp(-REACH, REACH).sort(dim=-1).values
    width, middle = (edges[..., 1:] - edges[..., :-1]) / 2, (edges[..., 1:] + edges[..., :-1]) / 2
    x = (middle[..., None] + width[..., None] * nodes).flatten(-2)
    return x, (width[..., None] * weights).flatten(-2) * torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
