r"""What an activation makes of a trained gain: $\mathbb{E}[u\,\sigma'(u)\;v\,\sigma'(v)]$ over Gaussian pre-activations.

The gain $\gamma$ of a pre-activation $\gamma u$ moves $\sigma(\gamma u)$ by $u\sigma'(u)$. Where $\sigma$ is homogeneous that is
$\sigma$ itself; where it is smooth, $Z\sigma'(\sqrt vZ)$ has the Hermite coefficients $\sqrt k\,b_{k-1}+\sqrt{k+1}\,b_{k+1}$, with
$b$ those of $\sigma'$.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.kernels.dual import dual
from zeroloss.kernels.hermite import hermite_coefficients
from zeroloss.kernels.mehler import mehler_products
from zeroloss.kernels.pairs import Pairs
from zeroloss.kernels.piecewise import pieces_of
from zeroloss.kernels.sectors import sector_gains
from zeroloss.networks import Activation


def gains_are_closed(activation: Activation) -> bool:
    """Whether :func:`gained_products` knows the activation: a smooth one, or one with its only kink at zero and no jump there.

    Example:
        >>> from zeroloss.networks import find_activation
        >>> [gains_are_closed(find_activation(name)) for name in ("relu", "tanh", "hard_tanh")]
        [True, True, False]
    """
    return activation.smooth or activation.kinks == (0.0,)


def gained_products(activation: Activation, pairs: Pairs) -> Float[Tensor, "n1 n2 *p"]:
    r"""$\mathbb{E}[u\sigma'(u)v\sigma'(v)]$.

    Args:
        activation: one that :func:`gains_are_closed` accepts.
        pairs: the pre-activations.

    Returns:
        One expectation a pair.

    Example:
        >>> from zeroloss.networks import find_activation
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> gained_products(find_activation("relu"), Pairs(one, one, 0 * one[:, None]))
        tensor([[0.5000]], dtype=torch.float64)
    """
    if not activation.smooth:
        pieces = pieces_of(activation)
        return dual(activation, pairs).pairs.products if pieces and pieces.homogeneous else sector_gains(activation, pairs)
    n1 = len(pairs.left)
    distinct, where = torch.unique(torch.cat([pairs.left, pairs.right]), return_inverse=True)
    slope = hermite_coefficients(activation, distinct).slope
    root = torch.arange(len(slope) + 1, dtype=slope.dtype, device=slope.device).sqrt()[:, None]
    table = slope.new_zeros(len(slope) + 1, len(distinct))
    table[1:] += root[1:] * slope
    table[:-2] += root[1:-1] * slope[1:]
    return mehler_products(table * distinct.sqrt(), where[:n1], where[n1:], pairs)
