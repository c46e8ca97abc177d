"""What every builder checks before it draws a weight, and the source of its draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import torch

from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.networks.activations import Activation, find_activation
from zeroloss.networks.architecture import SCHEMES
from zeroloss.networks.constants import c_sigma
from zeroloss.networks.layers import GaussianConv2d, GaussianLinear

PADDINGS = ("zeros", "circular")


@dataclass(frozen=True)
class Draw:
    """One generator for all of a network's layers, so that a seed is a network.

    Args:
        sigma: the activation.
        generator: the source of every weight, first layer first.
        dtype: of the weights.
    """

    sigma: Activation
    generator: torch.Generator
    dtype: torch.dtype

    @property
    def c_sigma(self) -> float:
        r"""$c_\sigma$ of the activation, 2 for ReLU."""
        return c_sigma(self.sigma)

    def linear(self, inputs: int, outputs: int, variance: float, trained: bool = True) -> GaussianLinear:
        """A fully connected layer."""
        return GaussianLinear(inputs, outputs, variance=variance, generator=self.generator, trained=trained, dtype=self.dtype)

    def conv(
        self, inputs: int, outputs: int, variance: float, kernel: tuple[int, int], padding: str, trained: bool = True
    ) -> GaussianConv2d:
        """A convolutional layer."""
        around: Literal["zeros", "circular"] = "circular" if padding == "circular" else "zeros"
        return GaussianConv2d(
            inputs,
            outputs,
            kernel,
            variance=variance,
            generator=self.generator,
            padding=around,
            trained=trained,
            dtype=self.dtype,
        )


def draw_of(
    inputs: int | Sequence[int],
    depth: int,
    outputs: int,
    activation: str | Activation,
    scheme: str,
    seed: int,
    dtype: torch.dtype,
) -> Draw:
    """Check the arguments that all builders share.

    Returns:
        The activation and the generator.

    Raises:
        ArgumentError: naming the argument.
    """
    if scheme not in SCHEMES:
        raise unknown_name("scheme", scheme, SCHEMES)
    for size in inputs if isinstance(inputs, Sequence) else (inputs,):
        _positive("inputs", size)
    _positive("depth", depth)
    _positive("outputs", outputs)
    if not whole(seed) or not 0 <= seed < 2**63:
        raise ArgumentError("seed", f"is {seed!r}", "pass a whole number from 0 to 2^63 - 1")
    if dtype not in (torch.float32, torch.float64):
        raise ArgumentError("dtype", f"is {dtype!r}", "pass torch.float32 or torch.float64")
    return Draw(find_activation(activation), torch.Generator().manual_seed(int(seed)), dtype)


def features_of(inputs: int) -> int:
    """The number of features of a row.

    Raises:
        ArgumentError: for an image's shape, with the builders that take one.
    """
    if isinstance(inputs, Sequence):
        raise ArgumentError("inputs", f"is {tuple(inputs)}", "pass the number of features, or build a cnn or conv_resnet")
    return inputs


def image_of(inputs: Sequence[int], kernel: int | Sequence[int], padding: str) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """The image and the patch of a convolutional network.

    Args:
        inputs: (c, h, w).
        kernel: side of the patches, or (height, width); odd.
        padding: zeros or circular.

    Returns:
        Both as tuples.

    Raises:
        ArgumentError: naming the argument.
    """
    if not isinstance(inputs, Sequence) or len(inputs) != 3:
        raise ArgumentError("inputs", f"is {inputs!r}", "pass the image's (channels, height, width)")
    if padding not in PADDINGS:
        raise unknown_name("padding", padding, PADDINGS)
    sides = tuple(kernel) if isinstance(kernel, Sequence) else (kernel, kernel)
    if len(sides) != 2 or any(not whole(side) or side < 1 or side % 2 == 0 for side in sides):
        raise ArgumentError("kernel", f"is {kernel!r}", "pass one odd number, or an odd height and an odd width")
    for size in inputs:
        _positive("inputs", size)
    channels, height, width = (int(size) for size in inputs)
    if padding == "circular" and (sides[0] // 2 > height or sides[1] // 2 > width):
        raise ArgumentError("kernel", f"is {sides} for images of {height}x{width}", "pass a smaller one, or padding='zeros'")
    return (channels, height, width), (int(sides[0]), int(sides[1]))


def widths_of(width: int | Sequence[int], count: int, meaning: str) -> tuple[int, ...]:
    """One width a layer.

    Raises:
        ArgumentError: for a wrong number of them, or one that is not a whole number of at least 1.
    """
    widths = tuple(width) if isinstance(width, Sequence) else (width,) * count
    if len(widths) != count:
        raise ArgumentError("width", f"has {len(widths)} entries, but {meaning} = {count} are needed", "pass one width a layer")
    if bad := [m for m in widths if not whole(m) or m < 1]:
        raise ArgumentError("width", f"contains {bad[0]!r}", "pass whole numbers of at least 1")
    return tuple(int(m) for m in widths)


def same_widths(widths: tuple[int, ...]) -> int:
    """The one width of layers that a skip adds to each other.

    Raises:
        ArgumentError: where they differ.
    """
    if len(set(widths)) > 1:
        raise ArgumentError(
            "width", f"has {list(widths)} along the skips, but a skip adds layers of one width", "make them equal"
        )
    return widths[0]


def refuse_for(scheme: str, **given: object) -> None:
    """Refuse arguments that the chosen scheme does not have.

    Args:
        scheme: the scheme.
        given: arguments of the other scheme, None where they were left out.

    Raises:
        ArgumentError: naming the first that was given.
    """
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(name, f"is {value!r}, but scheme={scheme!r} has none", "leave it out, or choose the other scheme")


def tau_of(tau: float | str, depth: int, width: int) -> float:
    r"""AZ's residual scale: $1/L$, $1/(L\log m)$, $1/\sqrt L$, 1, or a number.

    Raises:
        ArgumentError: for another word, or a number that is not positive and finite.

    Example:
        >>> tau_of("1/sqrt(L)", 4, 100)
        0.5
    """
    words = {
        "1/L": 1 / depth,
        "1/(L log m)": 1 / (depth * math.log(max(width, 3))),
        "1/sqrt(L)": 1 / math.sqrt(depth),
        "1": 1.0,
    }
    if isinstance(tau, str):
        if tau not in words:
            raise unknown_name("tau", tau, words)
        return words[tau]
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not (math.isfinite(tau) and tau > 0):
        raise ArgumentError("tau", f"is {tau!r}", f"pass a positive number or one of {', '.join(words)}")
    return float(tau)


def c_res_of(c_res: float | None) -> float:
    r"""DU's $0 < c_{res} < 1$, 0.9 where none is given.

    Raises:
        ArgumentError: outside.
    """
    if c_res is None:
        return 0.9
    if not (isinstance(c_res, int | float) and 0 < c_res < 1):
        raise ArgumentError("c_res", f"is {c_res!r}", "pass a number strictly between 0 and 1 (DU section 3.1)")
    return float(c_res)


def _positive(name: str, value: object) -> None:
    if not whole(value) or value < 1:  # type: ignore[operator]
        raise ArgumentError(name, f"is {value!r}", "pass a whole number of at least 1")


def whole(value: object) -> bool:
    """Whether a value is a whole number, Python's or numpy's; True and 4.0 are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)
