"""Layers as the limit reads them: their order, the variance of their weights, and which ones are not what they look like."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from zeroloss.errors import ArgumentError
from zeroloss.kernels.pixels import AVERAGES
from zeroloss.networks import GaussianConv2d, GaussianLinear


def children_of(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """A module's children by name, one that stands in two places twice (``named_children`` gives it once)."""
    return [(name, child) for name, child in module._modules.items() if child is not None]


def refuse_tied(module: nn.Module) -> None:
    """Refuse a module that passes through one layer of weights twice: its uses are not independent.

    Raises:
        ArgumentError: naming the layer.
    """
    seen: set[nn.Module] = set()
    for name, layer in module.named_modules(remove_duplicate=False):
        if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            continue
        if layer in seen:
            raise ArgumentError(
                "module",
                f"uses one layer twice, again at {name!r}",
                "give every use a layer of its own, or ask for gram(module, x)",
            )
        seen.add(layer)


_KNOWN = (nn.Sequential, nn.Linear, nn.Conv1d, nn.Conv2d, *AVERAGES)


def refuse_own_forward(module: nn.Module, name: str) -> None:
    """A subclass that computes something of its own is not the layer that it derives from.

    Raises:
        ArgumentError: naming it.
    """
    for kind in _KNOWN:
        if isinstance(module, kind) and (type(module).forward is not kind.forward or is_parametrized(module)):
            how = "parametrised weights" if is_parametrized(module) else "a forward of its own"
            raise ArgumentError(
                "module",
                f"has {how} at {name!r} ({type(module).__name__}), and no infinite-width limit is known for it",
                "build it from Linear, Conv2d, activations, Scale, Residual and Sequential, or ask for gram(module, x)",
            )


def weight_variance(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> float:
    """The variance of a layer's initial weights: ours as built, torch's default uniform otherwise.

    Example:
        >>> round(weight_variance(nn.Linear(3, 5)), 6)  # uniform on +-1/sqrt(3)
        0.111111
    """
    return layer.variance if isinstance(layer, GaussianLinear | GaussianConv2d) else 1 / (3 * fan_in(layer))


def fan_in(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> int:
    """How many inputs one output reads.

    Example:
        >>> fan_in(nn.Conv2d(2, 8, 3))
        18
    """
    return layer.weight[0].numel()
