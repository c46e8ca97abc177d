r"""Duals of sine and cosine in closed form: $\mathbb{E}\cos(u-v) = e^{-D}$, with $D = \tfrac12\mathbb{E}(u-v)^2$ the half distance.

With $D' = \tfrac12\mathbb{E}(u+v)^2 = S_{ii}+S_{jj}-D$, $\mathbb{E}\sin u\sin v = \tfrac12(e^{-D}-e^{-D'})$ and
$\mathbb{E}\cos u\cos v = \tfrac12(e^{-D}+e^{-D'})$; each is the slope of the other. Half distances after the layer are
$\tfrac12\big((1-e^{-D})(1\pm e^{-D'}) \mp \tfrac12(e^{-S_{ii}}-e^{-S_{jj}})^2\big)$, where near duplicates keep their digits.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.kernels.pairs import Pairs


def wave_sums(sine: bool, pairs: Pairs) -> tuple[Float[Tensor, "n1 n2 *p"], Float[Tensor, "n1 n2 *p"]]:
    r"""Half distances after the activation, and $\mathbb{E}[\sigma'(u)\sigma'(v)]$.

    Args:
        sine: whether $\sigma$ is the sine; the cosine otherwise.
        pairs: the pre-activations.

    Returns:
        Half distances and slopes, both as ``pairs.versine`` in shape.

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> half, slope = wave_sums(True, Pairs(one, one, one[:, None]))  # rho = 0
        >>> round(2 * float(slope) * torch.e, 12)
        2.0
    """
    left, right = pairs.left[:, None], pairs.right[None]
    near = pairs.half_distances
    far = (left + right - near).clamp(min=0)
    decay, opposite = torch.expm1(-near), torch.exp(-far)
    gap = (torch.expm1(-left) - torch.expm1(-right)) ** 2 / 2
    # 1 - e^{-D'} as such: the cosine of a small argument hardly moves, and what it moves by must not cancel
    half = (-decay * (1 + opposite) - gap) / 2 if sine else (decay * torch.expm1(-far) + gap) / 2
    slope = (1 + decay + opposite) / 2 if sine else (1 + decay - opposite) / 2
    return half.clamp(min=0), slope


def wave_moments(sine: bool, variance: Float[Tensor, " *n"]) -> tuple[Float[Tensor, " *n"], Float[Tensor, " *n"]]:
    r"""$\mathbb{E}\sigma$ and $\mathbb{E}\sigma^2$ at each variance.

    Args:
        sine: whether $\sigma$ is the sine; the cosine otherwise.
        variance: $v \ge 0$, any shape.

    Returns:
        Means and second moments.

    Example:
        >>> [float(m) for m in wave_moments(False, torch.zeros((), dtype=torch.float64))]
        [1.0, 1.0]
    """
    if sine:
        return torch.zeros_like(variance), -torch.expm1(-2 * variance) / 2
    return torch.exp(-variance / 2), 1 + torch.expm1(-2 * variance) / 2
