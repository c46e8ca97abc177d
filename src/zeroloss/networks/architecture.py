"""What a builder was asked for, and the module that carries it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.networks.layers import GaussianConv2d, GaussianLinear

SCHEMES = ("allen-zhu", "du")


@dataclass(frozen=True)
class Architecture:
    r"""What a builder was asked for; a network carries it so that kernels, claims and reports need not guess.

    Args:
        family: ``"fully_connected"``, ``"resnet"``, ``"cnn"`` or ``"conv_resnet"``.
        scheme: ``"allen-zhu"`` or ``"du"``.
        inputs: d, the number of input features, or (c, h, w) of an image.
        widths: m of every hidden layer, first to last (AZ's first belongs to A); channels where a layer is convolutional.
        depth: AZ's L (trained hidden layers beside A) or DU's H (hidden layers).
        outputs: k.
        activation: its name.
        c_res: DU's residual constant, 0 where there is none.
        tau: AZ's residual scale $\tau$, 0 where there is none.
        block: how many matrices a residual block has; 0 where there is none.
        last_plain: whether AZ's last hidden layer has no skip.
        kernel: height and width of a patch; (0, 0) where no layer is convolutional.
        padding: ``"zeros"``, ``"circular"``, or empty.
    """

    family: str
    scheme: str
    inputs: int | tuple[int, int, int]
    widths: tuple[int, ...]
    depth: int
    outputs: int
    activation: str
    c_res: float = 0.0
    tau: float = 0.0
    block: int = 0
    last_plain: bool = False
    kernel: tuple[int, int] = (0, 0)
    padding: str = ""

    @property
    def width(self) -> int:
        """The narrowest hidden layer's width, which is the one that theorems bound."""
        return min(self.widths)

    @property
    def images(self) -> bool:
        """Whether the network takes images (n×c×h×w) rather than rows."""
        return not isinstance(self.inputs, int)

    @property
    def patch(self) -> int:
        """q, the points of a patch; 1 where no layer is convolutional."""
        return max(1, self.kernel[0] * self.kernel[1])

    @property
    def points(self) -> int:
        """Pixels of an image, 1 for a row: AZ's number of points in a hidden layer."""
        return 1 if isinstance(self.inputs, int) else self.inputs[1] * self.inputs[2]


class Network(nn.Sequential):
    """A sequence of layers that remembers its architecture; otherwise a plain ``nn.Sequential``."""

    architecture: Architecture

    def __init__(self, layers: OrderedDict[str, nn.Module], architecture: Architecture) -> None:
        super().__init__(layers)
        self.architecture = architecture


def weight_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The layers with weights by the papers' names (A, W1, ..., B or a), whatever block they sit in.

    Example:
        >>> from zeroloss.networks import resnet
        >>> list(weight_layers(resnet(2, 4, 2)))
        ['A', 'W1', 'W2', 'B']
    """
    kinds = (GaussianLinear, GaussianConv2d)
    return {name.rpartition(".")[2]: layer for name, layer in network.named_modules() if isinstance(layer, kinds)}


def train_only(network: nn.Module, trained: str | Iterable[str] | None) -> None:
    r"""Freeze every layer but the named ones.

    Args:
        network: a builder's network; changed in place.
        trained: layer names, ``"all"``, or None to keep what the scheme says (AZ: W_1..W_L; DU: all).

    Raises:
        ArgumentError: for a name that the network does not have, or for none at all.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> net = fully_connected(2, 4, 1, trained=("A", "B"))
        >>> [p.requires_grad for p in net.parameters()]
        [True, False, True]
    """
    if trained is None:
        return
    layers = weight_layers(network)
    names = list(layers) if trained == "all" else [trained] if isinstance(trained, str) else list(trained)
    if not names:
        raise ArgumentError("trained", "names no layer", f"name some of {', '.join(layers)}, or pass 'all'")
    for name in names:
        if name not in layers:
            raise unknown_name("trained", name, [*layers, "all"])
    for name, layer in layers.items():
        layer.requires_grad_(name in names)
