"""Limits of convolutional networks, a tile of pairs at a time, by the cheapest way that the module allows.

A stack of ReLU convolutions runs compiled (:mod:`zeroloss.kernels.stack_tiles`); another module that pools keeps all pairs of pixels
in torch; one that does not pool needs none of them, and is left to :mod:`zeroloss.kernels.tiles`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.kernels.blocks import blocks
from zeroloss.kernels.pixels import Canvas, pools
from zeroloss.kernels.recursion import pooled_moments, walk
from zeroloss.kernels.stack_tiles import stack_tiles
from zeroloss.kernels.stacks import stack_of
from zeroloss.kernels.state import State

BUDGET = 2**27  # bytes that the moments of one tile of pixel pairs take, in torch
COPIES = 16  # tensors of that size alive at once

Tiles = Iterator[tuple[slice, slice, Tensor]]


def convolutional_tiles(
    module: nn.Module,
    x1: Float[Tensor, " n1 *shape"],
    x2: Float[Tensor, " n2 *shape"] | None,
    parts: Mapping[nn.Module, int],
    read: Callable[[State], Tensor],
    dtype: torch.dtype = torch.float64,
    initial: Mapping[nn.Module, tuple[float, float]] | None = None,
) -> Tiles | None:
    """The limit of a convolutional module over all pairs of two sets, tile by tile.

    Args:
        module: as for :func:`zeroloss.kernels.recursion.walk`.
        x1: n1×c×h×w images or n1×c×w sequences, float64.
        x2: n2 of the same, or None for the first set with itself: then only tiles on and above the diagonal are made, and those on it
            are symmetric with an exact diagonal.
        parts: as for :func:`zeroloss.kernels.recursion.walk`.
        read: what to take from a state, pairs last.
        dtype: float32 for sums in single precision where the module is a stack of ReLU convolutions.
        initial: as for :func:`zeroloss.kernels.recursion.walk`.

    Returns:
        Rows, columns, and what was read of their pairs; or None where :func:`zeroloss.kernels.tiles.tiles` serves as well.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))
        >>> x = torch.ones(3, 2, 4, 4, dtype=torch.float64)
        >>> [(rows.stop, columns.stop) for rows, columns, _ in convolutional_tiles(net, x, None, {}, lambda s: s.pairs.products)]
        [(3, 3)]
    """
    if x1.ndim == 3:
        x1, x2 = x1.unsqueeze(2), None if x2 is None else x2.unsqueeze(2)
    if x1.ndim != 4:
        return None
    stack = stack_of(module, x1.shape[1:], initial) if x1.device.type == "cpu" else None
    if stack is not None:
        return stack_tiles(stack, x1, x2, parts, read, dtype if dtype == torch.float32 else torch.float64, initial)
    return _pixel_tiles(module, x1, x2, parts, read, initial) if pools(module) else None


def _pixel_tiles(
    module: nn.Module,
    x1: Tensor,
    x2: Tensor | None,
    parts: Mapping[nn.Module, int],
    read: Callable[[State], Tensor],
    initial: Mapping[nn.Module, tuple[float, float]] | None,
) -> Tiles:
    """Any module that pools, with all pairs of pixels in torch."""
    size = x1.shape[2:]
    side = max(1, math.isqrt(BUDGET // (8 * (COPIES + max(parts.values(), default=-1) + 1))) // size.numel())
    one_tile = x2 is None and len(x1) <= side
    first = {} if one_tile else pooled_moments(module, x1, initial)
    second, other = (first, x1) if x2 is None else (pooled_moments(module, x2, initial), x2)
    for rows, columns in blocks(len(x1), None if x2 is None else len(x2), side):
        if x2 is None and rows == columns:
            tile = read(walk(module, x1[rows], None, parts, initial=initial))
            yield rows, columns, (tile + tile.mT) / 2
        else:
            known = ({name: m[at] for name, m in moments.items()} for moments, at in ((first, rows), (second, columns)))
            yield rows, columns, read(walk(module, x1[rows], other[columns], parts, initial=initial, canvas=Canvas(size, *known)))
