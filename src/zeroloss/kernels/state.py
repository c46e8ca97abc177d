r"""What a walk carries from layer to layer: the moments of one coordinate and its tangent kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.kernels.pairs import Pairs
from zeroloss.kernels.particles import Draws, Law
from zeroloss.kernels.pixels import Canvas


@dataclass(frozen=True, eq=False)
class State:
    r"""What the limit knows about one coordinate of the current layer.

    Args:
        pairs: second moments, at every pixel of an image.
        mean_left: the coordinate's mean for the first set of inputs, n1 (n1×h×w for images, and so below).
        mean_right: the same for the second set, n2.
        tangent: tangent kernel, one slice a part, p×n1×n2.
        gains: $g_p$, where a Gaussian coordinate's tangent kernel also has $g_ph_ih_j$, its own value's square and not the mean of it:
            what trained gains add (:mod:`zeroloss.kernels.norms`).
        width: how many coordinates the layer has, at each pixel.
        gaussian: whether the coordinate is a Gaussian pre-activation.
        fresh: whether new weights lie between it and where the current branch began, so that its coordinates are independent of those.
        law: how to sample the coordinate, None before the first weights.
        draws: where samples come from, None where the module needs none.
        initial: variances of weights and bias, for the layers that do not have those they draw by themselves.
        canvas: where pixels are kept as rows, in all pairs (:mod:`zeroloss.kernels.pixels`), which pixel each row is; None otherwise.
    """

    pairs: Pairs
    mean_left: Float[Tensor, " n1 *pixels"]
    mean_right: Float[Tensor, " n2 *pixels"]
    tangent: Float[Tensor, "p n1 n2 *pixels"]
    gains: Float[Tensor, " p"]
    width: int
    gaussian: bool
    fresh: bool = False
    law: Law | None = None
    draws: Draws | None = None
    initial: Mapping[nn.Module, tuple[float, float]] = field(default_factory=dict)
    canvas: Canvas | None = None

    def settled(self) -> State:
        """The state with the gains' share averaged over coordinates, as a sum over many of them sees it."""
        if not bool(self.gains.any()):
            return self
        shape = (-1, *[1] * self.pairs.versine.ndim)
        tangent = self.tangent + self.gains.reshape(shape) * self.pairs.products
        return replace(self, tangent=tangent, gains=torch.zeros_like(self.gains))

    @property
    def pixels(self) -> torch.Size:
        """Height and width of an image, empty for rows."""
        return self.pairs.left.shape[1:] if self.canvas is None else self.canvas.size

    @property
    def size(self) -> str:
        """What one input has become, in words for errors."""
        return "×".join(map(str, (self.width, *self.pixels)))
