"""Which input numbers each output number of a layer sees: the whole row of a linear layer, a patch of a convolution, a pool's window."""

from __future__ import annotations

from dataclasses import dataclass

from zeroloss_verifier.network import Affine, Pool
from zeroloss_verifier.outcome import RejectedError, TooLargeError

Shape = tuple[int, ...]
MOST_SEEN = 20_000_000


@dataclass(frozen=True)
class Windows:
    """The inputs that each output position sees.

    Args:
        index: for every position, which input numbers, in the order of the weight's columns; -1 stands for a padded zero.
        columns: numbers a position sees, padded ones included.
        shape: of the output: (units,) or (channels, height, width).
        inputs: numbers of the input.
        channels: of the input; 1 where it is a row.
    """

    index: tuple[tuple[int, ...], ...]
    columns: int
    shape: Shape
    inputs: int
    channels: int = 1

    @property
    def whole(self) -> bool:
        """Whether there is one position, which sees the input as it is."""
        return len(self.index) == 1 and self.index[0] == tuple(range(self.inputs))

    @property
    def repeats(self) -> int:
        """How often an input number is seen at most: a patch matrix's squared norm is at most so many times the input's."""
        counts = [0] * self.inputs
        for window in self.index:
            for at in window:
                if at >= 0:
                    counts[at] += 1
        return max(counts, default=0)

    @property
    def received(self) -> int:
        r"""A bound of $\sum_u\|g_u\|^2/\|t\|^2$, $g_u$ being the sum, slot by slot of a window, of the outputs t that see pixel u there.

        Each output is received by as many pixels as its window sees, and up to so many outputs meet in one slot of one pixel.
        """
        area = self.columns // self.channels
        meet: dict[tuple[int, int], int] = {}
        seen = 0
        for window in self.index:
            pixels = [(slot, at) for slot, at in enumerate(window[:area]) if at >= 0]
            seen = max(seen, len(pixels))
            for pair in pixels:
                meet[pair] = meet.get(pair, 0) + 1
        return seen * max(meet.values(), default=0)


def linear_windows(weight: Shape, shape: Shape, name: str) -> Windows:
    """Of a linear layer on a row.

    Raises:
        RejectedError: where the shapes do not fit.

    Example:
        >>> linear_windows((2, 3), (3,), "W").shape
        (2,)
    """
    if len(weight) != 2 or len(shape) != 1 or weight[1] != shape[0]:
        raise RejectedError(f"{name} of shape {list(weight)} does not fit an input of shape {list(shape)}")
    return Windows((tuple(range(shape[0])),), shape[0], (weight[0],), shape[0])


def conv_windows(stage: Affine, weight: Shape, shape: Shape) -> Windows:
    """Of a convolution on an image: cross-correlation, as torch computes it.

    Raises:
        RejectedError: where the shapes do not fit, or circular padding would go round twice.
        TooLargeError: where there are too many patches to write them out.
    """
    if len(weight) != 4 or len(shape) != 3 or weight[1] != shape[0]:
        raise RejectedError(f"{stage.weight} of shape {list(weight)} does not fit an input of shape {list(shape)}")
    (channels, *sides), (kernel_h, kernel_w) = shape, weight[2:]
    heights = _starts(sides[0], kernel_h, stage, 0)
    widths = _starts(sides[1], kernel_w, stage, 1)
    if len(heights) * len(widths) * channels * kernel_h * kernel_w > MOST_SEEN:
        raise TooLargeError(f"{stage.weight} meets {len(heights)}x{len(widths)} patches, more than are written out")
    circular = stage.padding_mode == "circular"
    index = []
    for top in heights:
        for left in widths:
            window = []
            for channel in range(channels):
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        row, column = top + i * stage.dilation[0], left + j * stage.dilation[1]
                        if circular:
                            row, column = row % sides[0], column % sides[1]
                        inside = 0 <= row < sides[0] and 0 <= column < sides[1]
                        window.append((channel * sides[0] + row) * sides[1] + column if inside else -1)
            index.append(tuple(window))
    shape_out = (weight[0], len(heights), len(widths))
    return Windows(tuple(index), channels * kernel_h * kernel_w, shape_out, channels * sides[0] * sides[1], channels)


def _starts(side: int, kernel: int, stage: Affine, axis: int) -> range:
    reach = stage.dilation[axis] * (kernel - 1)
    padding = stage.padding[axis]
    if stage.padding_mode == "circular" and padding > side:
        raise RejectedError(f"{stage.weight}: a circular padding of {padding} goes round an image of side {side} more than once")
    if stage.padding_mode == "circular" and reach >= side:
        raise RejectedError(f"{stage.weight}: a circular kernel that sees a pixel twice is not covered")
    if side + 2 * padding - reach < 1:
        raise RejectedError(f"{stage.weight}: the kernel does not fit into the image")
    if padding > 10_000:
        raise TooLargeError(f"{stage.weight} is padded by {padding}")
    return range(-padding, side + padding - reach, stage.stride[axis])


def pool_windows(pool: Pool, shape: Shape) -> Windows:
    """Of an average pool down to a size: output i of m averages from floor(i s/m) up to ceil((i+1) s/m), of s numbers.

    Raises:
        RejectedError: where the input is no image, or smaller than what it is pooled to.

    Example:
        >>> pool_windows(Pool((1, 1)), (1, 2, 2)).index
        ((0, 1, 2, 3),)
    """
    if len(shape) != 3 or shape[1] < pool.to[0] or shape[2] < pool.to[1]:
        raise RejectedError(f"an average pool to {list(pool.to)} does not fit an input of shape {list(shape)}")
    channels, height, width = shape
    index = [
        tuple((channel * height + i) * width + j for i in rows for j in columns)
        for channel in range(channels)
        for rows in _cuts(height, pool.to[0])
        for columns in _cuts(width, pool.to[1])
    ]
    return Windows(tuple(index), 0, (channels, *pool.to), channels * height * width)


def _cuts(side: int, parts: int) -> list[range]:
    return [range(i * side // parts, -(-(i + 1) * side // parts)) for i in range(parts)]
