"""From trained float32 weights to a residual at rounding level: how long it takes, how far the weights move, and what is left."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from zeroloss import Dataset, cnn, fully_connected, load, resnet
from zeroloss.certificate import Polished, polish

ADAM = 300  # steps at most
FITTED = 1e-3  # mean squared error at which training ends

QUICK: dict[str, tuple[Callable[[], nn.Module], Callable[[], Dataset]]] = {
    "2-layer relu w256, N=100": (lambda: mlp(nn.ReLU, 64, 256, 1), lambda: load("digits", n=100, classes=(3, 8))),
    "2-layer softplus w256, N=100": (lambda: mlp(nn.Softplus, 64, 256, 1), lambda: load("digits", n=100, classes=(3, 8))),
    "2-layer tanh w256, N=500": (lambda: mlp(nn.Tanh, 64, 256, 10), lambda: load("digits", n=50)),
    "4-layer relu w256, N=200": (lambda: mlp(nn.ReLU, 64, 256, 256, 256, 1), lambda: load("digits", n=200, classes=(3, 8))),
    "16-layer relu w256, N=100": (lambda: mlp(nn.ReLU, 64, *[256] * 15, 1), lambda: load("digits", n=100, classes=(3, 8))),
    "DU resnet w128, N=100": (
        lambda: resnet(64, 128, 3, scheme="du", dtype=torch.float32),
        lambda: load("digits", n=100, classes=(3, 8)),
    ),
    "AZ L=3 w128, N=100": (
        lambda: fully_connected(64, 128, 3, dtype=torch.float32),
        lambda: load("digits", n=100, classes=(3, 8)),
    ),
    "DU cnn 16 channels, N=100": (
        lambda: cnn((1, 8, 8), 16, 3, scheme="du", dtype=torch.float32),
        lambda: load("digits", n=100, classes=(3, 8), flat=False),
    ),
}
LARGE: dict[str, tuple[Callable[[], nn.Module], Callable[[], Dataset]]] = {
    "2-layer relu w1024, N=5000": (lambda: mlp(nn.ReLU, 64, 1024, 10), lambda: load("digits", n=500)),
}


def main(large: bool = False) -> None:
    """Print one line a network; the large ones take minutes."""
    print("\npolish, digits, from float32 weights that Adam has trained")
    for name, (build, data) in (QUICK | LARGE if large else QUICK).items():
        done, seconds = measure(build(), data())
        print(
            f"  {name}: {done.status} in {seconds:.1f} s and {done.steps} Grams, residual {done.history[0]:.1e} -> {done.residual:.1e} "
            f"({done.float64_residual:.1e} in float64), moved {done.moved:.2g}, margin {done.margin:.1e}"
        )


def measure(net: nn.Module, data: Dataset) -> tuple[Polished, float]:
    """Train, polish, and say how long the polish took.

    Args:
        net: in float32, trained by this.
        data: what it trains on.

    Returns:
        What became of it, and seconds.
    """
    train(net, data)
    began = time.perf_counter()
    done = polish(net, data)
    return done, time.perf_counter() - began


def train(net: nn.Module, data: Dataset) -> None:
    """Adam in float32, as a user would."""
    x, y = data.x.float(), data.y.float()
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(ADAM):
        optimiser.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        optimiser.step()
        if float(loss.detach()) < FITTED:
            return


def mlp(activation: type[nn.Module], *dims: int) -> nn.Sequential:
    """Torch's own layers with its own initial weights."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(dims):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


if __name__ == "__main__":
    main("--large" in sys.argv)
