"""Finite networks of any module, for Monte Carlo: tangent kernels layer by layer from plain gradients, and outputs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn


def tangents(module: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every trained layer's share of the tangent kernel of the first output, from one gradient a row."""
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    parameters = [p for p in module.parameters() if p.requires_grad]
    outputs = module(x)
    outputs = outputs[:, 0]
    rows = [torch.autograd.grad(value, parameters, retain_graph=True) for value in outputs]
    shares: dict[str, torch.Tensor] = {}
    for name, *gradients in zip(names, *rows, strict=True):
        layer = name.rpartition(".")[0]
        jacobian = torch.stack([g.flatten() for g in gradients])
        shares[layer] = shares.get(layer, 0) + jacobian @ jacobian.T
    return shares


def worst_z(limits: dict[str, torch.Tensor], build: Callable[[], nn.Module], x: torch.Tensor, draws: int) -> float:
    """The largest distance of a layer's mean share from its limit, in standard errors, over entries on and above the diagonal.

    A finite width leaves a bias of order 1/m: it is allowed one part in 500 of the layer's largest entry.
    """
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in limits}
    for seed in range(draws):
        torch.manual_seed(seed)
        for name, share in tangents(gaussian(build()).double(), x).items():
            seen[name].append(share)
    worst = 0.0
    for name, limit in limits.items():
        values = torch.stack(seen[name])
        error = (values.std(0) / math.sqrt(draws)).hypot(limit.abs().max() / 500)
        worst = max(worst, float(((values.mean(0) - limit).abs() / error).max()))
    return worst


def gaussian(module: nn.Module) -> nn.Module:
    """The module with normal weights of the variance that torch's uniform ones have: few inputs then leave nothing but the width."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            std = (3 * layer.weight[0].numel()) ** -0.5
            for parameter in layer.parameters():
                nn.init.normal_(parameter, std=std)
    return module
