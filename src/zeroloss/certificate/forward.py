"""A chain's outputs in plain float64: what the enclosures enclose, and what tests compare with."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from zeroloss.certificate.convolution import patches
from zeroloss.certificate.stages import Activation, Chain, Conv2d, Fork, Join, Linear, Pool, Scale


def outputs(chain: Chain, x: Tensor) -> Tensor:
    """The network's outputs.

    Args:
        chain: as read.
        x: n×d or n×c×h×w.

    Returns:
        n×k.

    Example:
        >>> import torch
        >>> outputs(Chain((Scale(2.0),), {}), torch.ones(1, 1))
        tensor([[2.]])
    """
    kept: list[Tensor] = []
    h = x
    for op in chain.tape:
        match op:
            case Linear(weight, bias):
                h = functional.linear(h, chain.tensors[weight], None if bias is None else chain.tensors[bias])
            case Conv2d(weight, bias):
                h = convolved(h, op, chain)
            case Activation(sigma):
                h = sigma.value(h)
            case Scale(factor):
                h = h * factor
            case Pool(to):
                h = pooled(h, to)
            case Fork():
                kept.append(h)
            case Join():
                h = kept.pop() + h
            case _:
                h = h.flatten(1)
    return h


def convolved(h: Tensor, op: Conv2d, chain: Chain) -> Tensor:
    """A convolution as a product with the patches.

    Args:
        h: n×c×height×width.
        op: the stage.
        chain: holds its tensors.

    Returns:
        n×channels×height×width.
    """
    kernel = chain.tensors[op.weight]
    sides = (kernel.shape[2], kernel.shape[3])
    z = kernel.flatten(1) @ patches(h, op, sides)
    if op.bias is not None:
        z = z + chain.tensors[op.bias][:, None]
    return z.reshape(len(h), len(kernel), *positions(h, op, sides))


def positions(h: Tensor, op: Conv2d, kernel: tuple[int, int]) -> tuple[int, int]:
    """Height and width of what a convolution gives.

    Args:
        h: n×c×height×width.
        op: the stage.
        kernel: its sides.

    Returns:
        Both.
    """
    spans = [h.shape[2 + i] + 2 * op.padding[i] - op.dilation[i] * (kernel[i] - 1) for i in (0, 1)]
    return ((spans[0] - 1) // op.stride[0] + 1, (spans[1] - 1) // op.stride[1] + 1)


def pooled(h: Tensor, to: tuple[int, int]) -> Tensor:
    """Averages over equal rectangles.

    Args:
        h: n×c×height×width.
        to: height and width afterwards, divisors of those before.

    Returns:
        n×c×to.
    """
    n, c, height, width = h.shape
    return h.reshape(n, c, to[0], height // to[0], to[1], width // to[1]).mean((3, 5))
