r"""Pairs of inputs as the limit sees them: two second moments and how far the correlation is from 1.

Every recursion below carries $w = 1-\rho$ and never $\rho$: for near duplicates $\rho$ has lost the digits that decide
$\lambda_{\min}$, while $w$ keeps them (KERNELS, "The Gram must not lose the digits"). Where two inputs are nearly opposite $w$ has
lost them in turn, and $1+\rho$ is carried beside it for as long as somebody knows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

NEAR = 0.02  # below this 1 - cosine a product of unit vectors keeps too few digits, and the difference is formed instead


@dataclass(frozen=True, eq=False)
class Pairs:
    r"""Second moments of a coordinate over two sets of inputs; of images, at every pixel, both inputs at the same one.

    Args:
        left: $S_{ii}$ of the first set, n1 (n1×h×w for images, and so below).
        right: $S_{jj}$ of the second set, n2.
        versine: $w_{ij} = 1 - S_{ij}/\sqrt{S_{ii}S_{jj}} \in [0, 2]$, n1×n2; exactly 0 where both inputs are one.
        coversine: $1+\rho_{ij}$, n1×n2, for those who know it to more digits than $2-w_{ij}$ has.
    """

    left: Float[Tensor, " n1 *pixels"]
    right: Float[Tensor, " n2 *pixels"]
    versine: Float[Tensor, "n1 n2 *pixels"]
    coversine: Float[Tensor, "n1 n2 *pixels"] | None = None

    @property
    def angle(self) -> Float[Tensor, "n1 n2 *pixels"]:
        r"""$\theta=\arccos\rho$, with its digits at both ends."""
        opposite = 2 - self.versine if self.coversine is None else self.coversine
        return 2 * torch.atan2(self.versine.sqrt(), opposite.sqrt())

    @property
    def scale(self) -> Float[Tensor, "n1 n2 *pixels"]:
        r"""$\sqrt{S_{ii}S_{jj}}$."""
        return _geometric_mean(self.left, self.right)

    @property
    def products(self) -> Float[Tensor, "n1 n2 *pixels"]:
        r"""$S_{ij}$ itself."""
        return self.scale * (1 - self.versine)

    @property
    def half_distances(self) -> Float[Tensor, "n1 n2 *pixels"]:
        r"""$\tfrac12(S_{ii}+S_{jj}) - S_{ij} = \tfrac12\mathbb{E}(h_i-h_j)^2$, formed without cancellation."""
        return _norm_gap(self.left, self.right) + self.scale * self.versine

    def times(self, factor: float) -> Pairs:
        """The moments of a coordinate multiplied by the square root of ``factor``."""
        return Pairs(self.left * factor, self.right * factor, self.versine, self.coversine)

    def plus_constant(self, variance: float) -> Pairs:
        r"""The moments after adding one shared independent variable of that variance (a random bias).

        $\sqrt{(S_{ii}+b)(S_{jj}+b)} - \sqrt{S_{ii}S_{jj}} - b = b(\sqrt{S_{ii}}-\sqrt{S_{jj}})^2/(\dots)$, so half distances
        do not change, and nothing cancels.
        """
        if variance == 0:
            return self
        return from_half_distances(self.left + variance, self.right + variance, self.half_distances)


def _geometric_mean(left: Tensor, right: Tensor) -> Tensor:
    """sqrt(a b) without overflow, and exactly a where a = b, which makes the diagonal exact."""
    roots = left.sqrt()[:, None] * right.sqrt()
    return torch.where(left[:, None] == right, left[:, None], roots)


def _norm_gap(left: Tensor, right: Tensor) -> Tensor:
    return 0.5 * (left.sqrt()[:, None] - right.sqrt()) ** 2


def from_half_distances(left: Tensor, right: Tensor, half_distances: Tensor) -> Pairs:
    r"""The pairs whose half squared distances are given; the inverse of :attr:`Pairs.half_distances`.

    Args:
        left: $S_{ii}$, n1 (n1×h×w for images, and so below).
        right: $S_{jj}$, n2.
        half_distances: $\tfrac12(S_{ii}+S_{jj})-S_{ij}$, n1×n2.

    Returns:
        The same moments as :class:`Pairs`. Where a moment is 0 the correlation is undefined and $w$ is set to 1, which
        gives the right product, 0.

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> from_half_distances(one, one, 0.5 * one[:, None]).products
        tensor([[0.5000]], dtype=torch.float64)
    """
    scale = _geometric_mean(left, right)
    versine = (half_distances - _norm_gap(left, right)) / torch.where(scale > 0, scale, torch.ones_like(scale))
    return Pairs(left, right, torch.where(scale > 0, versine.clamp(0, 2), torch.ones_like(scale)))


def input_pairs(x1: Float[Tensor, "n1 d *pixels"], x2: Float[Tensor, "n2 d *pixels"] | None = None) -> Pairs:
    r"""Second moments of the inputs, $S_{ij} = \langle x_i, x_j\rangle/d$, exact to rounding for near duplicates too.

    $1-\cos$ comes from one matrix product of unit vectors $u_i$; where it is below 0.02 it is formed again as
    $w = \tfrac12\|u_i-u_j\|^2$, and where $1+\cos$ is, that as $\tfrac12\|u_i+u_j\|^2$.

    Args:
        x1: n1×d rows, or n1×d×h×w images of d channels, which are taken pixel by pixel; float64.
        x2: n2 of the same, or None for the first set against itself, which makes the diagonal exact.

    Returns:
        The pairs.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 1e-9]], dtype=torch.float64)
        >>> float(input_pairs(x).versine[0, 1] / 5e-19)
        1.0
    """
    points1 = _points(x1)
    points2 = points1 if x2 is None else _points(x2)
    norms1, norms2 = torch.linalg.vector_norm(points1, dim=2), torch.linalg.vector_norm(points2, dim=2)
    unit1 = points1 / torch.where(norms1 > 0, norms1, torch.ones_like(norms1))[:, :, None]
    unit2 = points2 / torch.where(norms2 > 0, norms2, torch.ones_like(norms2))[:, :, None]
    versine = 1 - unit1 @ unit2.mT  # a zero point gets 1, so its products are 0
    coversine = 2 - versine
    for values, sign in ((versine, -1.0), (coversine, 1.0)):
        close = torch.nonzero(values < NEAR)
        chunk = max(1, 1_000_000 // x1.shape[1])
        for start in range(0, len(close), chunk):
            pixel, i, j = close[start : start + chunk].unbind(dim=1)
            # of unit vectors, which can neither overflow nor underflow: their rounding moves the angle by 1e-16 and no more
            values[pixel, i, j] = 0.5 * (unit1[pixel, i] + sign * unit2[pixel, j]).square().sum(dim=1)
    # the exact one decides the other, so that they are 1 - rho and 1 + rho of one rho
    versine = torch.where(coversine < NEAR, 2 - coversine, versine).clamp(0, 2)
    if x2 is None:
        versine, coversine = ((values + values.mT) / 2 for values in (versine, coversine))
        versine.diagonal(dim1=1, dim2=2).copy_(norms1 == 0)
    coversine = torch.where(versine < 1, 2 - versine, coversine)
    pixels = x1.shape[2:]
    left, right = norms1**2 / x1.shape[1], norms2**2 / x1.shape[1]
    return Pairs(*(_by_input(values, pixels) for values in (left, right, versine, coversine)))


def _points(x: Tensor) -> Tensor:
    """Pixels×n×d: rows are images of one pixel."""
    return x.reshape(*x.shape[:2], -1).permute(2, 0, 1).contiguous()


def _by_input(values: Tensor, pixels: torch.Size) -> Tensor:
    """Pixels last, as a view: in memory they stay first, where :meth:`zeroloss.kernels.patches.Patches.sums` adds them fastest."""
    return values.reshape(*pixels, *values.shape[1:]).movedim(tuple(range(len(pixels))), tuple(range(-len(pixels), 0)))
