"""Which of a layer's parameters its calls can speak for: its own trained weight and bias, of which no other layer has a share."""

from __future__ import annotations

from collections import Counter

from torch import nn


def parameters_of(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The trained ones of a layer's weight and bias, where they are parameters of its own (not computed from others).

    Args:
        layer: any module.

    Returns:
        ``"weight"`` and ``"bias"``, those there are, in that order.

    Example:
        >>> list(parameters_of(nn.Conv2d(2, 4, 3, bias=False))), list(parameters_of(nn.ReLU()))
        (['weight'], [])
    """
    own = dict(layer.named_parameters(recurse=False))
    return {name: own[name] for name in ("weight", "bias") if name in own and own[name].requires_grad}


def owners(module: nn.Module) -> Counter[int]:
    """How many layers hold a parameter, by the parameter's id: more than one where it is tied.

    Args:
        module: any module.

    Returns:
        The counts.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> net[1].weight = net[0].weight
        >>> sorted(owners(net).values())
        [1, 1, 2]
    """
    return Counter(id(p) for layer in module.modules() for p in layer._parameters.values() if p is not None)
