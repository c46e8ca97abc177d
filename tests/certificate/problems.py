"""Small networks of every kind that certificates cover, and a polish of our own for tests."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from zeroloss import Dataset, cnn, conv_resnet, fully_connected, resnet
from zeroloss.gram import gram
from zeroloss.networks import Abs, Erf, Residual, Scale

SMOOTH = (nn.Softplus, nn.Tanh, nn.Sigmoid, Erf, nn.GELU, nn.SiLU)
KINKED = (nn.ReLU, lambda: nn.LeakyReLU(0.2), Abs, nn.Hardtanh)


def dense(dims, act=nn.ReLU, bias=True, seed=0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(dims)):
        layer = nn.Linear(a, b, bias=bias).double()
        with torch.no_grad():
            layer.weight.copy_(torch.randn(b, a, generator=generator, dtype=torch.float64) * (2 / a) ** 0.5)
            if bias:
                layer.bias.copy_(torch.randn(b, generator=generator, dtype=torch.float64) * 0.3)
        layers += [layer, act()] if i < len(dims) - 2 else [layer]
    return nn.Sequential(*layers)


def families() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Name -> (network, shape of one input)."""
    image = (1, 4, 4)
    torch.manual_seed(1)
    strided = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Conv2d(2, 3, 2, bias=False),
        nn.Softplus(2.0),
        nn.Flatten(),
        nn.Linear(3, 1),
    ).double()
    pooled = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular"), nn.SiLU(), nn.AvgPool2d(2), nn.Conv2d(3, 2, (1, 2)), Abs(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2),
    ).double()  # fmt: skip
    nested = nn.Sequential(
        nn.Linear(3, 4),
        Residual(nn.Sequential(nn.Tanh(), nn.Linear(4, 4)), Scale(0.5)),
        nn.Sigmoid(),
        Scale(-2.0),
        nn.Linear(4, 1),
    ).double()
    found: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "strided": (strided, image),
        "pooled": (pooled, image),
        "nested": (nested, (3,)),
        "az": (fully_connected(3, 5, 2), (3,)),
        "du": (fully_connected(3, 5, 2, outputs=2, scheme="du", activation="gelu"), (3,)),
        "az resnet": (resnet(3, 5, 2, block=2, last_plain=True), (3,)),
        "du resnet": (resnet(3, 5, 3, scheme="du", activation="erf"), (3,)),
        "az cnn": (cnn(image, 2, 2, activation="tanh"), image),
        "du conv resnet": (conv_resnet(image, 2, 2, scheme="du"), image),
    }
    for act in (*SMOOTH, *KINKED):
        found[f"dense {act().__class__.__name__}"] = (dense((3, 4, 4, 2), act), (3,))
    partly = dense((3, 4, 4, 1), nn.Tanh)
    partly[0].requires_grad_(False)
    partly[2].weight.requires_grad_(False)
    found["partly"] = (partly, (3,))
    return found


def inputs(shape: tuple[int, ...], n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def interpolate(module: nn.Module, data: Dataset, steps: int = 40, until: float = 0.0) -> float:
    """Levenberg-Marquardt through the Gram, in place; the residual's norm."""
    trained = [p for p in module.parameters() if p.requires_grad]

    def residual() -> torch.Tensor:
        return module(data.x) - data.y

    damping, norm = 1e-2, float(residual().detach().norm())
    for _ in range(steps):
        if norm <= until:
            break
        G = gram(module, data.x, "full").detach()
        better = False
        for _ in range(8):
            A = G.clone()
            A.diagonal().add_(damping * float(G.diagonal().mean()) if norm > 1e-6 else 1e-300)
            factor, info = torch.linalg.cholesky_ex(A)
            if int(info):
                damping *= 10
                continue
            z = torch.cholesky_solve(residual().detach().reshape(-1, 1), factor).reshape(data.y.shape)
            steps_ = torch.autograd.grad((residual() * z).sum(), trained)
            before = [p.detach().clone() for p in trained]
            with torch.no_grad():
                for p, s in zip(trained, steps_, strict=True):
                    p.sub_(s)
            new = float(residual().detach().norm())
            if new < norm:
                better, damping = True, damping / 6
                break
            with torch.no_grad():
                for p, b in zip(trained, before, strict=True):
                    p.copy_(b)
            damping *= 6
        if not better:
            break
        norm = new
    return norm
