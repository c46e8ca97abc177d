"""The variances of a module's initial weights and biases: what its layers draw by themselves, or what the user says they drew."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.kernels.structure import WEIGHTED, Weighted
from zeroloss.networks import GaussianConv2d, GaussianLinear

Initial = Mapping[str, float | tuple[float, float]]  # a layer's dotted name to its weights' variance, and its bias's


def weight_variance(layer: Weighted) -> float:
    """The variance of a layer's initial weights: ours as built, torch's default uniform otherwise.

    Example:
        >>> round(weight_variance(nn.Linear(3, 5)), 6)  # uniform on +-1/sqrt(3)
        0.111111
    """
    return layer.variance if isinstance(layer, GaussianLinear | GaussianConv2d) else 1 / (3 * fan_in(layer))


def bias_variance(layer: Weighted) -> float:
    """The variance of a layer's initial bias, torch's default uniform; 0 where it has none.

    Example:
        >>> round(bias_variance(nn.Linear(3, 5)), 6), bias_variance(nn.Linear(3, 5, bias=False))
        (0.111111, 0.0)
    """
    return 0.0 if layer.bias is None else 1 / (3 * fan_in(layer))


def fan_in(layer: Weighted) -> int:
    """How many weights an output of the layer meets.

    Example:
        >>> fan_in(nn.Conv2d(2, 5, (1, 3)))
        6
    """
    return layer.weight[0].numel()


def measured_variances(module: nn.Module) -> dict[str, tuple[float, float]]:
    r"""The mean squares of the module's own weights and biases as they are, to be passed as ``initial`` before training.

    Their relative error is $\sqrt{2/N}$ for N normal weights, so a layer of few weights or a bias is better given as a number.

    Args:
        module: any module, with the weights that it starts from.

    Returns:
        Dotted name of every Linear and Conv2d layer to the mean squares of its weight and of its bias.

    Example:
        >>> from zeroloss.networks import GaussianLinear
        >>> import torch
        >>> net = nn.Sequential(GaussianLinear(300, 300, variance=2.0, generator=torch.Generator().manual_seed(0)))
        >>> {name: (round(weight, 1), bias) for name, (weight, bias) in measured_variances(net).items()}
        {'0': (2.0, 0.0)}
    """
    return {
        name: (float(layer.weight.detach().double().square().mean()), _square(layer))
        for name, layer in module.named_modules()
        if isinstance(layer, WEIGHTED)
    }


def _square(layer: Weighted) -> float:
    return 0.0 if layer.bias is None else float(layer.bias.detach().double().square().mean())


def resolve(module: nn.Module, initial: Initial | None) -> dict[nn.Module, tuple[float, float]]:
    """The variances that the user gives, by layer.

    Args:
        module: the module.
        initial: as for :func:`zeroloss.kernels.limit_kernel`.

    Returns:
        Layer to the variances of its weights and of its bias, for the layers that are named.

    Raises:
        ArgumentError: for a name that no layer has, or numbers that are no variances.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
        >>> list(resolve(net, {"0": 2 / 3}).values())
        [(0.6666666666666666, 0.0)]
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, WEIGHTED)}
    found: dict[nn.Module, tuple[float, float]] = {}
    for name, given in (initial or {}).items():
        if name not in layers:
            raise unknown_name("initial", name, layers)
        both = given if isinstance(given, tuple) else (given, 0.0)
        try:
            weight, bias = (float(value) for value in both)
        except (TypeError, ValueError):
            weight = bias = math.nan
        if not (0 <= weight < math.inf and 0 <= bias < math.inf):
            remedy = "pass the variance of its weights, or a pair: that of its weights and that of its bias"
            raise ArgumentError(f"initial[{name!r}]", f"is {given!r}", remedy)
        if bias > 0 and layers[name].bias is None:
            raise ArgumentError(f"initial[{name!r}]", f"gives variance {bias:g} to a bias that the layer does not have", "pass 0")
        found[layers[name]] = (weight, bias)
    return found
