"""Tiles of the limit of a stack of ReLU convolutions: compiled sums up to Flatten, the layers after it in torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zeroloss.kernels.blocks import blocks
from zeroloss.kernels.pairs import Pairs, from_half_distances
from zeroloss.kernels.pixels import NOISE
from zeroloss.kernels.recursion import advance
from zeroloss.kernels.stacks import Stack
from zeroloss.kernels.state import State
from zeroloss.kernels.units import Units, units_of, variances_of
from zeroloss.kernels.workers import side_by_side, thread_count
from zeroloss.networks import activation_of

SIDE = 64  # images of a tile with pooling, a minute's work for one core; without pooling four times as many
TINY = {torch.float32: 1e-36, torch.float64: 1e-300}  # stands for a smaller product of roots, so that 0/0 is 0
ROUNDING = {torch.float32: 2.4e-7, torch.float64: 9e-16}  # a correlation this close to 1 is 1
LANES = {torch.float32: 16, torch.float64: 8}


@dataclass(frozen=True, eq=False)
class Setting:
    """What all tiles of one kernel share.

    Args:
        stack: the module.
        units: of its layers.
        size: height and width of the images.
        slices: how many slices the tangent kernel has.
        dtype: of the compiled sums.
    """

    stack: Stack
    units: Units
    size: tuple[int, int]
    slices: int
    dtype: torch.dtype

    @property
    def circular(self) -> bool:
        """Whether the images' other sides lie beside them."""
        return self.stack.stages[0].patches.circular

    @property
    def lanes(self) -> int:
        """How many pairs are summed side by side."""
        return LANES[self.dtype]

    @property
    def kernels(self) -> Int[np.ndarray, "layers 2"]:
        """Height and width of every layer's patches."""
        return np.array([stage.patches.kernel for stage in self.stack.stages])

    @property
    def tables(self) -> list[Float[np.ndarray, "layers 5"]]:
        """The layers' numbers, one table a slice of the tangent kernel, and one where there is no slice."""
        return [table.astype(np.float32 if self.dtype == torch.float32 else np.float64) for table in self.units.table]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Images as the compiled sums take them.

    Args:
        pixels: n×(channels·h·w), scaled so that inner products are the moments in their unit.
        roots: of the pre-activations' variances in theirs, n×(layers·h·w).
        second: the last layer's second moment at equal pixels, mean over them, n.
        mean: its mean, likewise, n.
    """

    pixels: Float[np.ndarray, "n cp"]
    roots: Float[np.ndarray, "n lp"]
    second: Float[Tensor, " n"]
    mean: Float[Tensor, " n"]


def stack_tiles(
    stack: Stack,
    x1: Float[Tensor, "n1 c h w"],
    x2: Float[Tensor, "n2 c h w"] | None,
    parts: Mapping[nn.Module, int],
    read: Callable[[State], Tensor],
    dtype: torch.dtype,
    initial: Mapping[nn.Module, tuple[float, float]] | None = None,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """The limit of a stack, tile by tile.

    Args:
        stack: the module.
        x1: n1×c×h×w images, float64.
        x2: n2 of the same, or None for the first set with itself: then only tiles on and above the diagonal are made, and those on it
            are symmetric with an exact diagonal.
        parts: which slice of the tangent kernel each trained layer adds to.
        read: what to take from a state, pairs last.
        dtype: float32 or float64, for the sums over pixels; where an activation follows pooling always float64.
        initial: variances of weights and bias that were given.

    Yields:
        Rows, columns, and what was read of their pairs.
    """
    slices = max(parts.values(), default=-1) + 1
    if stack.pooled and any(activation_of(layer) is not None for _, layer in stack.head):
        dtype = (
            torch.float64
        )  # pooled images are close to one another, and a kink takes roots of what rounding adds to their distance
    setting = Setting(stack, units_of(stack, x1, parts, slices), (x1.shape[2], x1.shape[3]), slices, dtype)
    other = x1 if x2 is None else x2
    if stack.pooled:
        first = _own_sums(setting, x1)
        second = first if x2 is None else _own_sums(setting, x2)
    width = stack.channels if stack.pooled else stack.channels * math.prod(setting.size)
    for rows, columns in blocks(len(x1), None if x2 is None else len(x2), SIDE if stack.pooled else 4 * SIDE):
        same = x2 is None and rows == columns
        left = _prepare(setting, x1[rows])
        right = left if same else _prepare(setting, other[columns])
        if stack.pooled:
            diagonals = tuple((second[:, at], tangent[:, at]) for (second, tangent), at in ((first, rows), (second, columns)))
            pairs, tangent = _pooled(setting, left, right, diagonals, same)
        else:
            pairs, tangent = _flat(setting, left, right, same)
        gains = tangent.new_zeros(slices)
        state = State(pairs, left.mean, right.mean, tangent, gains, width, gaussian=False, fresh=True, initial=initial or {})
        for name, layer in stack.head:
            state = advance(layer, state, parts, name)
        yield rows, columns, read(state)


def _prepare(setting: Setting, x: Tensor) -> Prepared:
    variances, units = variances_of(setting.stack, x), setting.units
    roots = [(v / unit).sqrt() for v, unit in zip(variances, units.roots, strict=True)]
    pixels = (x / math.sqrt(units.inputs * x.shape[1])).flatten(1)
    last = variances[-1] * setting.stack.stages[-1].after
    mean = (last / (2 * math.pi)).sqrt().mean(dim=(1, 2))
    pixels, flat_roots = (v.to(setting.dtype) for v in (pixels, torch.stack(roots, 1).flatten(1)))
    return Prepared(pixels.numpy(), flat_roots.numpy(), last.mean(dim=(1, 2)) / 2, mean)


def _own_sums(setting: Setting, x: Tensor) -> tuple[Tensor, Tensor]:
    """The pooled moments of every image with itself, 1×n, and its tangent kernel, slices×n."""
    found = []
    for start in range(0, len(x), SIDE):
        images = _prepare(setting, x[start : start + SIDE])
        every = np.arange(len(images.pixels))
        found.append(_pooled_sums(setting, images, images, every, every))
    return torch.cat([moments for moments, _ in found])[None], torch.cat([tangent for _, tangent in found], dim=1)


def _pooled(
    setting: Setting, left: Prepared, right: Prepared, diagonals: tuple[tuple[Tensor, Tensor], ...], same: bool
) -> tuple[Pairs, Tensor]:
    """Moments and tangent kernel of the means over pixels."""
    shape = (len(left.pixels), len(right.pixels))
    (own_left, tangent), (own_right, _) = diagonals
    rows, columns = np.triu_indices(shape[0], k=1) if same else (index.ravel() for index in np.indices(shape))
    moments, kernel = _pooled_sums(setting, left, right, rows, columns)
    values = torch.empty(1 + setting.slices, *shape, dtype=torch.float64)
    values[:, rows, columns] = torch.cat([moments[None], kernel])
    if same:
        values[:, columns, rows] = values[:, rows, columns]
        values.diagonal(dim1=1, dim2=2).copy_(torch.cat([own_left, tangent]))
    sums = own_left[0][:, None] + own_right[0]
    half = sums / 2 - values[0]
    half = torch.where(half < NOISE * sums, torch.zeros_like(half), half)
    return from_half_distances(own_left[0], own_right[0], half), values[1:]


def _pooled_sums(
    setting: Setting, left: Prepared, right: Prepared, rows: np.ndarray, columns: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Means over all pairs of pixels for a list of pairs of images: moments, and slices of the tangent kernel."""
    from zeroloss.kernels.planes import pooled_sums  # compiled code loads when it is needed

    found = np.zeros((len(setting.tables), 2, len(rows)))
    one, tiny = map(left.pixels.dtype.type, (1 - ROUNDING[setting.dtype], TINY[setting.dtype]))
    registers = -(-len(rows) // setting.lanes)
    step = max(1, registers // (4 * thread_count(registers))) * setting.lanes  # a few pieces a thread

    def piece(part: int, start: int) -> None:
        at = slice(start, start + step)
        sums = np.zeros((2, len(rows[at])))
        pooled_sums(left.pixels, left.roots, right.pixels, right.roots, rows[at], columns[at], setting.tables[part],
                    setting.kernels, setting.size, setting.circular, setting.lanes, one, tiny, sums)  # fmt: skip
        found[part, :, at] = sums

    _run(piece, [(part, start) for part in range(len(found)) for start in range(0, len(rows), step)])
    return _in_units(setting, found / math.prod(setting.size) ** 2)


def _flat(setting: Setting, left: Prepared, right: Prepared, same: bool) -> tuple[Pairs, Tensor]:
    """Moments and tangent kernel of a coordinate drawn from all pixels."""
    from zeroloss.kernels.pixelwise import aligned_sums

    lanes, count, tiny = setting.lanes, len(right.pixels), left.pixels.dtype.type(TINY[setting.dtype])
    found = np.zeros((len(setting.tables), 2, len(left.pixels), count))

    def piece(start: int) -> None:
        images = np.minimum(np.arange(start, start + lanes), count - 1)
        pixels, roots = (np.ascontiguousarray(values[images].T).ravel() for values in (right.pixels, right.roots))
        upto = min(start + lanes, len(left.pixels)) if same else len(left.pixels)
        for part, table in enumerate(setting.tables):
            sums = np.zeros((2, upto, lanes))
            aligned_sums(
                left.pixels,
                left.roots,
                pixels,
                roots,
                upto,
                table,
                setting.kernels,
                setting.size,
                setting.circular,
                lanes,
                tiny,
                sums,
            )
            found[part, :, :upto, start : start + lanes] = sums[:, :, : count - start]

    _run(piece, [(start,) for start in range(0, count, lanes)])
    half, tangent = _in_units(setting, found / math.prod(setting.size))
    if same:
        half, tangent = (values.triu() + values.triu(1).mT for values in (half, tangent))
    return from_half_distances(left.second, right.second, half), tangent


def _in_units(setting: Setting, found: np.ndarray) -> tuple[Tensor, Tensor]:
    """Sums of every table as moments and slices of the tangent kernel, in the units of the finite Gram."""
    values = torch.from_numpy(found)
    units = values.new_tensor(setting.units.tangents[: setting.slices])
    return values[0, 0] * setting.units.moments, values[: setting.slices, 1] * units.reshape(-1, *[1] * (values.ndim - 2))


def _run(piece: Callable[..., None], arguments: list[tuple[int, ...]]) -> None:
    """All pieces on as many threads as torch uses; compiled code releases Python's lock."""
    side_by_side(arguments, lambda _, argument: piece(*argument), thread_count(len(arguments)))
