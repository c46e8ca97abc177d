"""The papers' networks as plain modules, drawn from the papers' initial distributions (AZ section 2, DU section 3.1)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import nn

from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.networks.activations import Activation, c_sigma, find_activation
from zeroloss.networks.layers import GaussianLinear, Residual, Scale

SCHEMES = ("allen-zhu", "du")


@dataclass(frozen=True)
class Architecture:
    """What a builder was asked for; a network carries it so that kernels, claims and reports need not guess.

    Args:
        family: ``"fully_connected"`` or ``"resnet"``.
        scheme: ``"allen-zhu"`` or ``"du"``.
        inputs: d, the number of input features.
        widths: m of every hidden layer, first to last (AZ's first belongs to A).
        depth: AZ's L (trained hidden layers beside A) or DU's H (hidden layers).
        outputs: k.
        activation: its name.
        c_res: DU's residual constant, 0 where there is none.
    """

    family: str
    scheme: str
    inputs: int
    widths: tuple[int, ...]
    depth: int
    outputs: int
    activation: str
    c_res: float = 0.0

    @property
    def width(self) -> int:
        """The narrowest hidden layer's width, which is the one that theorems bound."""
        return min(self.widths)


class Network(nn.Sequential):
    """A sequence of layers that remembers its architecture; otherwise a plain ``nn.Sequential``."""

    architecture: Architecture

    def __init__(self, layers: OrderedDict[str, nn.Module], architecture: Architecture) -> None:
        super().__init__(layers)
        self.architecture = architecture


def fully_connected(
    inputs: int,
    width: int | Sequence[int],
    depth: int,
    outputs: int = 1,
    *,
    activation: str = "relu",
    scheme: str = "allen-zhu",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Network:
    r"""A fully connected network, initialised as one of the papers says.

    AZ (section 2): $h_0=\phi(Ax)$, $h_l=\phi(W_lh_{l-1})$ for $l=1..L$, $f=Bh_L$, with variances $2/m_l$ for $A$ and
    $W_l$ (fan-out; $c_\sigma/m_l$ for another activation) and $1/k$ for $B$; only $W_1..W_L$ are trained.
    DU (section 3.1): $x^{(h)}=\sqrt{c_\sigma/m_h}\,\sigma(W^{(h)}x^{(h-1)})$ for $h=1..H$, $f=a^\top x^{(H)}$, every weight
    $N(0,1)$, all trained.

    Args:
        inputs: d, features of one input row.
        width: m, or one width a layer: L+1 of them for AZ (A's first), H for DU.
        depth: L for AZ (so L+1 hidden layers), H for DU.
        outputs: k.
        activation: relu, softplus, tanh, erf or gelu.
        scheme: ``"allen-zhu"`` or ``"du"``.
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
    sigma = _checked(inputs, depth, outputs, activation, scheme, seed, dtype)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    generator = torch.Generator().manual_seed(seed)
    if scheme == "allen-zhu":
        widths = _widths(width, depth + 1, "L+1 = depth + 1")
        for index, (fan_in, m) in enumerate(zip((inputs, *widths), widths, strict=False)):
            name = "A" if index == 0 else f"W{index}"
            variance = c_sigma(sigma) / m
            layers[name] = GaussianLinear(fan_in, m, variance=variance, generator=generator, trained=index > 0, dtype=dtype)
            layers[f"phi{index}"] = sigma.module()
        layers["B"] = GaussianLinear(widths[-1], outputs, variance=1 / outputs, generator=generator, trained=False, dtype=dtype)
    else:
        widths = _widths(width, depth, "H = depth")
        for index, (fan_in, m) in enumerate(zip((inputs, *widths), widths, strict=False), start=1):
            layers[f"W{index}"] = GaussianLinear(fan_in, m, variance=1.0, generator=generator, dtype=dtype)
            layers[f"sigma{index}"] = sigma.module()
            layers[f"scale{index}"] = Scale(math.sqrt(c_sigma(sigma) / m))
        layers["a"] = GaussianLinear(widths[-1], outputs, variance=1.0, generator=generator, dtype=dtype)
    return Network(layers, Architecture("fully_connected", scheme, inputs, widths, depth, outputs, activation))


def resnet(
    inputs: int,
    width: int | Sequence[int],
    depth: int,
    outputs: int = 1,
    *,
    activation: str = "relu",
    scheme: str = "du",
    c_res: float = 0.9,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Network:
    r"""DU's residual network (section 3.1), all layers trained, every weight $N(0,1)$.

    $x^{(1)}=\sqrt{c_\sigma/m}\,\sigma(W^{(1)}x)$, $x^{(h)}=x^{(h-1)}+\frac{c_{res}}{H\sqrt m}\sigma(W^{(h)}x^{(h-1)})$ for
    $h=2..H$, $f=a^\top x^{(H)}$.

    Args:
        inputs: d, features of one input row.
        width: m, the same for every layer, since the skip adds layers to each other.
        depth: H.
        outputs: k.
        activation: relu, softplus, tanh, erf or gelu.
        scheme: ``"du"``.
        c_res: $0 < c_{res} < 1$.
        seed: of the draw.
        dtype: of the weights.

    Returns:
        The module, mapping n×d rows to n×k outputs.

    Raises:
        ArgumentError: for a size below 1, unequal widths, $c_{res}$ outside (0, 1), or an unknown name.

    Example:
        >>> resnet(4, 8, 3, activation="gelu")(torch.ones(2, 4, dtype=torch.float64)).shape
        torch.Size([2, 1])
    """
    sigma = _checked(inputs, depth, outputs, activation, scheme, seed, dtype)
    if scheme != "du":
        raise ArgumentError("scheme", f"is {scheme!r}, but residual networks are built in DU's form", "pass scheme='du'")
    if not (isinstance(c_res, int | float) and 0 < c_res < 1):
        raise ArgumentError("c_res", f"is {c_res!r}", "pass a number strictly between 0 and 1 (DU section 3.1)")
    widths = _widths(width, depth, "H = depth")
    if len(set(widths)) > 1:
        raise ArgumentError("width", f"is {list(widths)}, but a skip adds layers of one width", "pass a single width")
    m = widths[0]
    generator = torch.Generator().manual_seed(seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["W1"] = GaussianLinear(inputs, m, variance=1.0, generator=generator, dtype=dtype)
    layers["sigma1"] = sigma.module()
    layers["scale1"] = Scale(math.sqrt(c_sigma(sigma) / m))
    for h in range(2, depth + 1):
        branch: OrderedDict[str, nn.Module] = OrderedDict()
        branch[f"W{h}"] = GaussianLinear(m, m, variance=1.0, generator=generator, dtype=dtype)
        branch[f"sigma{h}"] = sigma.module()
        branch[f"scale{h}"] = Scale(c_res / (depth * math.sqrt(m)))
        layers[f"block{h}"] = Residual(branch)
    layers["a"] = GaussianLinear(m, outputs, variance=1.0, generator=generator, dtype=dtype)
    return Network(layers, Architecture("resnet", scheme, inputs, widths, depth, outputs, activation, c_res))


def _checked(inputs: int, depth: int, outputs: int, activation: str, scheme: str, seed: int, dtype: torch.dtype) -> Activation:
    if scheme not in SCHEMES:
        raise unknown_name("scheme", scheme, SCHEMES)
    for name, value in (("inputs", inputs), ("depth", depth), ("outputs", outputs)):
        if not _whole(value) or value < 1:
            raise ArgumentError(name, f"is {value!r}", "pass a whole number of at least 1")
    if not _whole(seed) or not 0 <= seed < 2**63:
        raise ArgumentError("seed", f"is {seed!r}", "pass a whole number from 0 to 2^63 - 1")
    if dtype not in (torch.float32, torch.float64):
        raise ArgumentError("dtype", f"is {dtype!r}", "pass torch.float32 or torch.float64")
    return find_activation(activation)


def _widths(width: int | Sequence[int], count: int, meaning: str) -> tuple[int, ...]:
    widths = tuple(width) if isinstance(width, Sequence) else (width,) * count
    if len(widths) != count:
        raise ArgumentError("width", f"has {len(widths)} entries, but {meaning} = {count} are needed", "pass one width a layer")
    if bad := [m for m in widths if not _whole(m) or m < 1]:
        raise ArgumentError("width", f"contains {bad[0]!r}", "pass whole numbers of at least 1")
    return tuple(int(m) for m in widths)


def _whole(value: object) -> bool:
    """Whether a value is a whole number, Python's or numpy's; True and 4.0 are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)
