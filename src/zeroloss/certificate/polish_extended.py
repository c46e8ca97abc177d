r"""A network's outputs in double-double arithmetic: what the residual is where float64 no longer knows it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroloss.certificate.double_double import Pair, multiplied, product, slice_bits, slices
from zeroloss.certificate.polish_functions import function_of
from zeroloss.networks import Network, Residual, Scale

ENTRIES = 2**22  # of the widest layer's signal held at once; more rows go in turns

Layer = Callable[[Pair], Pair]
_MODES = {"zeros": "constant", "circular": "circular", "reflect": "reflect", "replicate": "replicate"}


def extended_outputs(module: nn.Module, x: Tensor, rows: int) -> Pair | None:
    r"""$f(x)$ to about 25 digits, for chains of linear layers, convolutions, average pools, scales, skips and common activations.

    Args:
        module: in float64; its weights count as exact.
        x: n inputs, float64, likewise.
        rows: how many are taken at once.

    Returns:
        The n×k outputs; None where the module has a part whose exact function is not known here.

    Example:
        >>> layer = nn.Linear(3, 1, bias=False).double()
        >>> with torch.no_grad():
        ...     _ = layer.weight.copy_(torch.tensor([[1.0, 2.0**-66, -1.0]]))
        >>> x = torch.ones(1, 3, dtype=torch.float64)
        >>> layer(x).item(), extended_outputs(layer, x, 1).high.item() == 2.0**-66
        (0.0, True)
    """
    steps = _steps(module)
    if steps is None:
        return None
    with torch.no_grad():
        parts = [_through(steps, Pair.of(some)) for some in torch.split(x, rows)]
    return Pair(torch.cat([p.high.flatten(1) for p in parts]), torch.cat([p.low.flatten(1) for p in parts]))


def _through(steps: list[Layer], h: Pair) -> Pair:
    for step in steps:
        h = step(h)
    return h


def _steps(module: nn.Module) -> list[Layer] | None:
    """What to do one after the other; None for an unknown part."""
    if module._forward_hooks or module._forward_pre_hooks or module._parameters.keys() - {"weight", "bias"}:
        return None
    if isinstance(module, Residual) or type(module) in (nn.Sequential, Network):
        inner: list[Layer] = []
        for child in module.children():
            steps = _steps(child)
            if steps is None:
                return None
            inner += steps
        return [lambda h: h + _through(inner, h)] if isinstance(module, Residual) else inner
    if isinstance(module, nn.Identity) or (isinstance(module, nn.Dropout) and not module.training):
        return []
    layer = _layer(module)
    return None if layer is None else [layer]


def _layer(module: nn.Module) -> Layer | None:
    if any(True for _ in module.children()):  # a parametrised weight is not what it seems
        return None
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return lambda h: _shifted(product(h, Pair.of(module.weight.detach().T)), module.bias, -1)
    if isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward and module.groups == 1:
        return lambda h: _convolved(module, h)
    if isinstance(module, Scale):
        return lambda h: h * module.factor
    if isinstance(module, nn.Flatten):
        return lambda h: h.map(module)
    if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
        return _mean
    if (
        isinstance(module, nn.AvgPool2d)
        and not module.ceil_mode
        and module.padding in (0, (0, 0))
        and not module.divisor_override
    ):
        return lambda h: _pooled(module, h)
    return function_of(module)


def _shifted(h: Pair, bias: Tensor | None, dim: int) -> Pair:
    if bias is None:
        return h
    shape = [1] * h.high.ndim
    shape[dim] = -1
    return h + Pair.of(bias.detach().reshape(shape).expand_as(h.high))


def _convolved(layer: nn.Conv2d, h: Pair) -> Pair:
    """A product of the kernel with all patches; padding and unfolding only move entries."""
    size = (int(layer.kernel_size[0]), int(layer.kernel_size[1]))
    stride, dilation = (int(s) for s in layer.stride), (int(d) for d in layer.dilation)
    (sy, sx), (dy, dx) = stride, dilation
    around = [int(p) for p in layer._reversed_padding_repeated_twice]
    bits = slice_bits(layer.weight[0].numel())
    padded = [functional.pad(part, around, _MODES[layer.padding_mode]) for part in slices(h, bits)]
    height = (padded[0].shape[2] - dy * (size[0] - 1) - 1) // sy + 1
    patches = [functional.unfold(part, size, (dy, dx), stride=(sy, sx)).transpose(0, 1).flatten(1) for part in padded]
    kernel = slices(Pair.of(layer.weight.detach().flatten(1)), bits, -1)
    n = len(h.high)
    z = multiplied(kernel, patches).map(lambda part: part.reshape(len(part), n, height, -1).transpose(0, 1))
    return _shifted(z, layer.bias, 1)


def _mean(h: Pair) -> Pair:
    n, c = h.high.shape[:2]
    return _average(h.map(lambda part: part.flatten(2))).map(lambda part: part.reshape(n, c, 1, 1))


def _pooled(layer: nn.AvgPool2d, h: Pair) -> Pair:
    n, c = h.high.shape[:2]
    size = layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size, layer.kernel_size)
    stride = layer.stride if isinstance(layer.stride, tuple) else (layer.stride, layer.stride)
    height = (h.high.shape[2] - size[0]) // stride[0] + 1
    windows = h.map(
        lambda part: part.unfold(2, size[0], stride[0]).unfold(3, size[1], stride[1]).reshape(n, c, -1, size[0] * size[1])
    )
    return _average(windows).map(lambda part: part.reshape(n, c, height, -1))


def _average(h: Pair) -> Pair:
    """Over the last dimension."""
    count = h.high.shape[-1]
    ones = Pair.of(h.high.new_ones(count, 1))
    total = product(h, ones).map(lambda part: part.squeeze(-1))
    return total / Pair.of(torch.full_like(total.high, float(count)))
