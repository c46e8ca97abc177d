r"""From a module to a curve: whether its limit depends on the angle alone, and the recursion over layers at the curve's nodes.

Weights drawn independently see nothing of two rows but their norms and the angle between them. So rows of one norm need one curve; and
where every layer is homogeneous, $K(ax,by)=ab\,K(x,y)$, rows of any norms need the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from zeroloss.kernels.curve import Curve, fit_curve
from zeroloss.kernels.pairs import Pairs
from zeroloss.kernels.recursion import carry
from zeroloss.kernels.state import State
from zeroloss.kernels.structure import children_of
from zeroloss.networks import Network, Scale

Variances = Mapping[nn.Module, tuple[float, float]]
_THROUGH = (nn.Flatten, nn.Identity, nn.Dropout, Scale)  # in front of the first weights they change no angle


def row_width(module: nn.Module) -> int | None:
    """How many features the first layer takes, where that is a Linear that meets the rows as they are; None otherwise.

    Args:
        module: a module that the recursion knows.

    Example:
        >>> row_width(nn.Sequential(nn.Flatten(), nn.Linear(3, 5), nn.ReLU())), row_width(nn.Sequential(nn.ReLU(), nn.Linear(3, 5)))
        (3, None)
    """
    if isinstance(module, nn.Linear):
        return module.in_features
    if type(module) is nn.Sequential or isinstance(module, Network):
        for _, layer in children_of(module):
            if not isinstance(layer, _THROUGH):
                return row_width(layer)
    return None


def collapse(
    module: nn.Module,
    parts: Mapping[nn.Module, int],
    read: Callable[[State], Tensor],
    initial: Variances,
    variance: float,
    dtype: torch.dtype,
) -> Curve | None:
    r"""The curve of a module's kernel over rows with $\|x\|^2/d$ equal to a number.

    Args:
        module: one with a :func:`row_width`.
        parts: as for :func:`zeroloss.kernels.recursion.walk`.
        read: the kernel of a state, n1×n2.
        initial: as there.
        variance: $\|x\|^2/d$.
        dtype: in which the curve will be evaluated.

    Returns:
        The curve, or None where no polynomial is good enough.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> curve = collapse(fully_connected(3, 8, 2), {}, lambda state: state.pairs.products, {}, 1 / 3, torch.float64)
        >>> round(curve.diagonal, 12), curve.error < 1e-13
        (1.0, True)
    """
    width = row_width(module)
    assert width is not None

    def function(versine: Tensor, coversine: Tensor) -> Tensor:
        one, many = versine.new_full((1,), variance), torch.full_like(versine, variance)
        pairs = Pairs(one, many, versine[None], coversine[None])
        means = (torch.zeros_like(one), torch.zeros_like(many))  # the first weights forget them
        return read(carry(module, pairs, means, width, parts, initial=initial))[0]

    return fit_curve(function, dtype)
