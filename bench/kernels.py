"""``make bench-kernels``: limit kernels beside a matrix product, beside 40 digits and beside neural-tangents, in about ten minutes.

Writes docs/results/kernels.md. Speeds are ratios of things timed in one run; what no time was left for is a dash.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path

import torch

from bench import peer
from bench.convolution import measure
from bench.kernel_accuracy import accuracy, duplicates
from bench.kernel_process import processes
from bench.kernel_speed import growth, matrix_free, speed
from bench.page import Page

OUT = Path(__file__).parents[1] / "docs" / "results" / "kernels.md"
SECTIONS = ("speed", "processes", "matrix-free", "growth", "accuracy", "duplicates", "convolution")


def machine() -> str:
    """The processor and the versions, without a name of the host or a path."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    capability = torch.backends.cpu.get_cpu_capability()
    versions = [f"Python {platform.python_version()}"]
    for name in ("torch", "numba", "numpy", "scipy", "mpmath"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    pins = [line for line in peer.REQUIREMENTS.read_text(encoding="utf-8").splitlines() if line[:1].isalpha()]
    theirs = "neural-tangents is not here" if peer.environment()[0] is None else ", ".join(p.replace("==", " ") for p in pins)
    return (
        f"{model}, {os.cpu_count()} cores, {capability}, {torch.get_num_threads()} threads. {', '.join(versions)}. "
        f"The peer, in an environment of its own: {theirs}."
    )


def convolution(page: Page) -> None:
    """The convolutional kernels' own benchmark, where there is one: what it returns or prints."""
    page.write("## Convolutional")
    page.write("Limit NTK of 3x3 ReLU convolutions, 3 channels, float32: CPU time of a pair of images on one core.")
    found = measure()
    page.table(["network", "time", "unit"], [[what, f"{value:.3g}", unit] for what, value, unit, _ in found])
    for what, value, unit, asked in found:
        if asked is not None:
            page.ask(f"{what}: a pair", value, asked, unit=f" {unit}")


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=5000, help="rows of the main table")
    parser.add_argument("--seconds", type=float, default=570, help="how long it may take")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS, help="print these sections and write no file")
    asked = parser.parse_args()
    peer.environment()  # made before the clock starts
    page = Page(asked.seconds)
    page.write(machine())
    sections = {
        "speed": lambda: speed(page, asked.n),
        "processes": lambda: processes(page, asked.n),
        "matrix-free": lambda: matrix_free(page, (asked.n, 2 * asked.n)),
        "growth": lambda: growth(page, asked.n),
        "accuracy": lambda: accuracy(page),
        "duplicates": lambda: duplicates(page),
        "convolution": lambda: convolution(page),
    }
    for name in asked.only:
        if page.left > 0:
            sections[name]()
        else:
            page.write(f"No time was left for {name}.")
    body, page.lines = page.lines, []
    unmet = [mark for mark in page.marks if mark[3] != "yes"]
    page.write("# Limit kernels: speed, memory and digits")
    page.write(
        f"Written by `make bench-kernels` in {page.spent:.0f} s. Ratios are of times taken in turns within this run; NT is "
        f"neural-tangents. {len(page.marks) - len(unmet)} of {len(page.marks)} marks are met."
    )
    head, page.lines = page.lines, []
    page.write("## Marks")
    page.table(["what", "asked", "measured", "met"], page.marks)
    if asked.only == SECTIONS:
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text("\n".join([*head, *body, *page.lines]).rstrip() + "\n", encoding="utf-8")
        sys.stdout.write(f"{OUT}\n")


if __name__ == "__main__":
    main()
