"""Predicted against measured: the stable step at trained points, and the steps to a loss of 1e-2; writes docs/results/edge.md.

Three data sets by five networks, of which the last is far from the theory. Training is in float32 (its sums of steps keep what single
weights would lose); Grams, predictions and the bisection are in float64.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bench.page import Page
from zeroloss.data import Dataset, load
from zeroloss.gram import forward, gram
from zeroloss.networks import cnn, fully_connected, resnet
from zeroloss.training import Edge, Trajectory, descend, linearise, stability_edge, step_verdict

OUT = Path(__file__).parents[1] / "docs" / "results" / "edge.md"
ROWS = 50
TARGET = 1e-2  # of the first loss, for the number of steps
TRAINED = 1e-8  # of the first loss, for the edge
BUDGET = 8_000
TOLERANCE = 0.01
FRESH = 1.5  # times 2/lambda_max, from a fresh start
WIDE = 2048
SECONDS = 1_500.0
DATA = {
    "digits": ("digits", (3, 8), None),
    "MNIST": ("mnist", (3, 8), 14),
    "CIFAR-10": ("cifar10", ("cat", "dog"), 16),
}
Build = Callable[[Dataset, torch.dtype], nn.Module]


def _flat(data: Dataset) -> int:
    return int(data.x[0].numel())


def _plain(data: Dataset) -> nn.Module:
    """Nobody's theory: torch's own layers and draw, 16 channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(data.x.shape[1], 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.LazyLinear(1),
        )  # fmt: skip
        net(data.x[:1].float())
    return net


NETWORKS: dict[str, tuple[int, bool, Build]] = {
    "AZ fully connected, ReLU, L=1": (WIDE, False, lambda d, t: fully_connected(_flat(d), WIDE, 1, dtype=t)),
    "DU fully connected, erf, H=2": (
        WIDE,
        False,
        lambda d, t: fully_connected(_flat(d), WIDE, 2, scheme="du", activation="erf", dtype=t),
    ),
    "DU ResNet, erf, H=2": (WIDE, False, lambda d, t: resnet(_flat(d), WIDE, 2, scheme="du", activation="erf", dtype=t)),
    "CNN, erf, H=2 (DU's scheme)": (
        32,
        True,
        lambda d, t: cnn(tuple(d.x.shape[1:]), 32, 2, scheme="du", activation="erf", dtype=t),
    ),
    "plain torch CNN, ReLU": (16, True, lambda d, t: _plain(d).to(t)),
}


@dataclass(frozen=True)
class Row:
    """One network on one data set.

    Args:
        data: the set's name.
        network: the network's.
        width: its units or channels.
        start: the largest eigenvalue of the Gram at the start.
        told: predicted steps to the target, with the Gram of the start; None for never.
        run: training to the trained point.
        drift: relative change of the Gram's spectral norm until there.
        edge: at the trained point.
        fresh: peak of the loss over its start, and how the run ended, beyond the edge from the start.
        seconds: spent.
    """

    data: str
    network: str
    width: int
    start: float
    told: int | None
    run: Trajectory
    drift: float
    edge: Edge
    fresh: tuple[float, str]
    seconds: float

    @property
    def seen(self) -> int | None:
        """The first step with a loss of the target times the first."""
        reached = (self.run.loss <= TARGET * self.run.loss[0]).nonzero()
        return int(self.run.steps[int(reached[0])]) if len(reached) else None

    @property
    def steps_ratio(self) -> float:
        """Observed over predicted steps."""
        return self.seen / self.told if self.seen and self.told else math.nan


def measure(name: str, network: str, root: str | None) -> Row:
    """Train, predict, bisect.

    Args:
        name: in DATA.
        network: in NETWORKS.
        root: the folder of the image sets; None for what ZEROLOSS_DATA names.
    """
    began = time.perf_counter()
    width, images, build = NETWORKS[network]
    source, classes, size = DATA[name]
    data = load(source, n=ROWS, classes=classes, size=size, flat=not images, root=root)
    exact = build(data, torch.float64)
    kernel, residual = gram(exact, data.x, "full"), (forward(exact, data.x) - data.y).detach()
    linear = linearise(kernel, residual)
    largest = float(linear.eigenvalues[-1])
    eta = 1 / largest
    net = build(data, torch.float32)
    run = descend(net, data, step=eta, until=TRAINED, max_steps=BUDGET)
    late = gram(net.to(torch.float64), data.x, "full")
    drift = float(torch.linalg.matrix_norm(late - kernel, 2)) / largest
    edge = stability_edge(net, data, tolerance=TOLERANCE)
    beyond = descend(build(data, torch.float32), data, step=FRESH * 2 / largest, until=TARGET, max_steps=300)
    fresh = (float(beyond.loss.max() / beyond.loss[0]), beyond.status.value)
    return Row(name, network, width, largest, linear.steps_to(eta, TARGET), run, drift, edge, fresh, time.perf_counter() - began)


def marks(page: Page, rows: list[Row]) -> None:
    """Hold the rows against what was asked for."""
    for row in rows:
        page.ask(f"{row.data}, {row.network}: edge off by", 100 * abs(row.edge.ratio - 1), 3, unit=" %")
    for row in rows:
        if row.width >= WIDE:
            page.ask(f"{row.data}, {row.network}: steps off by", 100 * abs(row.steps_ratio - 1), 20, unit=" %")


