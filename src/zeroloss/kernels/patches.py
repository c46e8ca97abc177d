r"""Patch sums: what a convolution does to the moments of aligned pixels (THEORY 3.5's $\mathcal{P}$ on its diagonal).

A convolution with independent weights pairs pixel $l+o$ of one image with pixel $l+o$ of the other and with no other pixel, so the
moments of equal pixels are all that a network ever needs, up to a layer that pools.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.kernels.pairs import Pairs, from_half_distances

PADDINGS = ("zeros", "circular")


@dataclass(frozen=True)
class Patches:
    """The patches that a convolution reads; every tuple is height, then width.

    Args:
        kernel: the patch's size.
        stride: pixels from one patch to the next.
        before: rows above and columns left of the image.
        after: rows below and columns right of it.
        circular: whether those repeat the image's other side; zeros otherwise.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    circular: bool

    def out_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width after the convolution of an image of that size; not positive where no patch fits.

        Example:
            >>> Patches((3, 3), (2, 2), (0, 0), (0, 0), circular=False).out_size((7, 2))
            (3, 0)
        """
        height, width = ((size[k] + self.before[k] + self.after[k] - self.kernel[k]) // self.stride[k] + 1 for k in range(2))
        return height, width

    def sources(self, axis: int, length: int) -> Int[Tensor, "k q"]:
        """Which pixel every patch reads at every offset, along one axis of that length; ``length`` itself stands for a zero beside it.

        Example:
            >>> Patches((1, 3), (1, 2), (0, 1), (0, 1), circular=False).sources(1, 4)
            tensor([[4, 1],
                    [0, 2],
                    [1, 3]])
        """
        size = self.out_size((length, length))[axis]
        source = torch.arange(size) * self.stride[axis] + torch.arange(self.kernel[axis])[:, None] - self.before[axis]
        if self.circular:
            return source % length
        return torch.where((source >= 0) & (source < length), source, length)

    def sums(self, values: Float[Tensor, "*sets h w"]) -> Float[Tensor, "*sets p q"]:
        r"""$\mathcal{P}(V)_l = \sum_o V_{l+o}$ over every patch, terms beyond a border of zeros left out.

        Args:
            values: one number a pixel, h×w last.

        Returns:
            One sum a patch.

        Example:
            >>> same = Patches((1, 3), (1, 1), (0, 1), (0, 1), circular=False)
            >>> same.sums(torch.tensor([[1.0, 2.0, 4.0]]))
            tensor([[3., 7., 6.]])
        """
        # pixels first: in a tensor of moments they then are the far strides, and one pixel's block is added in one sweep
        pixels = values.movedim((-2, -1), (0, 1))
        sizes = self.out_size((pixels.shape[0], pixels.shape[1]))
        for axis, size in enumerate(sizes):
            total = pixels.new_zeros((*pixels.shape[:axis], size, *pixels.shape[axis + 1 :]))
            for source in self.sources(axis, pixels.shape[axis]).to(values.device):
                inside = source < pixels.shape[axis]
                total.index_add_(axis, inside.nonzero()[:, 0], pixels.index_select(axis, source[inside]))
            pixels = total
        return pixels.movedim((0, 1), (-2, -1))

    def pairs(self, pairs: Pairs) -> Pairs:
        r"""The moments of a patch, one coordinate of every pixel: half distances of sums are sums of half distances.

        Args:
            pairs: moments a pixel.

        Returns:
            Moments a patch, near duplicates with their digits.
        """
        return from_half_distances(self.sums(pairs.left), self.sums(pairs.right), self.sums(pairs.half_distances))


def patches_of(layer: nn.Conv1d | nn.Conv2d, name: str) -> Patches:
    """The patches of torch's convolution; one over sequences is one over images of height 1.

    Args:
        layer: any stride, kernel and padding; dilation 1, one group.
        name: its dotted name, for errors.

    Returns:
        The patches.

    Raises:
        ArgumentError: naming the layer, where it is dilated, grouped, or padded by a rule other than zeros and circular.

    Example:
        >>> patches_of(nn.Conv2d(1, 1, 3, padding="same"), "0").before
        (1, 1)
    """
    for what, value, wanted in (
        ("dilation", layer.dilation, ((1,) * len(layer.kernel_size),)),
        ("groups", layer.groups, (1,)),
        ("padding_mode", layer.padding_mode, PADDINGS),
    ):
        if value not in wanted:
            raise ArgumentError(
                "module",
                f"has a convolution {name!r} with {what}={value!r}, for which no infinite-width limit is implemented",
                f"use {' or '.join(repr(w) for w in wanted)}, or ask for gram(module, x)",
            )
    kernel = layer.kernel_size
    if layer.padding == "same":  # torch puts the odd one after the image
        before = tuple((length - 1) // 2 for length in kernel)
        after = tuple(length - 1 - first for length, first in zip(kernel, before, strict=True))
    elif layer.padding == "valid":
        before = after = (0,) * len(kernel)
    else:
        assert not isinstance(layer.padding, str)
        before = after = layer.padding
    sides = (_two(kernel, 1), _two(layer.stride, 1), _two(before, 0), _two(after, 0))
    return Patches(*sides, circular=layer.padding_mode == "circular")


def _two(values: tuple[int, ...], missing: int) -> tuple[int, int]:
    """Height and width, of a sequence's layer only the width."""
    return (missing, values[0]) if len(values) == 1 else (values[0], values[1])
