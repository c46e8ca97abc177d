"""Convolutional residual networks (DU section 3.1, Theorem 7.1)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from zeroloss.networks.activations import Activation
from zeroloss.networks.architecture import Architecture, Network, train_only
from zeroloss.networks.arguments import Draw, c_res_of, draw_of, image_of, refuse_for, same_widths, tau_of, widths_of
from zeroloss.networks.layers import Residual, Scale


def conv_resnet(
    inputs: Sequence[int],
    width: int | Sequence[int],
    depth: int,
    outputs: int = 1,
    *,
    activation: str | Activation = "relu",
    scheme: str = "du",
    kernel: int | Sequence[int] = 3,
    padding: str = "zeros",
    c_res: float | None = None,
    tau: float | str | None = None,
    trained: str | Iterable[str] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Network:
    r"""A convolutional residual network without pooling.

    DU (section 3.1): $x^{(1)}=\sqrt{c_\sigma/m}\,\sigma(W^{(1)}\phi_1(x))$,
    $x^{(h)}=x^{(h-1)}+\frac{c_{res}}{H\sqrt m}\sigma(W^{(h)}\phi_h(x^{(h-1)}))$ for $h=2..H$, $f=\langle a,x^{(H)}\rangle$ with
    one weight a channel and pixel, every weight $N(0,1)$, all trained; $\phi_h$ takes the patch of $q$ pixels around each pixel.
    AZ name no such network; ``scheme="allen-zhu"`` joins their Theorems 6 and 7: $h_0=\phi(A*x)$, $h_l=\phi(h_{l-1}+W_l*h_{l-1})$ for
    $l<L$ with variance $2\tau^2/(qm)$, then fully connected $h_L=\phi(W_Lh_{L-1})$ and $f=Bh_L$; only the $W$ are trained.

    Args:
        inputs: (c, h, w) of one image.
        width: m, the channels of every hidden layer, or one number a layer (H for DU; L+1 for AZ, A's first, W_L's units last); layers
            along the skips must be equal.
        depth: H for DU, L for AZ.
        outputs: k.
        activation: a name in :data:`zeroloss.networks.ACTIVATIONS`, or an ``Activation`` of your own.
        scheme: ``"du"`` or ``"allen-zhu"``.
        kernel: side of the patches, or (height, width); odd.
        padding: ``"zeros"`` or ``"circular"``.
        c_res: DU: $0 < c_{res} < 1$; None for 0.9.
        tau: AZ's residual scale, as for :func:`resnet`.
        trained: names of the layers to train (W1, ..., a; A, W1, ..., B), ``"all"``, or None for what the scheme says.
        seed: of the draw; the same for every dtype.
        dtype: of the weights.

    Returns:
        The module, mapping n×c×h×w images to n×k outputs.

    Raises:
        ArgumentError: for a size below 1, an even kernel, unequal widths along a skip, a constant out of range, or an unknown name.

    Example:
        >>> net = conv_resnet((3, 8, 8), 16, 3, activation="erf")
        >>> net(torch.ones(5, 3, 8, 8, dtype=torch.float64)).shape
        torch.Size([5, 1])
    """
    image, sides = image_of(inputs, kernel, padding)
    draw = draw_of(image, depth, outputs, activation, scheme, seed, dtype)
    if scheme == "allen-zhu":
        refuse_for(scheme, c_res=c_res)
        widths = widths_of(width, depth + 1, "L+1 = depth + 1")
        share, constant = tau_of("1/L" if tau is None else tau, depth, same_widths(widths[:-1])), 0.0
        layers = _allen_zhu(draw, image, widths, outputs, sides, padding, share)
    else:
        refuse_for(scheme, tau=tau)
        widths = widths_of(width, depth, "H = depth")
        share, constant = 0.0, c_res_of(c_res)
        layers = _du(draw, image, (same_widths(widths), depth), outputs, sides, padding, constant)
    made = Architecture(
        "conv_resnet",
        scheme,
        image,
        widths,
        depth,
        outputs,
        draw.sigma.name,
        c_res=constant,
        tau=share,
        block=1,
        last_plain=scheme == "allen-zhu",
        kernel=sides,
        padding=padding,
    )
    network = Network(layers, made)
    train_only(network, trained)
    return network


def _du(
    draw: Draw,
    image: tuple[int, int, int],
    size: tuple[int, int],
    outputs: int,
    sides: tuple[int, int],
    padding: str,
    c_res: float,
) -> OrderedDict[str, nn.Module]:
    m, depth = size
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["W1"] = draw.conv(image[0], m, 1.0, sides, padding)
    layers["sigma1"] = draw.sigma.module()
    layers["scale1"] = Scale(math.sqrt(draw.c_sigma / m))
    for h in range(2, depth + 1):
        branch: OrderedDict[str, nn.Module] = OrderedDict()
        branch[f"W{h}"] = draw.conv(m, m, 1.0, sides, padding)
        branch[f"sigma{h}"] = draw.sigma.module()
        branch[f"scale{h}"] = Scale(c_res / (depth * math.sqrt(m)))
        layers[f"block{h}"] = Residual(branch)
    layers["flatten"] = nn.Flatten()
    layers["a"] = draw.linear(m * image[1] * image[2], outputs, 1.0)
    return layers


def _allen_zhu(
    draw: Draw,
    image: tuple[int, int, int],
    widths: tuple[int, ...],
    outputs: int,
    sides: tuple[int, int],
    padding: str,
    tau: float,
) -> OrderedDict[str, nn.Module]:
    q, m, depth = sides[0] * sides[1], widths[0], len(widths) - 1
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["A"] = draw.conv(image[0], m, draw.c_sigma / (q * m), sides, padding, trained=False)
    layers["phi0"] = draw.sigma.module()
    for index in range(1, depth):
        conv = draw.conv(m, m, draw.c_sigma * tau**2 / (q * m), sides, padding)
        layers[f"block{index}"] = Residual(OrderedDict({f"W{index}": conv}))
        layers[f"phi{index}"] = draw.sigma.module()
    layers["flatten"] = nn.Flatten()
    layers[f"W{depth}"] = draw.linear(m * image[1] * image[2], widths[-1], draw.c_sigma / widths[-1])
    layers[f"phi{depth}"] = draw.sigma.module()
    layers["B"] = draw.linear(widths[-1], outputs, 1 / outputs, trained=False)
    return layers