def main(root: str | None = None, seconds: float = SECONDS) -> int:
    """Measure every pair while there is time, and write the page; returns how many marks were missed."""
    page, rows = Page(seconds), []
    pairs = [(name, network) for name in DATA for network in NETWORKS]
    page.write("# Prediction and the edge of stability")
    page.write(
        f"Written by `python -m bench.edge`: {ROWS} rows of two classes each (digits and MNIST 3 against 8, CIFAR-10 cat against dog; "
        "MNIST averaged to 14×14 pixels, CIFAR-10 to 16×16), inputs less their mean image, unit norm. torch "
        f"{torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads, {platform.machine()}."
    )
    for name, network in pairs:
        if page.left > 0:
            rows.append(measure(name, network, root))
            print(f"{page.spent:6.0f} s  {name}, {network}: edge {rows[-1].edge.ratio:.4f}, steps {rows[-1].steps_ratio:.3f}")
    page.write(
        f"**The stable step.** Trained at $\\eta=1/\\lambda_{{\\max}}(G(0))$ until the loss is {TRAINED:g} of its start, then perturbed by "
        "1e-4 of the weights' norm in a random direction. *Predicted* is $2/\\lambda_{\\max}(G)$ there; *bisected* is the step at which "
        f"descent from there stops settling, to {100 * TOLERANCE:g} %, in trials of {math.ceil(2 / TOLERANCE)} steps. *Loss there* is "
        "relative to that of zero outputs. A ratio of 1.0037 is the finest reading: the predicted step settled, and one 0.74 % above it "
        "grew."
    )
    page.table(
        ("data", "network", "width", "steps trained", "loss there", "drift of G", "λ_max", "2/λ_max", "bisected", "ratio", "trials"),
        [
            (
                r.data, r.network, r.width, r.run.taken, f"{r.edge.residual:.1e}", f"{100 * r.drift:.1f} %", f"{2 / r.edge.predicted:.4g}",
                f"{r.edge.predicted:.5g}", f"{r.edge.step:.5g}", f"{r.edge.ratio:.4f}", r.edge.trials,
            )
            for r in rows
        ],
    )  # fmt: skip
    for r in rows:
        if r.run.status != "CONVERGED":
            page.write(f"{r.data}, {r.network}, was not trained to its target: {r.run.reason}.")
    page.write(
        f"**Steps to a loss of {TARGET:g} of its start**, at $\\eta=1/\\lambda_{{\\max}}(G(0))$: predicted with the Gram of the start held "
        f"still, and observed. *Fresh start*: what a step of {FRESH:g} times $2/\\lambda_{{\\max}}(G(0))$ did in 300 steps, with the "
        "peak of the loss over its start; `step_verdict` names it beforehand."
    )
    page.table(
        ("data", "network", "width", "λ_max(G(0))", "predicted", "observed", "observed/predicted", "fresh start", "named", "seconds"),
        [
            (
                r.data, r.network, r.width, f"{r.start:.4g}", r.told, r.seen, f"{r.steps_ratio:.3f}",
                f"{r.fresh[1]}, peak {r.fresh[0]:.3g}", step_verdict(FRESH * 2 / r.start, r.start), f"{r.seconds:.0f}",
            )
            for r in rows
        ],
    )  # fmt: skip
    if len(rows) < len(pairs):
        page.write(f"{len(pairs) - len(rows)} pairs were left out: the time of {seconds:.0f} s had passed.")
    tracking(page, root)
    marks(page, rows)
    page.table(("mark", "asked", "measured", "met"), page.marks)
    page.write(f"{page.spent:.0f} s in all.")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(page.lines), encoding="utf-8")
    return sum(met != "yes" for *_, met in page.marks)


def tracking(page: Page, root: str | None) -> None:
    """What following the spectrum costs, and how near it stays, on one run."""
    data = load("digits", n=ROWS, classes=(3, 8), root=root)
    rows = []
    for dtype in (torch.float32, torch.float64):
        spent: dict[tuple[bool, int], float] = {}
        for _ in range(2):
            for track in (False, True):
                for steps in (1, 41):
                    net = NETWORKS["DU fully connected, erf, H=2"][2](data, dtype)
                    start = time.perf_counter()
                    run = descend(net, data, step=0.01, max_steps=steps, until=0.0, probes=(0,), track=track)
                    passed = time.perf_counter() - start
                    spent[track, steps] = min(passed, spent.get((track, steps), math.inf))
        plain, both = ((spent[track, 41] - spent[track, 1]) / 40 for track in (False, True))
        assert run.tracked is not None
        ends = linearise(gram(net.to(torch.float64), data.x, "full"), torch.ones(ROWS)).eigenvalues
        rows.append((str(dtype)[6:], f"{1e3 * plain:.1f} ms", f"{1e3 * both:.1f} ms", f"{(both - plain) / plain / 2:.2f}"))
        first = run.probes[0]
    page.write(
        "**λ_min and λ_max tracked** (`descend(..., track=True)`): the cost of one quotient in updates, at DU's network above on digits, "
        "probed at the start and the end only. It is one backward pass of the run's own forward pass, without the products that form "
        "linear layers' gradients."
    )
    page.table(("dtype", "an update", "with both ends tracked", "one quotient, in updates"), rows)
    held = run.tracked.above_smallest[-2] / ends[0], run.tracked.below_largest[-2] / ends[-1]
    page.write(
        f"In 40 steps λ_min went from {first.smallest:.5g} to {float(ends[0]):.5g} and λ_max from {first.largest:.5g} to "
        f"{float(ends[-1]):.5g}; with the eigenvectors of step 0, step 40 reads {float(held[0]):.6f} and {float(held[1]):.6f} times these."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="folder of the image sets; else ZEROLOSS_DATA")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    main(given.root, given.seconds)
