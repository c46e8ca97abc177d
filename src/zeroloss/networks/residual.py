"""Residual networks (AZ Theorem 7, DU section 3.1)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from zeroloss.errors import ArgumentError
from zeroloss.networks.activations import Activation
from zeroloss.networks.architecture import Architecture, Network, train_only
from zeroloss.networks.arguments import Draw, c_res_of, draw_of, features_of, refuse_for, same_widths, tau_of, widths_of
from zeroloss.networks.layers import Residual, Scale


def resnet(
    inputs: int,
    width: int | Sequence[int],
    depth: int,
    outputs: int = 1,
    *,
    activation: str | Activation = "relu",
    scheme: str = "allen-zhu",
    tau: float | str | None = None,
    block: int | None = None,
    last_plain: bool | None = None,
    c_res: float | None = None,
    trained: str | Iterable[str] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Network:
    r"""A residual network, initialised as one of the papers says.

    AZ (Theorem 7): $h_0=\phi(Ax)$, $h_l=\phi(h_{l-1}+W_lh_{l-1})$, $f=Bh_L$; blocks of two and three matrices are
    $\phi(h+W_{l,2}\phi(W_{l,1}h))$ and $\phi(h+W_{l,3}\phi(W_{l,2}\phi(W_{l,1}h)))$. Variances: $2/m$ for $A$ and the inner
    matrices, $2\tau^2/m$ for a block's last one, $1/k$ for $B$ (THEORY 1.10; $c_\sigma$ for 2 with another activation).
    $(1+\tau^2)^L \le \mathbb{E}\|h_L\|^2/\|h_0\|^2 \le (1+2\tau^2)^L$. Only the $W$ are trained.
    With an activation that is not positively homogeneous (any but relu, leaky_relu and abs) AZ's scheme keeps no norms: its
    pre-activations have size $m^{-1/2}$, where $c_\sigma$ of a unit Gaussian says little.
    DU (section 3.1): $x^{(1)}=\sqrt{c_\sigma/m}\,\sigma(W^{(1)}x)$,
    $x^{(h)}=x^{(h-1)}+\frac{c_{res}}{H\sqrt m}\sigma(W^{(h)}x^{(h-1)})$ for $h=2..H$, $f=a^\top x^{(H)}$, every weight
    $N(0,1)$, all trained.

    Args:
        inputs: d, features of one input row.
        width: m, or one width a layer (L+1 for AZ, A's first; H for DU); layers along the skips must be equal, so only AZ's last
            plain layer may differ.
        depth: L for AZ (the last plain layer included, where there is one), H for DU.
        outputs: k.
        activation: a name in :data:`zeroloss.networks.ACTIVATIONS`, or an ``Activation`` of your own.
        scheme: ``"allen-zhu"`` or ``"du"``.
        tau: AZ's residual scale: ``"1/L"``, ``"1/(L log m)"``, ``"1/sqrt(L)"``, ``"1"`` or a number; None for ``"1/L"``.
        block: AZ: how many matrices a block has, 1 (None), 2 or 3.
        last_plain: AZ: whether the last hidden layer is $\phi(W_Lh_{L-1})$, variance $2/m$, without a skip.
        c_res: DU: $0 < c_{res} < 1$; None for 0.9.
        trained: names of the layers to train (A, W1 or W1_1, ..., B or a), ``"all"``, or None for what the scheme says.
        seed: of the draw; the same for every dtype.
        dtype: of the weights.

    Returns:
        The module, mapping n×d rows to n×k outputs.

    Raises:
        ArgumentError: for a size below 1, unequal widths along a skip, a constant out of range, or an unknown name.

    Example:
        >>> resnet(4, 8, 3, scheme="du", activation="gelu")(torch.ones(2, 4, dtype=torch.float64)).shape
        torch.Size([2, 1])
        >>> print(*(name for name, _ in resnet(4, 8, 2, block=2, last_plain=True).named_parameters()))
        A.weight block1.W1_1.weight block1.W1_2.weight W2.weight B.weight
    """
    draw = draw_of(features_of(inputs), depth, outputs, activation, scheme, seed, dtype)
    if scheme == "allen-zhu":
        refuse_for(scheme, c_res=c_res)
        widths = widths_of(width, depth + 1, "L+1 = depth + 1")
        share = "1/L" if tau is None else tau
        network = _allen_zhu(draw, inputs, widths, outputs, share, 1 if block is None else block, bool(last_plain))
    else:
        refuse_for(scheme, tau=tau, block=block, last_plain=last_plain)
        network = _du(draw, inputs, widths_of(width, depth, "H = depth"), outputs, c_res_of(c_res))
    train_only(network, trained)
    return network


def _allen_zhu(
    draw: Draw, inputs: int, widths: tuple[int, ...], outputs: int, tau: float | str, block: int, last_plain: bool
) -> Network:
    depth, c = len(widths) - 1, draw.c_sigma
    m = same_widths(widths[:-1] if last_plain else widths)
    share = tau_of(tau, depth, m)
    if block not in (1, 2, 3):
        raise ArgumentError("block", f"is {block!r}", "pass 1, 2 or 3 matrices")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["A"] = draw.linear(inputs, m, c / m, trained=False)
    layers["phi0"] = draw.sigma.module()
    for index in range(1, depth + 1):
        if last_plain and index == depth:
            layers[f"W{index}"] = draw.linear(m, widths[-1], c / widths[-1])
        else:
            branch: OrderedDict[str, nn.Module] = OrderedDict()
            for matrix in range(1, block + 1):
                name = f"W{index}" if block == 1 else f"W{index}_{matrix}"
                last = matrix == block
                branch[name] = draw.linear(m, m, c / m * (share**2 if last else 1.0))
                if not last:
                    branch[f"phi{index}_{matrix}"] = draw.sigma.module()
            layers[f"block{index}"] = Residual(branch)
        layers[f"phi{index}"] = draw.sigma.module()
    layers["B"] = draw.linear(widths[-1], outputs, 1 / outputs, trained=False)
    made = Architecture(
        "resnet", "allen-zhu", inputs, widths, depth, outputs, draw.sigma.name, tau=share, block=block, last_plain=last_plain
    )
    return Network(layers, made)


def _du(draw: Draw, inputs: int, widths: tuple[int, ...], outputs: int, c_res: float) -> Network:
    depth, m = len(widths), same_widths(widths)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["W1"] = draw.linear(inputs, m, 1.0)
    layers["sigma1"] = draw.sigma.module()
    layers["scale1"] = Scale(math.sqrt(draw.c_sigma / m))
    for h in range(2, depth + 1):
        branch: OrderedDict[str, nn.Module] = OrderedDict()
        branch[f"W{h}"] = draw.linear(m, m, 1.0)
        branch[f"sigma{h}"] = draw.sigma.module()
        branch[f"scale{h}"] = Scale(c_res / (depth * math.sqrt(m)))
        layers[f"block{h}"] = Residual(branch)
    layers["a"] = draw.linear(m, outputs, 1.0)
    made = Architecture("resnet", "du", inputs, widths, depth, outputs, draw.sigma.name, c_res=c_res, block=1)
    return Network(layers, made)
