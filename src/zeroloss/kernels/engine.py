"""A kernel of rows as a whole: tile by tile into a matrix, or against vectors without a matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.kernels.curve import Curve
from zeroloss.kernels.preparation import Prepared, prepare, survey
from zeroloss.kernels.rows import CORNER, TILE, angle_error, compiled, fill, tile_by_torch
from zeroloss.kernels.workers import side_by_side, thread_count


@dataclass(frozen=True, eq=False)
class RowKernel:
    """A curve between two sets of rows.

    Args:
        curve: the kernel's dependence on the angle.
        left: the first set.
        right: the second, or None for the first with itself, of which only half is computed and whose diagonal is exact.
    """

    curve: Curve
    left: Prepared
    right: Prepared | None

    @property
    def shape(self) -> tuple[int, int]:
        """n1 and n2."""
        return len(self.left.rows), len((self.right or self.left).rows)

    @property
    def error(self) -> float:
        """A bound on every entry's error: the curve's, the angle's from rounding, and that of scales and norms."""
        dtype, d = self.left.rows.dtype, self.left.rows.shape[1]
        relative = self.curve.error + self.curve.steepness * angle_error(dtype, d) + 32 * float(torch.finfo(dtype).eps)
        largest = [float(side.scale.abs().max()) if len(side.scale) else 0.0 for side in (self.left, self.right or self.left)]
        return relative * self.curve.diagonal * largest[0] * largest[1]

    def fill(self, out: Float[Tensor, "n1 n2"]) -> None:
        """Write the kernel.

        Args:
            out: n1×n2, of any floating dtype and layout, on the rows' device.
        """
        largest = [float(side.scale.abs().max()) for side in (self.left, self.right or self.left) if len(side.scale)]
        if math.prod(largest) * self.curve.diagonal > torch.finfo(self.left.rows.dtype).max:
            raise ArgumentError("x", "is so large that its kernel overflows", "divide the rows by a number, or pass float64")
        direct = out.dtype == self.left.rows.dtype and out.is_contiguous()
        tasks = list(_tiles(self.shape, self.right is None))
        if not self._compiled:
            for rows, columns in tasks:
                tile = self._by_torch(rows, columns)
                out[rows, columns] = tile.to(out.dtype)
                if self._mirrored(rows, columns):
                    out[columns, rows] = tile.mT.to(out.dtype)
            return
        form, room = compiled(self.curve, self.left.rows.dtype), [self._room(2) for _ in range(thread_count(len(tasks)))]

        def work(thread: int, task: tuple[slice, slice]) -> None:
            rows, columns = task
            product, copy = (_shaped(one, rows, columns) for one in room[thread])
            target = out[rows, columns] if direct else copy
            turned = out[columns, rows] if direct and self._mirrored(rows, columns) else None
            fill(
                form,
                self.left.at(rows),
                (self.right or self.left).at(columns),
                self._same(rows, columns),
                product,
                target,
                turned,
            )
            if not direct:
                out[rows, columns] = copy.to(out.dtype)
                if self._mirrored(rows, columns):
                    out[columns, rows] = copy.mT.to(out.dtype)

        side_by_side(tasks, work, len(room))

    def times(self, vectors: Float[Tensor, "n2 r"]) -> Float[Tensor, "n1 r"]:
        """The kernel times a block of vectors, a tile of it at a time.

        Args:
            vectors: n2×r, in the rows' dtype.

        Returns:
            n1×r.
        """
        n1, _ = self.shape
        tasks = list(_tiles(self.shape, self.right is None))
        threads = thread_count(len(tasks)) if self._compiled else 1
        totals = vectors.new_zeros(threads, n1, vectors.shape[1])
        form = compiled(self.curve, self.left.rows.dtype) if self._compiled else None
        room = [self._room(2) for _ in range(threads)]

        def work(thread: int, task: tuple[slice, slice]) -> None:
            rows, columns = task
            if form is None:
                tile = self._by_torch(rows, columns)
            else:
                product, tile = (_shaped(one, rows, columns) for one in room[thread])
                right = (self.right or self.left).at(columns)
                fill(form, self.left.at(rows), right, self._same(rows, columns), product, tile, None)
            totals[thread, rows].addmm_(tile, vectors[columns])
            if self._mirrored(rows, columns):
                totals[thread, columns].addmm_(tile.mT, vectors[rows])

        if self._compiled:
            side_by_side(tasks, work, threads)
        else:
            for task in tasks:
                work(0, task)
        return totals.sum(dim=0)

    @property
    def _compiled(self) -> bool:
        return self.left.rows.device.type == "cpu"

    def _by_torch(self, rows: slice, columns: slice) -> Tensor:
        right = (self.right or self.left).at(columns)
        return tile_by_torch(self.curve, self.left.at(rows), right, self._same(rows, columns))

    def _room(self, count: int) -> list[Tensor]:
        return [self.left.rows.new_empty(TILE**2) for _ in range(count)]

    def _same(self, rows: slice, columns: slice) -> bool:
        return self.right is None and rows == columns

    def _mirrored(self, rows: slice, columns: slice) -> bool:
        return self.right is None and rows != columns


