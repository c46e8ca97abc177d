"""Large sets of inputs, a square tile of pairs at a time, so that memory stays bounded and half of a symmetric kernel is enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.kernels.blocks import blocks
from zeroloss.kernels.homogeneity import is_homogeneous
from zeroloss.kernels.preparation import survey
from zeroloss.kernels.recursion import walk
from zeroloss.kernels.state import State

BUDGET = 2**26  # bytes that the moments of one tile take: some of it stays in cache, and a layer's overhead is still small
COPIES = 16  # tensors of a tile's size alive at once, at the worst moment of a layer


def tiles(
    module: nn.Module,
    x1: Float[Tensor, " n1 *shape"],
    x2: Float[Tensor, " n2 *shape"] | None,
    parts: Mapping[nn.Module, int],
    read: Callable[[State], Tensor],
    initial: Mapping[nn.Module, tuple[float, float]] | None = None,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """The limit of a module over all pairs of two sets, tile by tile.

    Args:
        module: as for :func:`zeroloss.kernels.recursion.walk`.
        x1: n1×d rows or n1×c×h×w images, float64.
        x2: n2 of the same, or None for the first set with itself: then only tiles on and above the diagonal are made, and those on
            it are symmetric with an exact diagonal.
        parts: as for :func:`zeroloss.kernels.recursion.walk`.
        read: what to take from a state, pairs last.
        initial: as for :func:`zeroloss.kernels.recursion.walk`.

    Returns:
        Rows, columns, and what was read of their pairs.

    Example:
        >>> import torch
        >>> x = torch.eye(3, dtype=torch.float64)
        >>> [(rows.stop, columns.stop) for rows, columns, _ in tiles(nn.Linear(3, 1), x, None, {}, lambda s: s.pairs.products)]
        [(3, 3)]
    """
    side = _side(x1.shape[2:].numel(), max(parts.values(), default=-1) + 1)
    if is_homogeneous(module, initial or {}):
        # on the sphere nothing cancels between rows of one direction and two norms
        x1, norms1 = _sphere(x1)
        other, norms2 = (x1, norms1) if x2 is None else _sphere(x2)
    else:
        other, norms1, norms2 = (x1 if x2 is None else x2), None, None
    for rows, columns in blocks(len(x1), None if x2 is None else len(other), side):
        if x2 is None and rows == columns:
            tile = read(walk(module, x1[rows], None, parts, initial=initial))
            tile = (tile + tile.mT) / 2  # sums over pixels may round (i, j) and (j, i) differently
        else:
            tile = read(walk(module, x1[rows], other[columns], parts, initial=initial))
        if norms1 is not None and norms2 is not None:
            tile = tile * (norms1[rows, None] * norms2[columns])
        yield rows, columns, tile


def _sphere(x: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs of norm 1 (those of norm 0 stay) and the norms that they had."""
    norms = survey(x.flatten(1).contiguous())[0]
    return x / torch.where(norms > 0, norms, torch.ones_like(norms)).reshape(-1, *[1] * (x.ndim - 1)), norms


def _side(pixels: int, parts: int) -> int:
    return max(1, math.isqrt(BUDGET // (8 * pixels * (COPIES + parts))))
