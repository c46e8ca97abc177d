"""DU-01 over every family and activation: the mean Gram of 4 draws at width 4096 against the limit (``make battery``)."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from zeroloss import gram, limit_kernel
from zeroloss.networks import ACTIVATIONS
from zeroloss.study import NetworkSpec
from zeroloss.study.building import build

OUT = Path(__file__).parents[1] / "docs" / "results" / "battery.md"
WIDTH, DRAWS, ROWS, DEPTH, LIMIT = 4096, 4, 8, 2, 0.05
# AZ's B has variance 1/k: many outputs average its own fluctuation away, which is not the kernel's
FAMILIES = {
    "AZ fully connected": ("fully_connected", "allen-zhu", 10, 16),
    "AZ CNN": ("cnn", "allen-zhu", (2, 1, 6), 16),
    "AZ ResNet": ("resnet", "allen-zhu", 10, 16),
    "DU fully connected": ("fully_connected", "du", 10, 1),
    "DU ResNet": ("resnet", "du", 10, 1),
    "DU conv ResNet": ("conv_resnet", "du", (2, 1, 6), 1),
}


def gap(family: str, activation: str, width: int = WIDTH, draws: int = DRAWS) -> float:
    r"""$\|\overline{G(0)}-\Theta\|_F/\|\Theta\|_F$ over the mean of some draws, in float32 networks.

    Args:
        family: a key of FAMILIES.
        activation: a name in ACTIVATIONS.
        width: m.
        draws: how many.
    """
    name, scheme, inputs, outputs = FAMILIES[family]
    kernel = None if isinstance(inputs, int) else (1, 3)
    shape = (inputs,) if isinstance(inputs, int) else inputs
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(ROWS, *shape, dtype=torch.float64, generator=generator).flatten(1))
    x = x.reshape(ROWS, *shape)
    mean, net = torch.zeros(ROWS, ROWS, dtype=torch.float64), None
    for seed in range(draws):
        spec = NetworkSpec(family, name, scheme, activation, width, DEPTH, seed, kernel=kernel)
        net = build(spec, inputs, outputs, torch.float32)
        mean += gram(net, x).to(torch.float64) / draws
    limit = limit_kernel(net)(x)
    return float((mean - limit).norm() / limit.norm())


def main() -> None:
    """Measure everything and write the table."""
    started, table = time.perf_counter(), {}
    for family in FAMILIES:
        for activation in ACTIVATIONS:
            table[family, activation] = gap(family, activation)
            sys.stderr.write(f"{family} {activation}: {100 * table[family, activation]:.2f} %\n")
    worst = max(table.values())
    lines = [
        "# The recursions against finite networks (DU-01)",
        "",
        f"Written by `make battery`: relative Frobenius distance in per cent between the limit kernel and the mean Gram of {DRAWS} "
        f"draws at width {WIDTH}, depth {DEPTH}, {ROWS} random rows of norm 1 (ten features; for "
        f"convolutions 2×1×6 images and patches of 3). The "
        f"largest is {100 * worst:.2f} %; {100 * LIMIT:.0f} % are allowed. torch {torch.__version__}, float32 networks, float64 limits, "
        f"{torch.get_num_threads()} threads, {time.perf_counter() - started:.0f} s.",
        "",
        "| activation | " + " | ".join(FAMILIES) + " |",
        "|---" * (1 + len(FAMILIES)) + "|",
    ]
    for activation in ACTIVATIONS:
        cells = [f"{100 * table[family, activation]:.2f}" for family in FAMILIES]
        lines += [f"| {activation} | " + " | ".join(cells) + " |"]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write(f"{OUT}\n")
    sys.exit(int(worst >= LIMIT))


if __name__ == "__main__":
    main()
