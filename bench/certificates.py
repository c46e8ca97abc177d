"""Write docs/results/certificates.md: what is proved about trained networks, and how long it takes. ``python -m bench.certificates``."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from zeroloss import Certificate, Dataset, certify, cnn, fully_connected, load, polish, resnet
from zeroloss.certificate import Fails, Status

OUT = Path(__file__).parents[1] / "docs" / "results" / "certificates.md"
TRAINING = 400  # steps of Adam before the polish: enough to be near, and quick


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        title: the network in words.
        make: the network and its data, before training.
        precision: of the residual.
        start: ``"adam"`` and a polish, ``"head"`` (the last layer solved for alone, then a polish), ``"polish"`` alone, or ``"none"``:
            initial weights.
        scale: of the outputs.
    """

    title: str
    make: Callable[[], tuple[nn.Module, Dataset]]
    precision: str = "float64"
    start: str = "adam"
    scale: float = 1.0


def relu(n: int, widths: tuple[int, ...], outputs: int = 1, source: str = "digits") -> tuple[nn.Module, Dataset]:
    """A plain ReLU network with biases and He's weights, and rows with signs of odd digits or one-hot targets."""
    data = load(source, n=n)
    if outputs == 1 and data.labels is not None:
        data = Dataset(data.x, 2.0 * (data.labels % 2) - 1)
    torch.manual_seed(n + sum(widths))
    sizes, layers = (data.x.shape[1], *widths), list[nn.Module]()
    for inputs, units in zip(sizes, widths, strict=False):
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")  # type: ignore[arg-type]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs)).double(), data


def signs(n: int, source: str = "digits", flat: bool = True, size: int | None = None) -> Dataset:
    """Rows with the sign of odd classes as targets."""
    data = load(source, n=n, flat=flat, size=size)
    assert data.labels is not None
    return Dataset(data.x, 2.0 * (data.labels % 2) - 1)


def photographs(n: int) -> tuple[nn.Module, Dataset]:
    """CIFAR-10 in full size, and a convolutional network of three layers."""
    return cnn((3, 32, 32), 16, 3, scheme="du", activation="softplus"), signs(n, "cifar10", flat=False)


def antisymmetric(n: int, width: int) -> tuple[nn.Module, Dataset]:
    """DU's two-layer softplus network whose outputs start at zero: every unit twice, with opposite signs; the hidden layer trained."""
    data = signs(n)
    net = fully_connected(data.x.shape[1], width, 1, scheme="du", activation="softplus", trained="W1")
    with torch.no_grad():
        hidden, head = (p for p in net.parameters())
        hidden[width // 2 :] = hidden[: width // 2]
        head.copy_(head.sign())
        head[0, width // 2 :] = -head[0, : width // 2]
    return net, data


ROWS = (
    Row("2-layer ReLU, width 256", lambda: relu(100, (256,))),
    Row("2-layer ReLU, width 1024", lambda: relu(200, (1024,))),
    Row("4-layer ReLU, width 256", lambda: relu(200, (256,) * 3)),
    Row("4-layer ReLU, width 1024", lambda: relu(500, (1024,) * 3)),
    Row("16-layer ReLU, width 256", lambda: relu(100, (256,) * 15), precision="extended"),
    Row("2-layer ReLU, width 2400, all digits", lambda: relu(1797, (2400,))),
    Row("2-layer ReLU, width 1024, 10 outputs", lambda: relu(500, (1024,), outputs=10), start="head"),
    Row("2-layer ReLU, width 2048, 10 outputs, MNIST", lambda: relu(1000, (2048,), 10, "mnist"), "extended", start="head"),
    Row("AZ residual, width 256, L = 3", lambda: (resnet(64, 256, 3), signs(100))),
    Row("DU residual, width 256, H = 3, softplus", lambda: (resnet(64, 256, 3, scheme="du", activation="softplus"), signs(100))),
    Row("3-layer CNN, 16 channels, CIFAR-10", lambda: photographs(100), start="polish"),
    Row("softplus from initial weights, width 4096", lambda: antisymmetric(10, 4096), start="none"),
    Row("softplus from initial weights, width 65 536", lambda: antisymmetric(20, 65_536), start="none"),
    Row("softplus from initial weights, width 256, κ = 16", lambda: antisymmetric(10, 256), start="none", scale=16.0),
)  # fmt: skip


def fit(module: nn.Module, data: Dataset, steps: int = TRAINING) -> None:
    """Adam, in place."""
    optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = 0.5 * (module(data.x) - data.y).square().sum() / data.n
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if float(loss.detach()) < 1e-6:
            break


def fit_head(module: nn.Module, data: Dataset) -> None:
    """The last layer of least norm that fits what is left of the targets, three times over for the rounding; in place."""
    *body, head = module.children()
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        h = nn.Sequential(*body)(data.x)
        for _ in range(3):
            head.weight.add_((h.T @ torch.linalg.solve(h @ h.T, data.y - head(h))).T)


def line(row: Row) -> str:
    """Train, polish, certify, and print a line of the table."""
    began = time.perf_counter()
    module, data = row.make()
    moved = ""
    if row.start in ("adam", "head"):
        (fit if row.start == "adam" else fit_head)(module, data)
    if row.start != "none":
        done = polish(module, data)
        module, moved = done.module, f"{done.residual:.1g}"
    ready = time.perf_counter()
    found = certify(module, data, precision=row.precision, scale=row.scale)
    seconds = time.perf_counter() - ready
    sys.stderr.write(f"{row.title}: {found.status} {found.reason} ({ready - began:.0f} + {seconds:.1f} s)\n")
    return cells(row, found, moved, seconds)


def cells(row: Row, c: Certificate, polished: str, seconds: float) -> str:
    """A line of the table."""
    n = c.numbers
    gd = "–" if c.gd is None or isinstance(c.gd, Fails) else f"{c.gd.step:.2g}"
    if c.status is not Status.PROVED:
        return f"| {row.title} | {n.N} | {n.P} | {polished} | {c.status}: {c.reason} | | | | | | {seconds:.1f} s |"
    return (
        f"| {row.title} | {n.N} | {n.P} | {polished} | {n.near:.2g} | {n.residual:.1g} | {c.radius:.1g} | {c.lipschitz:.2g} | {c.h:.1g} | "
        f"{gd} | {seconds:.1f} s |"
    )


def main() -> None:
    """Write the page; numbers on the command line choose rows to try without writing."""
    chosen = [int(word) for word in sys.argv[1:]]
    lines = [line(row) for i, row in enumerate(ROWS) if not chosen or i in chosen]
    head = [
        "# Certificates",
        "",
        "What `certify` proves about trained networks: exact zero-loss weights within the radius, and convergence of gradient flow to them "
        "(Theorem 1 of [certificates](../certificates.md)). ρ bounds the residual with every rounding error included; h must be below 1/2. "
        "Digits with the signs of odd classes unless the line says otherwise; all layers count as trained: Adam (ten outputs: the head "
        "alone; the CNN: nothing), then `polish`. The lines "
        "\"from initial weights\" train nothing: the hidden layer's descent from an antisymmetric start is certified before it begins.",
        "",
        f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads, {platform.machine()}. Written "
        "by `python -m bench.certificates`.",
        "",
        "| network | N = n·k | P | residual after polish | λ_min | ρ | radius | Λ | h | certified step of descent | certificate took |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    text = "\n".join([*head, *lines]) + "\n"
    if chosen:
        sys.stdout.write("\n".join(lines) + "\n")
    else:
        OUT.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{OUT}\n")


if __name__ == "__main__":
    main()