@dataclass(frozen=True, eq=False)
class Surveyed:
    r"""Two sets of rows and what is known of them before any product.

    Args:
        x1: n1×d, float32 or float64, contiguous.
        x2: n2×d of the same dtype, or None for the first with itself.
        norms: the norms of the first and of the second, float64.
        centre: the mean of the first set's unit rows, d, float64.
    """

    x1: Float[Tensor, "n1 d"]
    x2: Float[Tensor, "n2 d"] | None
    norms: tuple[Float[Tensor, " n1"], Float[Tensor, " n2"]]
    centre: Float[Tensor, " d"]

    @property
    def one_norm(self) -> float | None:
        """The norm that all rows have, up to a few roundings of their dtype; None where they differ or are zero."""
        every = torch.cat(self.norms)
        low, high = float(every.min()), float(every.max())
        if low <= 0 or high - low > 4 * float(torch.finfo(self.x1.dtype).eps) * high:
            return None
        # rounded, so that sets whose norms differ in the last digits share a curve
        return float(f"{every[0]:.{6 if self.x1.dtype == torch.float32 else 13}e}")

    def kernel(self, curve: Curve, homogeneous: bool) -> RowKernel:
        r"""The kernel between the two sets, not yet computed.

        Args:
            curve: of rows with $\|x\|^2/d=1$ for a homogeneous module, of those with the rows' own norm otherwise.
            homogeneous: which of the two.
        """
        sets = [self.x1] if self.x2 is None else [self.x1, self.x2]
        sides = [
            prepare(x, norm, self.centre, norm / x.shape[1] ** 0.5 if homogeneous else torch.ones_like(norm))
            for x, norm in zip(sets, self.norms, strict=False)
        ]
        return RowKernel(curve, sides[0], sides[1] if len(sides) > 1 else None)


def survey_sets(x1: Float[Tensor, "n1 d"], x2: Float[Tensor, "n2 d"] | None) -> Surveyed:
    """Norms and centre of two sets of rows.

    Args:
        x1: n1×d.
        x2: n2×d, or None.

    Returns:
        The sets, in one dtype and contiguous.

    Example:
        >>> from zeroloss.kernels.curve import Side
        >>> side, out = Side(False, 0.0, (0.5, -0.5)), torch.empty(2, 2)
        >>> survey_sets(torch.eye(2), None).kernel(Curve(1.0, side, side, 0.0, 1.0), homogeneous=False).fill(out)
        >>> out
        tensor([[1., 0.],
                [0., 1.]])
    """
    if x2 is not None and x2.dtype != x1.dtype:
        x1, x2 = x1.to(torch.float64), x2.to(torch.float64)
    x1 = x1.contiguous()
    norms, centre = survey(x1)
    if x2 is None:
        return Surveyed(x1, None, (norms, norms), centre)
    x2 = x2.contiguous()
    return Surveyed(x1, x2, (norms, survey(x2)[0]), centre)


def _tiles(shape: tuple[int, int], half: bool) -> Iterator[tuple[slice, slice]]:
    """Tiles of all pairs, or of those on and above the diagonal, along which they are smaller: less is made of what is not needed."""
    for top in range(0, shape[0], TILE):
        rows = slice(top, min(top + TILE, shape[0]))
        if half:
            yield from _on_diagonal(rows)
        for left in range(rows.stop if half else 0, shape[1], TILE):
            yield rows, slice(left, min(left + TILE, shape[1]))


def _on_diagonal(rows: slice) -> Iterator[tuple[slice, slice]]:
    for top in range(rows.start, rows.stop, CORNER):
        some = slice(top, min(top + CORNER, rows.stop))
        yield some, some
        if some.stop < rows.stop:
            yield some, slice(some.stop, rows.stop)


def _shaped(room: Tensor, rows: slice, columns: slice) -> Tensor:
    p, q = rows.stop - rows.start, columns.stop - columns.start
    return room[: p * q].view(p, q)
