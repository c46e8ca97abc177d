r"""Limits of convolutional networks, a tile of pairs at a time: compiled where the module is a stack of ReLU convolutions.

The compiled sums work in units in which moments are about 1, so that float32 neither overflows at a large width nor underflows; the
units are powers of the data, known before, and the sums come back in those of the finite Gram.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.kernels.pairs import Pairs, from_half_distances
from zeroloss.kernels.pixels import NOISE, Canvas, pools
from zeroloss.kernels.recursion import State, advance, pooled_moments, walk
from zeroloss.kernels.stacks import Stack, stack_of

BUDGET = 2**27  # bytes that the moments of one tile of pixel pairs take, in torch
COPIES = 16  # tensors of that size alive at once
SIDE = 64  # images of a compiled tile
TINY = {torch.float32: 1e-18, torch.float64: 1e-150}  # stands for a root of 0, so that 0/0 is 0
ROUNDING = {torch.float32: 2.4e-7, torch.float64: 9e-16}  # a correlation this close to 1 is 1
LANES = {torch.float32: 16, torch.float64: 8}

Tiles = Iterator[tuple[slice, slice, Tensor]]


def convolutional_tiles(
    module: nn.Module,
    x1: Float[Tensor, " n1 *shape"],
    x2: Float[Tensor, " n2 *shape"] | None,
    parts: Mapping[nn.Module, int],
    read: Callable[[State], Tensor],
    dtype: torch.dtype = torch.float64,
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
    stack = stack_of(module, x1.shape[1:]) if x1.device.type == "cpu" else None
    if stack is not None and stack.pooled:
        return _compiled_tiles(stack, x1, x2, parts, read, dtype if dtype == torch.float32 else torch.float64)
    return _pixel_tiles(module, x1, x2, parts, read) if pools(module) else None


def blocks(n1: int, n2: int | None, side: int) -> Iterator[tuple[slice, slice]]:
    """Square blocks of pairs, of one set with itself only those on and above the diagonal.

    Example:
        >>> [(rows.start, columns.start) for rows, columns in blocks(3, None, 2)]
        [(0, 0), (0, 2), (2, 2)]
    """
    for top in range(0, n1, side):
        for left in range(top if n2 is None else 0, n1 if n2 is None else n2, side):
            yield slice(top, min(top + side, n1)), slice(left, min(left + side, n1 if n2 is None else n2))


def _pixel_tiles(
    module: nn.Module, x1: Tensor, x2: Tensor | None, parts: Mapping[nn.Module, int], read: Callable[[State], Tensor]
) -> Tiles:
    """Any module that pools, with all pairs of pixels in torch."""
    size = x1.shape[2:]
    side = max(1, math.isqrt(BUDGET // (8 * (COPIES + max(parts.values(), default=-1) + 1))) // size.numel())
    one_tile = x2 is None and len(x1) <= side
    first = {} if one_tile else pooled_moments(module, x1)
    second, other = (first, x1) if x2 is None else (pooled_moments(module, x2), x2)
    for rows, columns in blocks(len(x1), None if x2 is None else len(x2), side):
        if x2 is None and rows == columns:
            tile = read(walk(module, x1[rows], None, parts))
            yield rows, columns, (tile + tile.mT) / 2
        else:
            known = ({name: m[at] for name, m in moments.items()} for moments, at in ((first, rows), (second, columns)))
            yield rows, columns, read(walk(module, x1[rows], other[columns], parts, canvas=Canvas(size, *known)))


@dataclass(frozen=True, eq=False)
class Prepared:
    """Images as the compiled sums take them.

    Args:
        pixels: n×(channels·h·w).
        roots: of the pre-activations' variances, n×(layers·h·w).
        mean: of the coordinate before Flatten, over all pixels, n.
        second: its second moment of one image, n; and its tangent kernel, slice by slice, p×n. Empty until they are known.
        tangent: likewise.
    """

    pixels: np.ndarray
    roots: np.ndarray
    mean: Tensor
    second: Tensor
    tangent: Tensor


@dataclass(frozen=True, eq=False)
class Units:
    """The numbers of every layer in units that fit the data.

    Args:
        table: one array of layers×5 a slice of the tangent kernel, what :func:`zeroloss.kernels.planes.duals` calls shift, gain, carry,
            add_s and add_1.
        inputs: the unit of the inputs' second moments.
        roots: the unit of every layer's variances.
        moments: the unit of the last layer's moments.
        tangents: the unit of its tangent kernel, one a slice.
    """

    table: tuple[np.ndarray, ...]
    inputs: float
    roots: tuple[float, ...]
    moments: float
    tangents: tuple[float, ...]


def variances_of(stack: Stack, x: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n h w"]]:
    """Variances of the pre-activations of every layer, pixel by pixel."""
    moments, found = x.square().mean(dim=1), []
    for stage in stack.stages:
        found.append(stage.variances(moments))
        moments = found[-1] * (stage.after / 2)
    return found


def units_of(stack: Stack, x: Float[Tensor, "n c h w"], parts: Mapping[nn.Module, int], slices: int) -> Units:
    r"""Units $u_l$ of moments and $t_l$ of tangent kernels, and every layer's numbers in them.

    With $S=u\hat S$, $T=t\hat T$ a layer is $\hat S' = \frac{c'c\,vm\,u}{2u'}\,s_xs_y\,\kappa_1(\rho)$, where
    $\rho=(\mathcal{P}\hat S+\frac{b}{vm\,u})/(s_xs_y)$ and $s^2=K/(c\,vm\,u)$, and
    $\hat T' = \frac{c'c}{2t'}\,(vm\,t\,\mathcal{P}\hat T+[W]\,m\,u\,\mathcal{P}\hat S+[b])\,\kappa_0(\rho)$.

    Args:
        stack: the module.
        x: the first set.
        parts: which slice each trained layer adds to.
        slices: how many there are; at least one table is made.

    Returns:
        The units.
    """
    inputs = _positive(float(x.square().mean()))
    variances = [float(v.mean()) for v in variances_of(stack, x)]
    tables, roots, tangents, unit = [], [], [], inputs
    for part in range(max(1, slices)):
        unit, tangent, roots, rows = inputs, 0.0, [], []
        for stage, variance in zip(stack.stages, variances, strict=True):
            weights, bias = stage.trained(parts, part)
            half, count = stage.after * stage.before / 2, math.prod(stage.patches.kernel)
            following = _positive(stage.after * variance / 2)
            width = stage.layer.in_channels
            grown = half * (stage.gain * tangent * count + weights * width * unit * count + bias)
            new = _positive(grown)
            shift, add_s = stage.bias / (stage.gain * unit), half * weights * width * unit / new
            carry = half * stage.gain * tangent / new
            rows.append((shift, half * stage.gain * unit / following, carry, add_s, half * bias / new - add_s * shift))
            roots.append(stage.before * stage.gain * unit)
            unit, tangent = following, grown
        tables.append(np.array(rows))
        tangents.append(tangent)
    return Units(tuple(tables), inputs, tuple(roots), unit, tuple(tangents))


def _positive(value: float) -> float:
    return value if value > 0 else 1.0


def _prepare(stack: Stack, x: Tensor, units: Units, dtype: torch.dtype) -> Prepared:
    variances = variances_of(stack, x)
    roots = [(v / unit).sqrt().clamp(min=TINY[dtype]) for v, unit in zip(variances, units.roots, strict=True)]
    pixels = (x / math.sqrt(units.inputs * x.shape[1])).flatten(1)
    mean = (variances[-1] * (stack.stages[-1].after / (2 * math.pi))).sqrt().mean(dim=(1, 2))
    nothing = mean.new_empty(0)
    return Prepared(pixels.to(dtype).numpy(), torch.stack(roots, 1).flatten(1).to(dtype).numpy(), mean, nothing, nothing)


def _compiled_tiles(
    stack: Stack,
    x1: Tensor,
    x2: Tensor | None,
    parts: Mapping[nn.Module, int],
    read: Callable[[State], Tensor],
    dtype: torch.dtype,
) -> Tiles:
    """A stack with global average pooling."""
    slices = max(parts.values(), default=-1) + 1
    units, size = units_of(stack, x1, parts, slices), (x1.shape[2], x1.shape[3])
    first = _with_own(stack, _prepare(stack, x1, units, dtype), units, size, slices)
    second = first if x2 is None else _with_own(stack, _prepare(stack, x2, units, dtype), units, size, slices)
    for rows, columns in blocks(len(x1), None if x2 is None else len(x2), SIDE):
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        same = x2 is None and rows == columns
        grid = torch.triu_indices(*shape, offset=1) if same else torch.cartesian_prod(*map(torch.arange, shape)).T
        moments, tangent = _sums(stack, first, second, (grid[0] + rows.start, grid[1] + columns.start), units, size, slices)
        products, kernel = moments.new_empty(shape), moments.new_empty(slices, *shape)
        products[grid[0], grid[1]], kernel[:, grid[0], grid[1]] = moments, tangent
        if same:
            products[grid[1], grid[0]], kernel[:, grid[1], grid[0]] = moments, tangent
            products.diagonal().copy_(first.second[rows])
            kernel.diagonal(dim1=1, dim2=2).copy_(first.tangent[:, rows])
        left, right = first.second[rows], second.second[columns]
        half = (left[:, None] + right) / 2 - products
        half = torch.where(half < NOISE * (left[:, None] + right), torch.zeros_like(half), half)
        pairs = from_half_distances(left, right, half)
        state = _state(pairs, first.mean[rows], second.mean[columns], kernel, stack.channels)
        for name, layer in stack.head:
            state = advance(layer, state, parts, name)
        yield rows, columns, read(state)


def _state(pairs: Pairs, mean_left: Tensor, mean_right: Tensor, tangent: Tensor, width: int) -> State:
    return State(pairs, mean_left, mean_right, tangent, width, gaussian=False, fresh=True)


def _with_own(stack: Stack, images: Prepared, units: Units, size: tuple[int, int], slices: int) -> Prepared:
    """The images with their own moments, of each with itself."""
    every = torch.arange(len(images.pixels))
    second, tangent = _sums(stack, images, images, (every, every), units, size, slices)
    return Prepared(images.pixels, images.roots, images.mean, second, tangent)


def _sums(
    stack: Stack,
    first: Prepared,
    second: Prepared,
    pairs: tuple[Tensor, Tensor],
    units: Units,
    size: tuple[int, int],
    slices: int,
) -> tuple[Tensor, Tensor]:
    """Means over all pairs of pixels of a list of pairs of images: moments, and a tangent kernel a slice."""
    from zeroloss.kernels.planes import pooled_sums  # compiled code loads when it is needed

    dtype = torch.float32 if first.pixels.dtype == np.float32 else torch.float64
    kernels = np.array([stage.patches.kernel for stage in stack.stages])
    rows, columns = (index.numpy() for index in pairs)
    count, lanes = len(rows), LANES[dtype]
    one = first.pixels.dtype.type(1 - ROUNDING[dtype])
    moments, tangents = torch.zeros(count, dtype=torch.float64), torch.zeros(slices, count, dtype=torch.float64)
    threads = max(1, min(torch.get_num_threads(), -(-count // lanes)))
    step = -(-(-(-count // lanes)) // (4 * threads)) * lanes or lanes  # a few pieces a thread, of whole registers
    for part, table in enumerate(units.table):
        found = np.zeros((2, count))

        def piece(start: int, table: np.ndarray = table.astype(first.pixels.dtype), found: np.ndarray = found) -> None:
            at = slice(start, start + step)
            sums = np.zeros((2, len(rows[at])))
            pooled_sums(first.pixels, first.roots, second.pixels, second.roots, rows[at], columns[at], table, kernels,
                        size, lanes, one, sums)  # fmt: skip
            found[:, at] = sums

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(piece, range(0, count, step)))
        scale = (size[0] * size[1]) ** 2
        moments = torch.from_numpy(found[0] * (units.moments / scale))
        if part < slices:
            tangents[part] = torch.from_numpy(found[1] * (units.tangents[part] / scale))
    return moments, tangents
