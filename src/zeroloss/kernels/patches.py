r"""Patch sums: what a convolution does to the moments of aligned pixels (THEORY 3.5's $\mathcal{P}$ on its diagonal).

A convolution with independent weights pairs pixel $l+o$ of one image with pixel $l+o$ of the other and with no other pixel, so the
moments of equal pixels are all that a network ever needs, up to a layer that pools.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
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
            for offset in range(self.kernel[axis]):
                source = torch.arange(size, device=values.device) * self.stride[axis] + offset - self.before[axis]
                inside = torch.ones_like(source, dtype=torch.bool)
                if self.circular:
                    source = source % pixels.shape[axis]
                else:
                    inside = (source >= 0) & (source < pixels.shape[axis])
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


def patches_of(layer: nn.Conv2d, name: str) -> Patches:
    """The patches of torch's convolution.

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
        ("dilation", layer.dilation, ((1, 1),)),
        ("groups", layer.groups, (1,)),
        ("padding_mode", layer.padding_mode, PADDINGS),
    ):
        if value not in wanted:
            raise ArgumentError(
                "module",
                f"has a convolution {name!r} with {what}={value!r}, for which no infinite-width limit is implemented",
                f"use {' or '.join(repr(w) for w in wanted)}, or ask for gram(module, x)",
            )
    height, width = layer.kernel_size
    if layer.padding == "same":  # torch puts the odd one after the image
        before = ((height - 1) // 2, (width - 1) // 2)
        after = (height - 1 - before[0], width - 1 - before[1])
    elif layer.padding == "valid":
        before = after = (0, 0)
    else:
        assert not isinstance(layer.padding, str)
        before = after = (layer.padding[0], layer.padding[1])
    return Patches((height, width), (layer.stride[0], layer.stride[1]), before, after, layer.padding_mode == "circular")
