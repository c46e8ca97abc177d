"""Large sets of inputs, a square tile of pairs at a time, so that memory stays bounded and half of a symmetric kernel is enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from jaxtyping import Float
from torch import Tensor, nn

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
    other = x1 if x2 is None else x2
    for top in range(0, len(x1), side):
        rows = slice(top, min(top + side, len(x1)))
        for left in range(top if x2 is None else 0, len(other), side):
            columns = slice(left, min(left + side, len(other)))
            if x2 is None and left == top:
                tile = read(walk(module, x1[rows], None, parts, initial=initial))
                yield rows, columns, (tile + tile.mT) / 2  # sums over pixels may round (i, j) and (j, i) differently
            else:
                yield rows, columns, read(walk(module, x1[rows], other[columns], parts, initial=initial))


def _side(pixels: int, parts: int) -> int:
    return max(1, math.isqrt(BUDGET // (8 * pixels * (COPIES + parts))))
