"""Convolutional networks (AZ Theorem 6)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from zeroloss.errors import unknown_name
from zeroloss.networks.activations import Activation
from zeroloss.networks.architecture import Architecture, Network, train_only
from zeroloss.networks.arguments import Draw, draw_of, image_of, refuse_for, widths_of
from zeroloss.networks.layers import Scale

VARIANCES = ("preserve", "kaiming")


def cnn(
    inputs: Sequence[int],
    width: int | Sequence[int],
    depth: int,
    outputs: int = 1,
    *,
    activation: str | Activation = "relu",
    scheme: str = "allen-zhu",
    kernel: int | Sequence[int] = 3,
    padding: str = "circular",
    variance: str | None = None,
    trained: str | Iterable[str] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Network:
    r"""A convolutional network without pooling; every hidden layer but AZ's last has as many points as the image has pixels.

    AZ (Theorem 6): $h_{0,j}=\phi(Ax_{Q_j})$, $h_{l,j}=\phi(W_lh_{l-1,Q_j})$ for $l<L$, then fully connected
    $h_L=\phi(W_Lh_{L-1})$ and $f=Bh_L$; $Q_j$ are the $q$ points around $j$. Variances that preserve $\|h_l\|$ over all points
    (THEORY 1.10): $2/(qm_l)$ for $A$ and the convolutions, $2/m_L$ for $W_L$, $1/k$ for $B$ ($c_\sigma$ for 2 with another
    activation). This is exact with circular padding; with zeros the points at the border are covered less than q times, and norms
    shrink. Only $W_1..W_L$ are trained.
    With an activation that is not positively homogeneous (any but relu, leaky_relu and abs) AZ's scheme keeps no norms: its
    pre-activations have size $m^{-1/2}$, where $c_\sigma$ of a unit Gaussian says little.
    DU has no convolutional network without skips; ``scheme="du"`` is ours by analogy:
    $x^{(h)}=\sqrt{c_\sigma/(qm_h)}\,\sigma(W^{(h)}\phi_h(x^{(h-1)}))$, $f=\langle a,x^{(H)}\rangle$, every weight $N(0,1)$, all
    trained.

    Args:
        inputs: (c, h, w) of one image.
        width: m, the channels of every hidden layer (AZ's W_L: its units), or one number a layer: L+1 for AZ, H for DU.
        depth: L for AZ, of which L-1 are convolutions and the last is fully connected; H for DU.
        outputs: k.
        activation: a name in :data:`zeroloss.networks.ACTIVATIONS`, or an ``Activation`` of your own.
        scheme: ``"allen-zhu"`` or ``"du"``.
        kernel: side of the patches, or (height, width); odd.
        padding: ``"circular"`` or ``"zeros"``.
        variance: AZ: ``"preserve"`` (None) as above, or ``"kaiming"``, $2/\text{fan-in}$ for every hidden layer.
        trained: names of the layers to train (A, W1, ..., B or a), ``"all"``, or None for what the scheme says.
        seed: of the draw; the same for every dtype.
        dtype: of the weights.

    Returns:
        The module, mapping n×c×h×w images to n×k outputs.

    Raises:
        ArgumentError: for a size below 1, an even kernel, a wrong number of widths, or an unknown name.

    Example:
        >>> net = cnn((3, 8, 8), 16, 2)
        >>> net(torch.ones(5, 3, 8, 8, dtype=torch.float64)).shape
        torch.Size([5, 1])
    """
    image, sides = image_of(inputs, kernel, padding)
    draw = draw_of(image, depth, outputs, activation, scheme, seed, dtype)
    if variance is not None and variance not in VARIANCES:
        raise unknown_name("variance", variance, VARIANCES)
    if scheme == "allen-zhu":
        widths = widths_of(width, depth + 1, "L+1 = depth + 1")
        layers = _allen_zhu(draw, image, widths, outputs, sides, padding, variance or "preserve")
    else:
        refuse_for(scheme, variance=variance)
        widths = widths_of(width, depth, "H = depth")
        layers = _du(draw, image, widths, outputs, sides, padding)
    made = Architecture("cnn", scheme, image, widths, depth, outputs, draw.sigma.name, kernel=sides, padding=padding)
    network = Network(layers, made)
    train_only(network, trained)
    return network


def _allen_zhu(
    draw: Draw,
    image: tuple[int, int, int],
    widths: tuple[int, ...],
    outputs: int,
    sides: tuple[int, int],
    padding: str,
    variance: str,
) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    q, points = sides[0] * sides[1], image[1] * image[2]
    for index, (fan_in, m) in enumerate(zip((image[0], *widths), widths[:-1], strict=False)):
        size = q * (m if variance == "preserve" else fan_in)
        name = "A" if index == 0 else f"W{index}"
        layers[name] = draw.conv(fan_in, m, draw.c_sigma / size, sides, padding, trained=index > 0)
        layers[f"phi{index}"] = draw.sigma.module()
    layers["flatten"] = nn.Flatten()
    last, fan_in = len(widths) - 1, widths[-2] * points
    size = widths[-1] if variance == "preserve" else fan_in
    layers[f"W{last}"] = draw.linear(fan_in, widths[-1], draw.c_sigma / size)
    layers[f"phi{last}"] = draw.sigma.module()
    layers["B"] = draw.linear(widths[-1], outputs, 1 / outputs, trained=False)
    return layers


def _du(
    draw: Draw, image: tuple[int, int, int], widths: tuple[int, ...], outputs: int, sides: tuple[int, int], padding: str
) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    q, points = sides[0] * sides[1], image[1] * image[2]
    for index, (fan_in, m) in enumerate(zip((image[0], *widths), widths, strict=False), start=1):
        layers[f"W{index}"] = draw.conv(fan_in, m, 1.0, sides, padding)
        layers[f"sigma{index}"] = draw.sigma.module()
        layers[f"scale{index}"] = Scale(math.sqrt(draw.c_sigma / (q * m)))
    layers["flatten"] = nn.Flatten()
    layers["a"] = draw.linear(widths[-1] * points, outputs, 1.0)
    return layers
