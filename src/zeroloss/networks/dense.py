"""Fully connected networks (AZ section 2, DU section 3.1)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from zeroloss.networks.activations import Activation
from zeroloss.networks.architecture import Architecture, Network, train_only
from zeroloss.networks.arguments import draw_of, features_of, widths_of
from zeroloss.networks.layers import Scale


def fully_connected(
    inputs: int,
    width: int | Sequence[int],
    depth: int,
    outputs: int = 1,
    *,
    activation: str | Activation = "relu",
    scheme: str = "allen-zhu",
    trained: str | Iterable[str] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Network:
    r"""A fully connected network, initialised as one of the papers says.

    AZ (section 2): $h_0=\phi(Ax)$, $h_l=\phi(W_lh_{l-1})$ for $l=1..L$, $f=Bh_L$, with variances $2/m_l$ for $A$ and
    $W_l$ (fan-out; $c_\sigma/m_l$ for another activation) and $1/k$ for $B$; only $W_1..W_L$ are trained.
    With an activation that is not positively homogeneous (any but relu, leaky_relu and abs) AZ's scheme keeps no norms: its
    pre-activations have size $m^{-1/2}$, where $c_\sigma$ of a unit Gaussian says little.
    DU (section 3.1): $x^{(h)}=\sqrt{c_\sigma/m_h}\,\sigma(W^{(h)}x^{(h-1)})$ for $h=1..H$, $f=a^\top x^{(H)}$, every weight
    $N(0,1)$, all trained.

    Args:
        inputs: d, features of one input row.
        width: m, or one width a layer: L+1 of them for AZ (A's first), H for DU.
        depth: L for AZ (so L+1 hidden layers), H for DU.
        outputs: k.
        activation: a name in :data:`zeroloss.networks.ACTIVATIONS`, or an ``Activation`` of your own.
        scheme: ``"allen-zhu"`` or ``"du"``.
        trained: names of the layers to train (A, W1, ..., B or a), ``"all"``, or None for what the scheme says.
        seed: of the draw; the same for every dtype.
        dtype: of the weights.

    Returns:
        The module, mapping n×d rows to n×k outputs.

    Raises:
        ArgumentError: for a size below 1, a wrong number of widths, or an unknown name.

    Example:
        >>> net = fully_connected(4, 8, 2, scheme="du", activation="erf")
        >>> net(torch.ones(3, 4, dtype=torch.float64)).shape
        torch.Size([3, 1])
    """
    draw = draw_of(features_of(inputs), depth, outputs, activation, scheme, seed, dtype)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if scheme == "allen-zhu":
        widths = widths_of(width, depth + 1, "L+1 = depth + 1")
        for index, (fan_in, m) in enumerate(zip((inputs, *widths), widths, strict=False)):
            layers["A" if index == 0 else f"W{index}"] = draw.linear(fan_in, m, draw.c_sigma / m, trained=index > 0)
            layers[f"phi{index}"] = draw.sigma.module()
        layers["B"] = draw.linear(widths[-1], outputs, 1 / outputs, trained=False)
    else:
        widths = widths_of(width, depth, "H = depth")
        for index, (fan_in, m) in enumerate(zip((inputs, *widths), widths, strict=False), start=1):
            layers[f"W{index}"] = draw.linear(fan_in, m, 1.0)
            layers[f"sigma{index}"] = draw.sigma.module()
            layers[f"scale{index}"] = Scale(math.sqrt(draw.c_sigma / m))
        layers["a"] = draw.linear(widths[-1], outputs, 1.0)
    network = Network(layers, Architecture("fully_connected", scheme, inputs, widths, depth, outputs, draw.sigma.name))
    train_only(network, trained)
    return network
