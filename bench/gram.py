"""``make bench-gram``: finite-width Grams beside torch.func's recipe, neural-tangents and nngeometry, in about ten minutes.

Writes docs/results/gram.md. Every figure comes from a process of its own; ratios are of figures of one run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench import peer
from bench.gram_process import NNG, NT, NT_STRUCTURED, OURS, RECIPE, Measured, Way, best, measure
from bench.page import Page, digits, ratio

OUT = Path(__file__).parents[1] / "docs" / "results" / "gram.md"
TOLERANCE = 1e-4  # relative, in the Frobenius norm: all compute in float32
TURNS = 3  # processes of each way, one after the other, of which the quickest counts


@dataclass(frozen=True)
class Case:
    """One network at two numbers of samples.

    Args:
        title: in words.
        network: its name in :data:`bench.peers.gram_networks.NETWORKS`.
        sizes: n, ascending; the last is the one that marks are about.
        peers: way to the largest n it is asked for; what takes much longer or more memory is asked for less.
    """

    title: str
    network: str
    sizes: tuple[int, int]
    peers: tuple[tuple[Way, int], ...]


CASES = {
    "dense": Case(
        "Fully connected 784-1024×3-1",
        "dense",
        (200, 1000),
        ((RECIPE, 200), (NT, 200), (NT_STRUCTURED, 1000), (NNG, 1000)),
    ),
    "dense-10": Case(
        "Fully connected 784-1024×3-10, mean over outputs",
        "dense-10",
        (100, 200),
        ((NT_STRUCTURED, 200), (NNG, 200)),
    ),
    "convolutional": Case(
        "3×3 convolutions 3-64-64-64 on 16×16, global average pooling, 10 outputs, mean",
        "convolutional",
        (25, 50),
        ((RECIPE, 50), (NT, 50), (NT_STRUCTURED, 50), (NNG, 25)),
    ),
    "resnet-20": Case(
        "ResNet-20 on 32×32, BatchNorm in evaluation mode, 10 outputs, mean",
        "resnet-20",
        (16, 64),
        ((RECIPE, 16), (NNG, 16)),
    ),
}


def run(page: Page, case: Case, turns: int = TURNS) -> dict[tuple[str, int], Measured]:
    """Measure one case and write its table.

    Args:
        page: to write to; it knows the time left.
        case: which.
        turns: processes of each way.

    Returns:
        What was measured, by name of the way and n.
    """
    page.write(f"## {case.title}")
    found: dict[tuple[str, int], Measured] = {}
    rows, notes = [], []
    for n in case.sizes:
        ways = [OURS, *(way for way, largest in case.peers if n <= largest)]
        tries: dict[str, list[Measured]] = {way.name: [] for way in ways}
        for turn in range(turns):
            for way in ways:
                earlier = tries[way.name]
                if turn and (earlier[-1].seconds is None or earlier[-1].seconds > 2 or page.left < 60):
                    continue  # what failed fails again, and what takes long is told well enough by one process
                tries[way.name].append(measure(way, case.network, n, seconds=3, patience=max(5.0, min(180.0, 0.5 * page.left))))
        ours = found[OURS.name, n] = best(tries[OURS.name])
        for way in ways:
            each = found[way.name, n] = best(tries[way.name])
            gap = difference(ours, each)
            times = digits(ratio(each.seconds, ours.seconds), ".3g") if way is not OURS else None
            rows.append([way.name, n, digits(each.seconds, ".3g"), times, digits(each.memory, ".0f"), digits(gap, ".1e")])
            if each.reason:
                notes.append(f"{way.name}, n={n}: {each.reason}.")
            if gap is not None:
                page.ask(f"{case.title}, n={n}: {way.name} differs from ours by", gap, TOLERANCE)
    page.table(["way", "n", "CPU s", "over ours", "peak memory, MB", "difference from ours"], rows)
    first, last = (found[OURS.name, n].seconds for n in case.sizes)
    if first and last:
        power = np.log(last / first) / np.log(case.sizes[1] / case.sizes[0])
        notes.append(f"Ours grows as n to the power {power:.2f} from n={case.sizes[0]} to {case.sizes[1]}.")
    if notes:
        page.write(" ".join(notes))
    return found


def difference(ours: Measured, other: Measured) -> float | None:
    """Relative, in the Frobenius norm; None for ours itself and where one is missing."""
    if ours is other or ours.matrix is None or other.matrix is None:
        return None
    a, b = ours.matrix.astype(np.float64), other.matrix.astype(np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def marks(page: Page, name: str, found: dict[tuple[str, int], Measured]) -> None:
    """Hold a case against what was asked of it.

    Args:
        page: which keeps the marks.
        name: of the case.
        found: what :func:`run` measured.
    """

    def seconds(way: Way, n: int) -> float | None:
        return found[way.name, n].seconds if (way.name, n) in found else None

    def over(n: int, *ways: Way) -> float | None:
        theirs = [value for way in ways if (value := seconds(way, n)) is not None]
        return ratio(seconds(OURS, n), min(theirs, default=None))

    title, (few, many) = CASES[name].title, CASES[name].sizes
    if name == "dense":
        page.ask(f"{title}, n={few}: torch.func / ours", ratio(seconds(RECIPE, few), seconds(OURS, few)), 100, at_least=True)
        for way in (NT_STRUCTURED, NNG):
            page.ask(f"{title}, n={few}: ours / {way.name}", over(few, way), 1.1)
        page.ask(f"{title}, n={many}: peak memory", found[OURS.name, many].memory, 400, unit=" MB")
    elif name == "dense-10":
        page.ask(f"{title}, n={many}: CPU time", seconds(OURS, many), 0.5, unit=" s")
    elif name == "convolutional":
        page.ask(f"{title}, n={many}: ours / the best peer", over(many, RECIPE, NT, NT_STRUCTURED, NNG), 0.9)
    else:
        page.ask(f"{title}, n={many}: CPU time", seconds(OURS, many), 8, unit=" s")
        page.ask(f"{title}, n={many}: peak memory", found[OURS.name, many].memory, 1000, unit=" MB")


def machine(versions: dict[str, str]) -> str:
    """The processor and the versions, without a name of the host or a path."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    own = {"Python": platform.python_version(), "torch": torch.__version__, "numpy": importlib.metadata.version("numpy")}
    said = ", ".join(f"{key} {value}" for key, value in {**own, **versions}.items())
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{model}, {os.cpu_count()} cores, {capability}. {said}."


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every case and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=900, help="how long it may take")
    parser.add_argument("--only", choices=CASES, nargs="+", default=list(CASES), help="print these cases and write no file")
    asked = parser.parse_args(arguments)
    for name in ("neural-tangents", "nngeometry"):
        peer.environment(name)  # made before the clock starts
    page = Page(asked.seconds)
    versions: dict[str, str] = {}
    for name in asked.only:
        found = run(page, CASES[name])
        marks(page, name, found)
        for each in found.values():
            versions |= {key: value for key, value in each.versions if key not in ("torch", "numpy")}
    body, page.lines = page.lines, []
    unmet = [mark for mark in page.marks if mark[3] != "yes"]
    page.write("# Finite Grams: CPU time and memory")
    page.write(
        f"Written by `make bench-gram` in {page.spent:.0f} s. {len(page.marks) - len(unmet)} of {len(page.marks)} marks are met. float32. "
        "*CPU s*: processor time of a process that has one core and one thread (threads that wait spin, and that counts), the best call "
        f"of up to five after a first one that warms up or compiles, in the quickest of up to {TURNS} processes taken in turns. "
        "*Peak memory*: of the whole process, imports included. torch.func is PyTorch's own recipe, which forms the Jacobian. NT is "
        "neural-tangents by its default and by its structured derivatives, told to take samples one by one (`vmap_axes=0`), without which "
        "either takes many times as long. All are given the same weights and inputs, and their matrices, averages over the outputs, are "
        "compared with ours in the Frobenius norm. A dash is what was not asked, or what did not end."
    )
    page.write(machine(versions))
    head, page.lines = page.lines, []
    page.write("## Marks")
    page.table(["what", "asked", "measured", "met"], page.marks)
    if asked.only == list(CASES):
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text("\n".join([*head, *body, *page.lines]).rstrip() + "\n", encoding="utf-8")
        sys.stdout.write(f"{OUT}\n")


if __name__ == "__main__":
    main()
