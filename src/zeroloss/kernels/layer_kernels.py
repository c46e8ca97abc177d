"""The tangent kernel's share of every trained layer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.kernels.initial import Initial, resolve
from zeroloss.kernels.inputs import check_inputs
from zeroloss.kernels.structure import check_module, layers_of
from zeroloss.kernels.tile_stream import tile_stream
from zeroloss.typing import Inputs


def layer_kernels(
    module: nn.Module, x: Inputs, seed: int = 0, particles: int | None = None, initial: Initial | None = None
) -> dict[str, Float[Tensor, "n n"]]:
    r"""The tangent kernel's share of every trained layer ($G^{(h)}_\infty$; they sum to the NTK).

    Args:
        module: as for :func:`limit_kernel`.
        x: n×d rows, or n×c×h×w images.
        seed: of the particles, as for :func:`limit_kernel`.
        particles: how many in all, likewise.
        initial: variances of weights drawn anew, likewise.

    Returns:
        Layer name to n×n kernel, first layer first.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> parts = layer_kernels(fully_connected(2, 8, 2, scheme="du"), torch.eye(2, dtype=torch.float64))
        >>> list(parts), round(float(sum(parts.values())[0, 0]), 12)
        (['W1', 'W2', 'a'], 3.0)
    """
    check_module(module)
    layers = trained_layers(module)
    inputs = check_inputs("x", x, module).detach().to(torch.float64)
    result = inputs.new_empty(len(layers), len(inputs), len(inputs))
    parts: dict[nn.Module, int] = {layer: index for index, (_, layer) in enumerate(layers)}
    for rows, columns, tile in tile_stream(
        module, inputs, None, parts, lambda state: state.tangent, seed, particles, resolve(module, initial)
    ):
        result[:, columns, rows] = tile.mT
        result[:, rows, columns] = tile
    return {name: result[index] for index, (name, _) in enumerate(layers)}


def trained_layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The linear layers, convolutions and normalising layers that gradient descent moves, with their names, in the order of the module."""
    return [(name, layer) for name, layer in layers_of(module) if any(p.requires_grad for p in layer.parameters())]
