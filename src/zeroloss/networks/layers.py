"""The layers that torch lacks and the papers need: Gaussian linear maps and convolutions, fixed scalars, identity skips."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn


class GaussianLinear(nn.Linear):
    r"""A bias-free linear map with independent $N(0, v)$ weights, drawn in float64 whatever the layer's dtype.

    Args:
        inputs: fan-in.
        outputs: fan-out.
        variance: $v$, the variance (not the standard deviation) of every weight.
        generator: the source of the draw; two dtypes with one seed get the same numbers, rounded.
        trained: whether gradient descent moves it; a frozen layer has ``requires_grad=False``.
        dtype: of the weights.

    Example:
        >>> layer = GaussianLinear(3, 2, variance=4.0, generator=torch.Generator().manual_seed(0))
        >>> layer.weight.shape, layer.variance
        (torch.Size([2, 3]), 4.0)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        variance: float,
        generator: torch.Generator,
        trained: bool = True,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(inputs, outputs, bias=False, dtype=dtype)
        self.variance = variance
        with torch.no_grad():
            draw = torch.randn(outputs, inputs, dtype=torch.float64, generator=generator)
            self.weight.copy_(draw.mul_(math.sqrt(variance)))
        self.weight.requires_grad_(trained)

    def reset_parameters(self) -> None:
        """Leave the weights alone: the constructor draws them from its own generator, never from torch's global one."""

    def extra_repr(self) -> str:
        """The layer's sizes, its variance, and whether it is frozen."""
        frozen = "" if self.weight.requires_grad else ", frozen"
        return f"{self.in_features} -> {self.out_features}, variance={self.variance:.4g}{frozen}"


class GaussianConv2d(nn.Conv2d):
    r"""A bias-free convolution of stride 1 that keeps the image's size, with independent $N(0, v)$ weights drawn in float64.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        kernel: height and width of the patches, both odd; $q$ is their product.
        variance: $v$, the variance (not the standard deviation) of every weight.
        generator: the source of the draw.
        padding: ``"zeros"`` beyond the border, or ``"circular"``, where every point is covered q times.
        trained: whether gradient descent moves it.
        dtype: of the weights.

    Example:
        >>> layer = GaussianConv2d(3, 2, (3, 3), variance=4.0, generator=torch.Generator().manual_seed(0))
        >>> layer(torch.ones(1, 3, 5, 5, dtype=torch.float64)).shape, layer.variance
        (torch.Size([1, 2, 5, 5]), 4.0)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        *,
        variance: float,
        generator: torch.Generator,
        padding: Literal["zeros", "circular"] = "zeros",
        trained: bool = True,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        around = (kernel[0] // 2, kernel[1] // 2)
        super().__init__(inputs, outputs, kernel, padding=around, padding_mode=padding, bias=False, dtype=dtype)
        self.variance = variance
        with torch.no_grad():
            draw = torch.randn(self.weight.shape, dtype=torch.float64, generator=generator)
            self.weight.copy_(draw.mul_(math.sqrt(variance)))
        self.weight.requires_grad_(trained)

    def reset_parameters(self) -> None:
        """Leave the weights alone: the constructor draws them from its own generator, never from torch's global one."""

    def extra_repr(self) -> str:
        """The layer's sizes, its padding, its variance, and whether it is frozen."""
        frozen = "" if self.weight.requires_grad else ", frozen"
        size = f"{self.in_channels} -> {self.out_channels}, {self.kernel_size[0]}x{self.kernel_size[1]} {self.padding_mode}"
        return f"{size}, variance={self.variance:.4g}{frozen}"


class Scale(nn.Module):
    r"""Multiply by a fixed number, such as DU's $\sqrt{c_\sigma/m}$; part of the architecture, not a parameter.

    Example:
        >>> Scale(0.5)(torch.ones(2))
        tensor([0.5000, 0.5000])
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = float(factor)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``factor * x``."""
        return x * self.factor

    def extra_repr(self) -> str:
        """The factor."""
        return f"{self.factor:.6g}"


class Residual(nn.Sequential):
    """A skip connection: the input plus what the layers inside make of it.

    Example:
        >>> Residual(Scale(2.0))(torch.ones(1))
        tensor([3.])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input + layers(input)``."""
        output: Tensor = input + super().forward(input)  # type: ignore[no-untyped-call]
        return output
