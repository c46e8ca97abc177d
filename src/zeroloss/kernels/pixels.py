r"""Pairs of different pixels: what pooling needs, and what a convolution does to them (THEORY 3.5's full $\mathcal{P}$).

A pooled coordinate is a mean over pixels, and pixel l of one image meets every pixel r of the other in its moments. So where a module
pools, every pixel of every image is taken as an input of its own: a set of n images of h×w pixels is one of n·h·w rows, image by
image, and all rules for rows hold as they stand. Only convolutions, pooling and Flatten look at which pixel is where; they are here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.kernels.pairs import Pairs, from_half_distances
from zeroloss.kernels.patches import Patches

AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
NOISE = 2e-15  # relative: a half distance below it is what rounding leaves of 0, since pooling forms it as a difference


@dataclass(frozen=True, eq=False)
class Canvas:
    """Which pixels the rows of a state are.

    Args:
        size: height and width now.
        left: the first set's second moments after every pooling layer, by its name, n1×h×w. They need pairs of pixels within one
            image, which a state of two sets does not have. A walk of one set with itself writes them here.
        right: the same for the second set, or None where it is the first.
    """

    size: torch.Size
    left: dict[str, Tensor]
    right: dict[str, Tensor] | None = None


def pools(module: nn.Module) -> bool:
    """Whether the module averages pixels anywhere.

    Example:
        >>> pools(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)))
        True
    """
    return any(isinstance(layer, AVERAGES) for layer in module.modules())


def pixel_rows(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "nhw c"]:
    """Every pixel as a row, image by image.

    Example:
        >>> pixel_rows(torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]]))
        tensor([[1., 3.],
                [2., 4.]])
    """
    return x.flatten(2).mT.reshape(-1, x.shape[1])


def patch_sums_of_pairs(
    patches: Patches, pairs: Pairs, tangent: Float[Tensor, "p nl nr"], size: torch.Size
) -> tuple[Pairs, Float[Tensor, "p ml mr"]]:
    r"""$\mathcal{P}(V)_{lr} = \sum_o V_{l+o,r+o}$ of the moments and of the tangent kernel.

    A border of zeros is more pixels, whose moments are zero: beside pixel l its half distance is $\tfrac12S_{ll}$, beside another
    border pixel 0. With them half distances of sums are sums of half distances at the border too, and nothing cancels.

    Args:
        patches: the convolution's.
        pairs: moments of all pairs of pixels, n1·h·w and n2·h·w rows.
        tangent: tangent kernel of the same.
        size: h and w.

    Returns:
        Both for all pairs of patches.

    Example:
        >>> one = torch.ones(3, dtype=torch.float64)
        >>> same = Patches((1, 3), (1, 1), (0, 1), (0, 1), circular=False)
        >>> pairs = Pairs(one, one, torch.zeros(3, 3, dtype=torch.float64))
        >>> patch_sums_of_pairs(same, pairs, pairs.products[None], torch.Size((1, 3)))[0].products.round(decimals=12)
        tensor([[2., 2., 1.],
                [2., 3., 2.],
                [1., 2., 2.]], dtype=torch.float64)
    """
    left, right = pairs.left.reshape(-1, *size), pairs.right.reshape(-1, *size)
    half = pairs.half_distances.reshape(*left.shape, *right.shape)
    tangent = tangent.reshape(len(tangent), *left.shape, *right.shape)
    for axis in range(2):
        sources = patches.sources(axis, size[axis]).to(left.device)
        mine, theirs = 1 + axis, 4 + axis  # of (n1, h, w, n2, h, w)
        border_left, border_right = left.narrow(mine, 0, 1) * 0, right.narrow(mine, 0, 1) * 0
        left, right = torch.cat([left, border_left], mine), torch.cat([right, border_right], mine)
        across = right.narrow(mine, 0, size[axis]).expand(*border_left.shape, *half.shape[3:]) / 2
        half = torch.cat([half, across], mine)
        across = left[..., None, None, None].expand(*left.shape, *border_right.shape) / 2
        half = torch.cat([half, across], theirs)
        for place in (mine, theirs):
            tangent = torch.cat([tangent, tangent.narrow(place + 1, 0, 1) * 0], place + 1)
        left = _total(left, [mine], sources)
        right = _total(right, [mine], sources)
        half = _total(half, [mine, theirs], sources)
        tangent = _total(tangent, [mine + 1, theirs + 1], sources)
    left, right = left.flatten(), right.flatten()
    summed = from_half_distances(left, right, half.reshape(len(left), len(right)))
    return summed, tangent.reshape(len(tangent), len(left), len(right))


def _total(values: Tensor, axes: list[int], sources: Tensor) -> Tensor:
    """Add up what the offsets of a patch read, all axes at the same offset."""
    total: Tensor | None = None
    for source in sources:
        term = values
        for axis in axes:
            term = term.index_select(axis, source)
        total = term if total is None else total.add_(term)
    assert total is not None
    return total


def averages_of(layer: nn.Module, size: torch.Size, name: str) -> tuple[Float[Tensor, "q p"], torch.Size]:
    """What a pooling layer does to the pixels, read off from images with a single one.

    Args:
        layer: one of :data:`AVERAGES`, with any options.
        size: height and width of its input; height 1 for the layers of sequences.
        name: its dotted name, for errors.

    Returns:
        The weight of every pixel in every pooled one, and height and width after it.

    Raises:
        ArgumentError: where no window fits into the image.

    Example:
        >>> averages_of(nn.AvgPool2d(2), torch.Size((2, 4)), "pool")[0]
        tensor([[0.2500, 0.2500, 0.0000, 0.0000, 0.2500, 0.2500, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.2500, 0.2500, 0.0000, 0.0000, 0.2500, 0.2500]],
               dtype=torch.float64)
    """
    flat = isinstance(layer, nn.AvgPool1d | nn.AdaptiveAvgPool1d)
    units = torch.eye(size.numel(), dtype=torch.float64).reshape(-1, 1, *(size[1:] if flat else size))
    try:
        pooled = layer(units)
    except RuntimeError as error:
        seen = f"leaves nothing of images of {'×'.join(map(str, size))} pixels at {name!r}"
        raise ArgumentError("module", seen, "pass larger images, or pool over fewer pixels") from error
    height, width = (1, *pooled.shape[2:]) if flat else pooled.shape[2:]
    return pooled.flatten(1).T.contiguous(), torch.Size((height, width))


def pooled_pairs(weights: Float[Tensor, "q p"], pairs: Pairs, canvas: Canvas, name: str) -> Pairs:
    r"""Moments of means over pixels: $S_{ab} = \sum_{lr}A_{al}A_{br}S_{lr}$, of one image with itself and of two.

    The half distance is formed as a difference, to about 1e-16 of the moments: of near duplicates pooling keeps the digits that an
    ordinary product keeps, and no more. Images that are equal have exactly 0.

    Args:
        weights: A, from :func:`averages_of`.
        pairs: moments of all pairs of pixels.
        canvas: where the second moments are read, or written where the second set is the first.
        name: the layer's, under which they stand there.

    Returns:
        The pooled pairs.
    """
    products = average_both(weights, pairs.products)
    n1, n2 = len(pairs.left) // weights.shape[1], len(pairs.right) // weights.shape[1]
    if canvas.right is None:
        blocks = products.reshape(n1, len(weights), n2, len(weights)).diagonal(dim1=0, dim2=2).diagonal(dim1=0, dim2=1)
        canvas.left[name] = blocks.clamp(min=0)
    left = canvas.left[name].flatten()
    right = left if canvas.right is None else canvas.right[name].flatten()
    sums = left[:, None] + right
    half = sums / 2 - products
    half = torch.where(half < NOISE * sums, torch.zeros_like(half), half)
    return from_half_distances(left, right, half)


def average_both(weights: Float[Tensor, "q p"], values: Float[Tensor, "*sets nl nr"]) -> Float[Tensor, "*sets ml mr"]:
    r"""$\sum_{lr}A_{al}A_{br}V_{lr}$ for the pixels of every pair of images.

    Args:
        weights: A, q×P.
        values: n1·P × n2·P.

    Returns:
        n1·q × n2·q.

    Example:
        >>> average_both(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 2.0, 0.0, 4.0], [3.0, 4.0, 0.0, 0.0]]))
        tensor([[2.5000, 1.0000]])
    """
    (pooled, pixels), sets, (rows, columns) = weights.shape, values.shape[:-2], values.shape[-2:]
    n1, n2 = rows // pixels, columns // pixels
    half = weights @ values.reshape(*sets, n1, pixels, columns)
    half = half.reshape(*sets, n1 * pooled, n2, pixels) @ weights.T
    return half.reshape(*sets, n1 * pooled, n2 * pooled)


def average_rows(weights: Float[Tensor, "q p"], values: Float[Tensor, " nl"]) -> Float[Tensor, " ml"]:
    """The means of every image's pixels, likewise."""
    return (values.reshape(-1, weights.shape[1]) @ weights.T).flatten()


def aligned(values: Float[Tensor, "*sets nl nr"], size: torch.Size) -> Float[Tensor, "*sets n1 n2 h w"]:
    """Of all pairs of pixels those at one place, which is what Flatten needs.

    Example:
        >>> aligned(torch.arange(4.0).reshape(2, 2), torch.Size((1, 2)))
        tensor([[[[0., 3.]]]])
    """
    sets, (rows, columns), count = values.shape[:-2], values.shape[-2:], size.numel()
    apart = values.reshape(*sets, rows // count, count, columns // count, count)
    return apart.diagonal(dim1=-3, dim2=-1).reshape(*sets, rows // count, columns // count, *size)
