"""Convolutions as products: the patches they meet, and the adjoint that scatters patches back, for one stage's geometry."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from zeroloss.certificate.stages import Conv2d


def patches(images: Tensor, stage: Conv2d, kernel: tuple[int, int]) -> Tensor:
    """What the kernel meets at every position.

    Args:
        images: n×c×h×w.
        stage: padding, stride and dilation.
        kernel: height and width.

    Returns:
        n×(c q)×positions, q the kernel's area.

    Example:
        >>> patches(torch.ones(1, 1, 3, 3), Conv2d("w", padding=(1, 1)), (3, 3)).sum(1)
        tensor([[4., 6., 4., 6., 9., 6., 4., 6., 4.]])
    """
    return functional.unfold(_padded(images, stage), kernel, stage.dilation, 0, stage.stride)


def scatter(columns: Tensor, stage: Conv2d, kernel: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The adjoint of :func:`patches`: every entry is added to the pixel it was read from.

    Args:
        columns: n×(c q)×positions.
        stage: padding, stride and dilation.
        kernel: height and width.
        size: height and width of the images.

    Returns:
        n×c×h×w.

    Example:
        >>> stage = Conv2d("w", padding=(1, 1), padding_mode="circular")
        >>> scatter(patches(torch.ones(1, 1, 3, 3), stage, (3, 3)), stage, (3, 3), (3, 3)).unique()
        tensor([9.])
    """
    (up, left), (height, width) = stage.padding, size
    wide = functional.fold(columns, (height + 2 * up, width + 2 * left), kernel, stage.dilation, 0, stage.stride)
    if stage.padding_mode == "circular":
        wide = _wrapped(_wrapped(wide, up, height, 2), left, width, 3)
        return wide.contiguous()
    return wide[:, :, up : up + height, left : left + width].contiguous()


def coverage(stage: Conv2d, kernel: tuple[int, int], size: tuple[int, int]) -> int:
    r"""The largest number of patches that a pixel is part of: $\|\mathrm{patches}(h)\|_F^2\le$ this times $\|h\|^2$.

    Args:
        stage: padding, stride and dilation.
        kernel: height and width.
        size: height and width of the images.

    Returns:
        The number.

    Example:
        >>> coverage(Conv2d("w", padding=(1, 1)), (3, 3), (2, 2)), coverage(Conv2d("w", stride=(2, 2)), (2, 2), (4, 4))
        (4, 1)
    """
    ones = torch.ones(1, 1, *size, dtype=torch.float64)
    return int(scatter(torch.ones_like(patches(ones, stage, kernel)), stage, kernel, size).max())


def gathered(stage: Conv2d, kernel: tuple[int, int], size: tuple[int, int]) -> int:
    r"""A bound of $\|z\|^2/\sum_{u,s}\|g_{us}\|^2$ where position p's output z is the sum, over the slots s of its window, of $g_{us}$.

    A sum of at most q terms has squared norm at most q times theirs, q the kernel's area; and $g_{us}$ of pixel u enters as often as u
    lies in slot s of a window: once, unless circular padding goes round.

    Args:
        stage: padding, stride and dilation.
        kernel: height and width.
        size: height and width of the images.

    Returns:
        The number.

    Example:
        >>> gathered(Conv2d("w", stride=(2, 2)), (3, 3), (7, 7))
        9
    """
    area = kernel[0] * kernel[1]
    positions = patches(torch.zeros(1, 1, *size, dtype=torch.float64), stage, kernel).shape[2]
    slots = torch.eye(area, dtype=torch.float64)[:, :, None].expand(area, area, positions)
    return area * int(scatter(slots.contiguous(), stage, kernel, size).max())


def _padded(images: Tensor, stage: Conv2d) -> Tensor:
    up, left = stage.padding
    if up == left == 0:
        return images
    mode = "circular" if stage.padding_mode == "circular" else "constant"
    return functional.pad(images, (left, left, up, up), mode=mode)


def _wrapped(wide: Tensor, margin: int, size: int, dimension: int) -> Tensor:
    """Adds a circular padding's two margins to the rows they are copies of."""
    if margin == 0:
        return wide
    inner = wide.narrow(dimension, margin, size).clone()
    inner.narrow(dimension, size - margin, margin).add_(wide.narrow(dimension, 0, margin))
    inner.narrow(dimension, 0, margin).add_(wide.narrow(dimension, margin + size, margin))
    return inner
