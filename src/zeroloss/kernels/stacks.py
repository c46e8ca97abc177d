"""Modules that compiled code can take: ReLU convolutions one after another, then global average pooling or not, and Flatten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.kernels.initial import bias_variance, weight_variance
from zeroloss.kernels.patches import Patches, patches_of
from zeroloss.kernels.pixels import AVERAGES, averages_of
from zeroloss.kernels.structure import children_of, refuse_own_forward
from zeroloss.networks import Scale


@dataclass(frozen=True, eq=False)
class Stage:
    r"""A convolution and the ReLU after it: $K = c\,(v\,m\,P + b)$, $S = \tfrac12c'\sqrt{K_{ll}K_{rr}}\,\kappa_1$.

    Args:
        layer: the convolution.
        patches: of odd size, stride 1, with as much beside the image as keeps its size; all zeros or all circular in one stack.
        drawn: the variances of its weights and of its bias.
        before: c, the square of the factors between the two.
        after: c', the square of those after ReLU.
    """

    layer: nn.Conv1d | nn.Conv2d
    patches: Patches
    drawn: tuple[float, float]
    before: float = 1.0
    after: float = 1.0

    @property
    def gain(self) -> float:
        r"""Weight variance times channels, $v\,m$."""
        return self.drawn[0] * self.layer.in_channels

    @property
    def bias(self) -> float:
        """The variance of the bias, b."""
        return 0.0 if self.layer.bias is None else self.drawn[1]

    def trained(self, parts: Mapping[nn.Module, int], part: int) -> tuple[bool, bool]:
        """Whether the weights and the bias add to that slice of the tangent kernel."""
        here, bias = parts.get(self.layer) == part, self.layer.bias
        return here and self.layer.weight.requires_grad, here and bias is not None and bias.requires_grad

    def variances(self, moments: Float[Tensor, "*n h w"]) -> Float[Tensor, "*n h w"]:
        """Of the pre-activations, from the second moments before."""
        return self.before * (self.gain * self.patches.sums(moments) + self.bias)


@dataclass(frozen=True, eq=False)
class Stack:
    """Such a module.

    Args:
        stages: at least one.
        pooled: whether all pixels are averaged before Flatten.
        head: the layers after Flatten with their names.
    """

    stages: tuple[Stage, ...]
    pooled: bool
    head: tuple[tuple[str, nn.Module], ...]

    @property
    def channels(self) -> int:
        """After the last convolution."""
        return self.stages[-1].layer.out_channels


def stack_of(
    module: nn.Module, shape: torch.Size, initial: Mapping[nn.Module, tuple[float, float]] | None = None
) -> Stack | None:
    """Read a module as a stack.

    Args:
        module: any.
        shape: channels, height and width of its inputs.
        initial: variances of weights and bias that were given.

    Returns:
        The stack, or None where the module is something else, or something that is no module for such images.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))
        >>> found = stack_of(net, torch.Size((3, 4, 5)))
        >>> found.pooled, [name for name, _ in found.head]
        (True, ['4'])
        >>> stack_of(net[:2], torch.Size((3, 4, 5))) is None
        True
    """
    layers = [(name, layer) for name, layer in _leaves(module, "") if not isinstance(layer, nn.Identity)]
    stages: list[Stage] = []
    active = True  # whether the last convolution has had its ReLU
    pooled, channels, size = False, shape[0], torch.Size(shape[1:])
    for index, (name, layer) in enumerate(layers):
        if isinstance(layer, nn.Conv1d | nn.Conv2d) and active and not pooled:
            patches = _keeping(layer, name, channels, size)
            if patches is None:
                return None
            drawn = (initial or {}).get(layer) or (weight_variance(layer), bias_variance(layer))
            stages.append(Stage(layer, patches, drawn))
            channels, active = layer.out_channels, False
        elif not stages:
            return None
        elif isinstance(layer, Scale) and not pooled:
            last, square = stages[-1], layer.factor**2
            stages[-1] = replace(last, after=last.after * square) if active else replace(last, before=last.before * square)
        elif type(layer) is nn.ReLU and not active:
            active = True
        elif isinstance(layer, AVERAGES) and active and not pooled:
            if not _averages_all(layer, size, name):
                return None
            pooled = True
        elif isinstance(layer, nn.Flatten) and active and (layer.start_dim, layer.end_dim) == (1, -1):
            usable = all(stage.before * stage.after * stage.gain > 0 for stage in stages)
            usable = usable and len({stage.patches.circular for stage in stages}) == 1
            return Stack(tuple(stages), pooled, tuple(layers[index + 1 :])) if usable else None
        else:
            return None
    return None


def _leaves(module: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """The layers of nested plain sequences, in their order."""
    if type(module).forward is not nn.Sequential.forward:
        return [(name, module)]
    nested = (_leaves(layer, f"{name}.{child}" if name else child) for child, layer in children_of(module))
    return [leaf for leaves in nested for leaf in leaves]


def _keeping(layer: nn.Conv1d | nn.Conv2d, name: str, channels: int, size: torch.Size) -> Patches | None:
    """The patches of a convolution that keeps the image's size, None for another."""
    refuse_own_forward(layer, name)
    patches = patches_of(layer, name)
    around = tuple(length // 2 for length in patches.kernel)
    odd = all(length % 2 for length in patches.kernel)
    same = patches.stride == (1, 1) and patches.before == patches.after == around
    flat = isinstance(layer, nn.Conv2d) or size[0] == 1
    fits = not patches.circular or all(reach <= length for reach, length in zip(around, size, strict=True))
    return patches if odd and same and flat and fits and layer.in_channels == channels else None


def _averages_all(layer: nn.Module, size: torch.Size, name: str) -> bool:
    refuse_own_forward(layer, name)
    weights, after = averages_of(layer, size, name)
    return after.numel() == 1 and torch.allclose(weights, torch.full_like(weights, 1 / size.numel()), rtol=1e-14, atol=0)
