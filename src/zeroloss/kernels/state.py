"""What a walk carries from layer to layer: the moments of one coordinate and its tangent kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.kernels.pairs import Pairs
from zeroloss.kernels.particles import Draws, Law


@dataclass(frozen=True, eq=False)
class State:
    """What the limit knows about one coordinate of the current layer.

    Args:
        pairs: second moments, at every pixel of an image.
        mean_left: the coordinate's mean for the first set of inputs, n1 (n1×h×w for images, and so below).
        mean_right: the same for the second set, n2.
        tangent: tangent kernel, one slice a part, p×n1×n2.
        width: how many coordinates the layer has, at each pixel.
        gaussian: whether the coordinate is a Gaussian pre-activation.
        fresh: whether new weights lie between it and where the current branch began, so that its coordinates are independent of those.
        law: how to sample the coordinate, None before the first weights.
        draws: where samples come from, None where the module needs none.
    """

    pairs: Pairs
    mean_left: Float[Tensor, " n1 *pixels"]
    mean_right: Float[Tensor, " n2 *pixels"]
    tangent: Float[Tensor, "p n1 n2 *pixels"]
    width: int
    gaussian: bool
    fresh: bool = False
    law: Law | None = None
    draws: Draws | None = None

    @property
    def pixels(self) -> torch.Size:
        """Height and width of an image, empty for rows."""
        return self.pairs.left.shape[1:]

    @property
    def size(self) -> str:
        """What one input has become, in words for errors."""
        return "×".join(map(str, (self.width, *self.pixels)))
