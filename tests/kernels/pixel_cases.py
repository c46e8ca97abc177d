"""A twin of the limit that keeps one joint matrix over all pixels of all images, and the networks that it is tried on."""

from __future__ import annotations

import math
from contextlib import contextmanager
from unittest import mock

import torch
from torch import nn

from zeroloss.kernels import convolution
from zeroloss.networks import GaussianConv2d, GaussianLinear, Scale


def joint_kernels(layers, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """NNGP and NTK of a list of layers, all trained: every formula for whole matrices, textbook arc cosines, no symmetry used."""
    n, c, size = x.shape[0], x.shape[1], x.shape[2:]
    flat = x.permute(0, 2, 3, 1).reshape(-1, c)
    S, width = flat @ flat.T / c, c
    T = torch.zeros_like(S)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            maps, size = shifts(layer, size)
            S, T = (sum(spread(m, n) @ V @ spread(m, n).T for m in maps) for V in (S, T))
            S, T, width = weights(layer, S, T, width), weights(layer, S, T, width, tangent=True), layer.out_channels
        elif isinstance(layer, nn.Linear):
            S, T, width = weights(layer, S, T, width), weights(layer, S, T, width, tangent=True), layer.out_features
        elif isinstance(layer, nn.ReLU):
            root = S.diagonal().clamp(min=1e-300).sqrt()
            angle = (S / root[:, None] / root).clamp(-1, 1).acos()
            angle.fill_diagonal_(0)
            T = T * (math.pi - angle) / (2 * math.pi)
            S = root[:, None] * root * (angle.sin() + (math.pi - angle) * angle.cos()) / (2 * math.pi)
        elif isinstance(layer, Scale):
            S, T = S * layer.factor**2, T * layer.factor**2
        elif isinstance(layer, nn.Flatten):
            pixels = size.numel()
            S, T = (V.reshape(n, pixels, n, pixels).diagonal(dim1=1, dim2=3).mean(-1) for V in (S, T))
            width, size = width * pixels, torch.Size((1, 1))
        else:
            units = torch.eye(size.numel(), dtype=torch.float64).reshape(-1, 1, *size)
            pooled = layer(units)
            A, size = spread(pooled.flatten(1).T, n), pooled.shape[2:]
            S, T = A @ S @ A.T, A @ T @ A.T
    return S, T


def shifts(layer: nn.Conv2d, size: torch.Size) -> tuple[list[torch.Tensor], torch.Size]:
    """One matrix an offset of the patch, read off from torch's own convolution with a one-hot kernel."""
    one = nn.Conv2d(
        1, 1, layer.kernel_size, layer.stride, layer.padding, padding_mode=layer.padding_mode, bias=False, dtype=torch.float64
    )
    units, maps = torch.eye(size.numel(), dtype=torch.float64).reshape(-1, 1, *size), []
    for offset in range(one.weight.numel()):
        with torch.no_grad():
            one.weight.zero_().flatten()[offset] = 1
            out = one(units)
        maps.append(out.flatten(1).T)
    return maps, out.shape[2:]


def spread(matrix: torch.Tensor, n: int) -> torch.Tensor:
    return torch.kron(torch.eye(n, dtype=torch.float64), matrix.contiguous())


def weights(layer, S, T, width, tangent=False):
    fan_in = layer.weight[0].numel()
    variance = getattr(layer, "variance", 1 / (3 * fan_in))
    bias = 0 if layer.bias is None else 1
    if tangent:
        return variance * width * T + width * S + bias
    return variance * width * S + bias / (3 * fan_in)


def he(inputs: int, outputs: int, kernel=(3, 3), seed=0, **more) -> GaussianConv2d:
    generator = torch.Generator().manual_seed(seed)
    return GaussianConv2d(inputs, outputs, kernel, variance=2 / (kernel[0] * kernel[1] * inputs), generator=generator, **more)


def readout(inputs: int, seed=0, **more) -> GaussianLinear:
    return GaussianLinear(inputs, 1, variance=1 / inputs, generator=torch.Generator().manual_seed(seed), **more)


def stack(depth: int, m: int, kernel=(3, 3), channels=3, pixels=1, seed=0, padding="zeros") -> nn.Sequential:
    """ReLU convolutions; global average pooling for one pixel, else Flatten of so many."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [he(m if index else channels, m, kernel, seed=100 * seed + index, padding=padding), nn.ReLU()]
    pool = [nn.AdaptiveAvgPool2d(1)] if pixels == 1 else []
    return nn.Sequential(*layers, *pool, nn.Flatten(), readout(m * pixels, seed=100 * seed + 99))


@contextmanager
def in_torch():
    """No compiled code: every module takes the general walk."""
    with mock.patch.object(convolution, "stack_of", return_value=None):
        yield


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest relative difference of any entry."""
    return float(((a.double() - b.double()).abs() / b.double().abs()).max())
