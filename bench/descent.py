"""What a step of descent, its probes and the start of a run cost beside the bare forward and backward pass of the same module."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from zeroloss import Dataset, descend, fully_connected, load
from zeroloss.training import powers_of_four, step_size

STEPS = 770  # of a run; the default study's take 770 to 1700
CHUNK = 16  # steps from one call of descend's progress to the next
RUNS = 3


@dataclass(frozen=True)
class Costs:
    """Of one run.

    Args:
        bare: seconds a bare pass, the median over chunks.
        step: seconds a step, likewise.
        ratio: of a step to a bare pass, the median over chunks of the ratio to the passes before and after.
        start: seconds before the first step.
        probes: their share of the time of the run without them.
    """

    bare: float
    step: float
    ratio: float
    start: float
    probes: float


def main() -> None:
    data = load("digits", n=100, classes=(3, 8))
    print(f"\ndescent, digits n=100, AZ L=3, {STEPS} steps: time over a bare forward and backward pass, medians of {RUNS} runs")
    for dtype in (torch.float32, torch.float64):
        for width in (512, 1024):
            runs = [measure(fully_connected(64, width, 3, dtype=dtype), data) for _ in range(RUNS)]
            bare, step, ratio, start, probes = (
                statistics.median(getattr(run, name) for run in runs) for name in ("bare", "step", "ratio", "start", "probes")
            )
            print(
                f"  {str(dtype).removeprefix('torch.')} m={width}: bare {1e3 * bare:.2f} ms, a step {1e3 * step:.2f} ms, ratio "
                f"{ratio:.2f}; starting a run costs {start / step:.1f} steps, default probes {probes:.1%} of the run"
            )


def measure(net: nn.Module, data: Dataset) -> Costs:
    """Run descent that stands aside after every chunk for bare passes, so that a drifting machine drifts under both.

    Args:
        net: trained by this.
        data: what it trains on.

    Returns:
        What the run cost.
    """
    eta = step_size("auto", net, data)
    parameter = next(net.parameters())
    x, y = data.x.to(parameter), data.y.to(parameter)
    trained = [p for p in net.parameters() if p.requires_grad]
    began = time.perf_counter()
    descend(net, data, step=eta, max_steps=0, until=0.0)
    start = time.perf_counter() - began
    ours, theirs = [], []

    def aside(*_: object) -> None:
        nonlocal since
        ours.append((time.perf_counter() - since) / CHUNK)
        since = time.perf_counter()
        for _ in range(CHUNK // 2):
            torch.autograd.grad(0.5 * (net(x) - y).square().sum(), trained)
        theirs.append((time.perf_counter() - since) / (CHUNK // 2))
        since = time.perf_counter()

    began = since = time.perf_counter()
    run = descend(net, data, step=eta, max_steps=STEPS, until=0.0, probes=powers_of_four(STEPS), progress=aside)
    whole = time.perf_counter() - began - theirs[-1] * (CHUNK // 2)  # the last call comes after the run's own clock has stopped
    step = statistics.median(ours[1:-1])  # the first chunk has the start in it, and the last is not a whole one
    ratio = statistics.median(2 * ours[i] / (theirs[i - 1] + theirs[i]) for i in range(1, len(ours) - 1))
    return Costs(statistics.median(theirs), step, ratio, start, (whole - run.seconds - start) / (start + STEPS * step))
