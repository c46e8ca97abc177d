"""Expectations of one Gaussian variable, to rounding error, for functions that are smooth between known kinks."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

REACH = 13.0  # standard deviations: the Gaussian tail beyond is below 1e-37
PANELS = 52
NODES = 20  # Gauss-Legendre points a panel: a panel is half a standard deviation, so tanh's pole is far away


@lru_cache(maxsize=1)
def _legendre() -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def gaussian_rule(
    variance: Float[Tensor, " n"], kinks: tuple[float, ...] = ()
) -> tuple[Float[Tensor, "rules q"], Float[Tensor, "rules q"]]:
    r"""Nodes $z$ and weights with $\mathbb{E}f(\sqrt v Z) \approx \sum_q w_q f(\sqrt v z_q)$, for $Z\sim N(0,1)$.

    Composite Gauss-Legendre panels that never straddle a kink of $f$. Gauss-Hermite converges like 1/N at a kink; this
    rule keeps full precision there.

    Args:
        variance: $v > 0$, one rule each, float64.
        kinks: the points where $f$ is not smooth, in units of $f$'s argument.

    Returns:
        Standard normal nodes and weights, one row a variance (a single shared row when no kink depends on the variance).

    Example:
        >>> z, w = gaussian_rule(torch.ones(1, dtype=torch.float64))
        >>> round(float((w * z**4).sum()), 12)
        3.0
    """
    edges = torch.linspace(-REACH, REACH, PANELS + 1, dtype=torch.float64, device=variance.device)[None]
    moving = [kink for kink in kinks if kink != 0.0]  # zero is an edge of every rule already
    if moving:
        cuts = torch.tensor(moving, dtype=torch.float64, device=variance.device) / variance.sqrt()[:, None]
        edges = torch.cat([edges.expand(len(variance), -1), cuts.clamp(-REACH, REACH)], dim=1).sort(dim=1).values
    x, weight = (t.to(variance.device) for t in _legendre())
    half, middle = (edges[:, 1:] - edges[:, :-1]) / 2, (edges[:, 1:] + edges[:, :-1]) / 2
    z = (middle[..., None] + half[..., None] * x).flatten(1)
    density = torch.exp(-(z**2) / 2) / (2 * torch.pi) ** 0.5
    return z, (half[..., None] * weight).flatten(1) * density


def gaussian_mean(
    f: Callable[[Tensor], Tensor], variance: Float[Tensor, " n"], kinks: tuple[float, ...] = ()
) -> Float[Tensor, " n"]:
    r"""$\mathbb{E}f(\sqrt v Z)$ for $Z \sim N(0,1)$ and each variance $v$.

    Args:
        f: an elementwise function of a float64 tensor.
        variance: $v \ge 0$, float64.
        kinks: the points where $f$ is not smooth.

    Returns:
        One expectation a variance.

    Example:
        >>> gaussian_mean(torch.relu, torch.ones(1, dtype=torch.float64), (0.0,))  # 1/sqrt(2 pi)
        tensor([0.3989], dtype=torch.float64)
    """
    z, w = gaussian_rule(variance.clamp(min=1e-300), kinks)
    return (w * f(variance.sqrt()[:, None] * z)).sum(dim=1)
