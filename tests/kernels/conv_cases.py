"""Convolutional networks of both papers, built from layers, and their finite tangent kernels, for the batteries here."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from zeroloss.networks import GaussianConv2d, GaussianLinear, Residual, Scale, c_sigma, find_activation

C_RES = 0.9


def conv_resnet(
    shape: tuple[int, int, int], m: int, depth: int, kernel: tuple[int, int], activation="relu", seed=0, dtype=torch.float64
) -> nn.Sequential:
    """DU's (THEORY 3.1): every weight N(0, 1), zeros beyond the border."""
    sigma, generator = find_activation(activation), torch.Generator().manual_seed(seed)
    draw = {"variance": 1.0, "generator": generator, "dtype": dtype}
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["W1"] = GaussianConv2d(shape[0], m, kernel, **draw)
    layers["sigma1"] = sigma.module()
    layers["scale1"] = Scale(math.sqrt(c_sigma(sigma) / m))
    for h in range(2, depth + 1):
        inside = [(f"W{h}", GaussianConv2d(m, m, kernel, **draw)), (f"sigma{h}", sigma.module())]
        layers[f"block{h}"] = Residual(OrderedDict([*inside, (f"scale{h}", Scale(C_RES / (depth * math.sqrt(m))))]))
    layers["flatten"] = nn.Flatten()
    layers["a"] = GaussianLinear(m * shape[1] * shape[2], 1, **draw)
    return nn.Sequential(layers)


def cnn(
    shape: tuple[int, int, int],
    m: int,
    depth: int,
    kernel: tuple[int, int],
    padding="zeros",
    outputs=1,
    seed=0,
    dtype=torch.float64,
) -> nn.Sequential:
    """AZ's (THEORY 1.10): A and B frozen, W_L fully connected."""
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": dtype}
    spread = 2 / (kernel[0] * kernel[1] * m)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["A"] = GaussianConv2d(shape[0], m, kernel, variance=spread, padding=padding, trained=False, **draw)
    layers["phi0"] = nn.ReLU()
    for index in range(1, depth):
        layers[f"W{index}"] = GaussianConv2d(m, m, kernel, variance=spread, padding=padding, **draw)
        layers[f"phi{index}"] = nn.ReLU()
    layers["flatten"] = nn.Flatten()
    layers[f"W{depth}"] = GaussianLinear(m * shape[1] * shape[2], m, variance=2 / m, **draw)
    layers[f"phi{depth}"] = nn.ReLU()
    layers["B"] = GaussianLinear(m, outputs, variance=1 / outputs, trained=False, **draw)
    return nn.Sequential(layers)


def images(n: int, shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    """Random images whose pixels have norms from 0.3 to 1.5, every image in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    x = functional.normalize(torch.randn(n, *shape, dtype=torch.float64, generator=generator))
    count = shape[1] * shape[2]
    order = torch.stack([torch.randperm(count, generator=generator) for _ in range(n)])
    norms = torch.linspace(0.3, 1.5, count, dtype=torch.float64)[order]
    return x * norms.reshape(n, 1, *shape[1:])


def finite_kernels(module: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    r"""Every trained layer's share of the first output's tangent kernel, $\sum_{l,r}(\delta_l\cdot\delta_r)(\phi_l\cdot\phi_r)$."""
    calls = {}
    handles = [
        layer.register_forward_hook(lambda layer, inputs, result, name=name: calls.update({name: (layer, inputs[0], result)}))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.requires_grad
    ]
    output = module(x.detach().to(next(module.parameters()).dtype))[:, 0].sum()
    for handle in handles:
        handle.remove()
    deltas = torch.autograd.grad(output, [result for _, _, result in calls.values()])
    shares = {}
    for (name, (layer, inputs, _)), delta in zip(calls.items(), deltas, strict=True):
        patches = inputs.detach()
        if isinstance(layer, nn.Conv2d):
            mode, (high, wide) = "circular" if layer.padding_mode == "circular" else "constant", layer.padding
            patches = functional.unfold(
                functional.pad(patches, (wide, wide, high, high), mode=mode), layer.kernel_size, stride=layer.stride
            )
        else:
            patches = patches[:, :, None]
        delta = delta.flatten(2) if delta.ndim == 4 else delta[:, :, None]
        inner = torch.einsum("ial,jar->ijlr", patches, patches).to(torch.float64)
        outer = torch.einsum("ial,jar->ijlr", delta, delta).to(torch.float64)
        shares[name] = (inner * outer).sum((2, 3))
    return shares


def mean_kernels(build, x: torch.Tensor, draws: int) -> dict[str, torch.Tensor]:
    total: dict[str, torch.Tensor] = {}
    for seed in range(draws):
        for name, share in finite_kernels(build(seed), x).items():
            total[name] = total.get(name, torch.zeros_like(share)) + share / draws
    return total


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def relu_pair(sii: float, sij: float, sjj: float) -> tuple[float, float]:
    """E[relu(u) relu(v)] and E[relu'(u) relu'(v)] (THEORY 3.6)."""
    size = math.sqrt(sii * sjj)
    theta = math.acos(max(-1.0, min(1.0, sij / size)))
    return size * (math.sin(theta) + (math.pi - theta) * math.cos(theta)) / (2 * math.pi), (math.pi - theta) / (2 * math.pi)
