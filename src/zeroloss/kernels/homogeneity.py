"""Whether a module is homogeneous: then norms come out of its kernels as factors, and rows may be taken to the sphere first."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from zeroloss.kernels.initial import bias_variance
from zeroloss.kernels.piecewise import pieces_of
from zeroloss.kernels.pixels import AVERAGES
from zeroloss.kernels.structure import WEIGHTED, children_of
from zeroloss.networks import Scale, activation_of

LINEAR = (Scale, nn.Identity, nn.Dropout, nn.Flatten, *AVERAGES)


def is_homogeneous(module: nn.Module, initial: Mapping[nn.Module, tuple[float, float]]) -> bool:
    """Whether scaling an input by a positive number scales the output, its gradients and so every kernel of it by that number.

    Args:
        module: a module that the recursion knows.
        initial: variances of weights and bias that were given.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> is_homogeneous(fully_connected(3, 8, 2), {}), is_homogeneous(fully_connected(3, 8, 2, activation="erf"), {})
        (True, False)
    """
    if isinstance(module, WEIGHTED):
        if module.bias is None:
            return True
        variance = initial[module][1] if module in initial else bias_variance(module)
        return variance == 0 and not module.bias.requires_grad
    if isinstance(module, nn.Sequential):
        return all(is_homogeneous(layer, initial) for _, layer in children_of(module))
    if (sigma := activation_of(module)) is not None:
        pieces = pieces_of(sigma)
        return pieces is not None and pieces.homogeneous
    return isinstance(module, LINEAR)
