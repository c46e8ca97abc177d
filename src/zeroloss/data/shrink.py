"""Smaller images, each new pixel the mean of the old ones under it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from zeroloss.errors import ArgumentError


def shrink(images: Float[Tensor, "n c h w"], size: int) -> Float[Tensor, "n c size size"]:
    """Images averaged down to size×size pixels.

    Args:
        images: n×c×h×w.
        size: the new height and width, at most the old ones.

    Returns:
        n×c×size×size, in the same units.

    Raises:
        ArgumentError: for a size that is no whole number from 1 to the images' own.

    Example:
        >>> import torch
        >>> shrink(torch.arange(16.0).reshape(1, 1, 4, 4), 2)
        tensor([[[[ 2.5000,  4.5000],
                  [10.5000, 12.5000]]]])
    """
    own = min(images.shape[2:])
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= own:
        raise ArgumentError("size", f"is {size!r} for images of {images.shape[2]}x{images.shape[3]}", f"pass 1 to {own}")
    return functional.adaptive_avg_pool2d(images, size)
