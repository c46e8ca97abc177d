"""What a step of descent costs beside the bare forward and backward pass of the same module, at two widths."""

from __future__ import annotations

import torch

from bench.timing import by_turns
from zeroloss import descend, fully_connected, load

STEPS = 40


def main() -> None:
    data = load("digits", n=100, classes=(3, 8))
    print("\ndescent, digits n=100, AZ L=3, float32: time of a step over a bare forward and backward pass")
    for width in (512, 1024):
        net = fully_connected(64, width, 3, dtype=torch.float32)
        x, y = data.x.float(), data.y.float()
        trained = [p for p in net.parameters() if p.requires_grad]

        def bare(net=net, x=x, y=y, trained=trained) -> None:
            for _ in range(STEPS):
                torch.autograd.grad(0.5 * (net(x) - y).square().sum(), trained)

        def ours(net=net) -> None:
            descend(net, data, step=1e-6, max_steps=STEPS, until=0.0)

        a, b = by_turns(bare, ours)
        print(f"  m={width}: bare {1e3 * a / STEPS:.2f} ms, descend {1e3 * b / STEPS:.2f} ms, ratio {b / a:.2f}")
