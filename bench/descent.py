"""What a step of descent, its probes and the start of a run cost beside the bare forward and backward pass of the same module."""

from __future__ import annotations

import torch

from bench.timing import by_turns
from zeroloss import descend, fully_connected, load
from zeroloss.training import powers_of_four

FEW, MANY = 40, 770  # steps of a run; the default study's take 770 to 1700


def main() -> None:
    data = load("digits", n=100, classes=(3, 8))
    print("\ndescent, digits n=100, AZ L=3: time over a bare forward and backward pass")
    for dtype in (torch.float32, torch.float64):
        for width in (512, 1024):
            net = fully_connected(64, width, 3, dtype=dtype)
            x, y = data.x.to(dtype), data.y.to(dtype)
            trained = [p for p in net.parameters() if p.requires_grad]

            def bare(net=net, x=x, y=y, trained=trained) -> None:
                for _ in range(MANY - FEW):
                    torch.autograd.grad(0.5 * (net(x) - y).square().sum(), trained)

            def run(steps, probes=(), net=net) -> None:
                descend(net, data, step=1e-6, max_steps=steps, until=0.0, probes=probes)

            one_pass, few, many, probed = by_turns(
                bare, lambda run=run: run(FEW), lambda run=run: run(MANY), lambda run=run: run(MANY, powers_of_four(MANY)), rounds=3
            )
            one, step = one_pass / (MANY - FEW), (many - few) / (MANY - FEW)
            print(
                f"  {str(dtype).removeprefix('torch.')} m={width}: bare {1e3 * one:.2f} ms, a step {1e3 * step:.2f} ms, ratio "
                f"{step / one:.2f}; starting a run costs {(few - FEW * step) / step:.1f} steps, default probes {probed / many - 1:.0%}"
            )
