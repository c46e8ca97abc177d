"""A kernel tile by tile, by whichever way the module allows: compiled stacks, the recursion, or the mean of sampled walks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.kernels.convolution import convolutional_tiles
from zeroloss.kernels.replicates import REPLICATES, needs_particles, replicates
from zeroloss.kernels.state import State
from zeroloss.kernels.tiles import tiles


def tile_stream(
    module: nn.Module,
    first: Tensor,
    second: Tensor | None,
    parts: Mapping[nn.Module, int],
    read: Callable[[State], Tensor],
    seed: int,
    particles: int | None,
    initial: Mapping[nn.Module, tuple[float, float]],
    dtype: torch.dtype = torch.float64,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """The kernel tile by tile; in one piece, the mean of the replicates, where it is sampled.

    Args:
        module: as for :func:`zeroloss.kernels.recursion.walk`.
        first: n1 inputs, float64.
        second: n2 inputs, or None for the first with itself.
        parts: as for :func:`zeroloss.kernels.recursion.walk`.
        read: what to take from a state.
        seed: of the particles.
        particles: how many.
        initial: variances of weights and bias that were given.
        dtype: float32 for sums in single precision where there is a way to take them.

    Yields:
        Rows, columns, and what was read of their pairs.

    Raises:
        ArgumentError: where it overflows.
    """
    if not needs_particles(module):
        found = convolutional_tiles(module, first, second, parts, read, dtype, initial)
        for rows, columns, tile in tiles(module, first, second, parts, read, initial) if found is None else found:
            refuse_overflow(tile)
            yield rows, columns, tile
        return
    total: Tensor | None = None
    for state in replicates(module, first, second, parts, seed, particles, initial):
        value = read(state)
        total = value if total is None else total.add_(value)
    assert total is not None
    refuse_overflow(total)
    yield slice(0, total.shape[-2]), slice(0, total.shape[-1]), total / REPLICATES


def refuse_overflow(tile: Tensor, dtype: torch.dtype = torch.float64) -> None:
    """Refuse a tile that the dtype cannot hold.

    Raises:
        ArgumentError: where it has NaN, infinity, or a number beyond the dtype's largest.
    """
    if not bool((tile.abs() <= torch.finfo(dtype).max).all()):
        raise ArgumentError("x", "is so large that its kernel overflows", "divide the inputs by a number, or pass float64")
