"""What only a fresh process can tell: peak memory, the time to import, the first kernel."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from bench.page import Page, digits

START = """
import json, sys, time
def memory(name):
    try:  # not ru_maxrss, which a new process inherits from its parent
        return float(open("/proc/self/status").read().split(name + ":")[1].split()[0]) / 1024
    except (OSError, IndexError):
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
begun = time.perf_counter()
import zeroloss as zl
imported = time.perf_counter() - begun
import torch
"""
MEMORY = """
x = torch.nn.functional.normalize(torch.randn({n}, 784))
kernel = zl.limit_kernel(zl.fully_connected(784, 8, {depth}, activation="{activation}", scheme="du", dtype=torch.float32))
begun = memory("VmRSS")
import zeroloss.kernels.loops  # which brings numba
before = memory("VmRSS")
kernel(x)
print(json.dumps([memory("VmHWM") - before - 4 * {n}**2 / 2**20, before - begun]))
"""
FIRST = """
x = torch.nn.functional.normalize(torch.randn(500, 784))
start = time.perf_counter()
kernel = zl.limit_kernel(zl.fully_connected(784, 8, {depth}, activation="{activation}", scheme="du", dtype=torch.float32))
kernel(x)
print(json.dumps([imported, time.perf_counter() - start]))
"""
CASES = (("relu", 3), ("relu", 30), ("softplus", 3), ("erf", 30))


def fresh(code: str, timeout: float, **values: object) -> Any:
    """What a new interpreter prints, or None, after saying why, where it takes too long or fails."""
    command = [sys.executable, "-c", START + code.format(**values)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"no answer in {timeout:.0f} s: {values}\n")
        return None
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{values}: {(error.stderr.strip().splitlines() or ['no message'])[-1]}\n")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def processes(page: Page, n: int) -> None:
    """Memory, import time and the first kernel.

    Args:
        page: to write to.
        n: rows for the memory.
    """
    page.write("## Fresh processes")
    rows = []
    for activation, depth in CASES:
        patience = max(5.0, min(60.0, 0.2 * page.left))
        peak, compiler = fresh(MEMORY, patience, n=n, depth=depth, activation=activation) or (None, None)
        asked = {"depth": depth, "activation": activation}
        cold = fresh(FIRST, patience, **asked)  # fills whatever is kept between processes
        first = [fresh(FIRST, patience, **asked) for _ in range(3)] if cold else [None]
        warm = None if None in first else statistics.median(seconds for _, seconds in first)
        rows.append([activation, depth, digits(peak, ".0f"), digits(compiler, ".0f"), digits(warm)])
        page.ask(f"{activation}, depth {depth}: peak memory beyond imports and n² floats", peak, 100, unit=" MB")
        page.ask(f"{activation}, depth {depth}: first kernel in a process, caches warm", warm, 3, unit=" s")
    header = [
        "activation",
        "depth",
        f"peak memory beyond imports and n² floats at n={n}, MB",
        "numba, loaded at the first kernel, MB",
    ]
    header += ["first kernel of 500 rows, s"]
    page.table(header, rows)
    times = sorted(seconds for _ in range(5) if (seconds := fresh("print(json.dumps(imported))", 60)) is not None)
    if len(times) < 5:
        return
    page.write(f"`import zeroloss`: {times[2]:.2f} s, median of 5 processes ({times[0]:.2f} to {times[-1]:.2f}).")
    page.ask("import zeroloss", times[2], 2.5, unit=" s")
