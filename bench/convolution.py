"""Limits of ReLU convolutions of images: CPU time of a pair of images, with global average pooling and with Flatten, float32."""

from __future__ import annotations

import time

import torch
from torch import nn

from zeroloss import limit_kernel
from zeroloss.networks import GaussianConv2d, GaussianLinear

# depth, side of the images, how many: their pairs fill the processor's lanes but for a few per cent
POOLED = ((5, 32, 31), (10, 32, 31), (5, 16, 47), (10, 16, 47))
FLAT = ((5, 32, 256), (10, 32, 256), (5, 16, 512))
ROUNDS = 3


def network(depth: int, side: int, pooled: bool, width: int = 32) -> nn.Sequential:
    """3x3 convolutions; the width is only a factor of the limit."""
    draw, layers = torch.Generator().manual_seed(0), []
    for index in range(depth):
        inputs = width if index else 3
        layers += [GaussianConv2d(inputs, width, (3, 3), variance=2 / (9 * inputs), generator=draw), nn.ReLU()]
    pool, count = ([nn.AdaptiveAvgPool2d(1)], 1) if pooled else ([], side**2)
    return nn.Sequential(*layers, *pool, nn.Flatten(), GaussianLinear(width * count, 1, variance=1 / width, generator=draw))


def seconds_a_pair(depth: int, side: int, count: int, pooled: bool) -> float:
    """Best CPU time of the NTK of so many images with themselves, over the pairs that it needs; all threads count."""
    kernel = limit_kernel(network(depth, side, pooled))
    x = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    kernel(x[:2])  # compile
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        kernel(x)
        best = min(best, time.process_time() - start)
    return best / (count * (count + 1) / 2)


def measure() -> list[tuple[str, float, str, float | None]]:
    """What was measured, in which unit, and what is asked of it."""
    found: list[tuple[str, float, str, float | None]] = []
    for depth, side, count in POOLED:
        asked = 6.0 if (depth, side) == (5, 32) else None
        found.append(
            (f"global pooling, {side}x{side}, depth {depth}", 1e3 * seconds_a_pair(depth, side, count, True), "ms", asked)
        )
    for depth, side, count in FLAT:
        asked = 40.0 if (depth, side) == (5, 32) else None
        found.append((f"flatten, {side}x{side}, depth {depth}", 1e6 * seconds_a_pair(depth, side, count, False), "us", asked))
    return found


def main() -> None:
    print("\nLimit NTK of 3x3 ReLU convolutions, 3 channels, float32: CPU time of a pair")
    for what, value, unit, _ in measure():
        print(f"  {what}: {value:.3g} {unit}")


if __name__ == "__main__":
    main()
