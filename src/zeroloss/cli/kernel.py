"""``zeroloss kernel``: the limit kernel of a network on a data set, into a ``.npy`` file, with its spectrum where that is affordable."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from zeroloss.cli.show import console, number
from zeroloss.cli.study import class_list
from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.kernels import limit_kernel, needs_particles
from zeroloss.spectrum import extremes
from zeroloss.study import DataSpec, NetworkSpec
from zeroloss.study.building import build_for, data_for, load_data

SPECTRUM = 3000  # rows up to which the ends of the spectrum take seconds
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def kernel_command(parsed: argparse.Namespace) -> int:
    """Compute it.

    Returns:
        0.
    """
    if parsed.dtype not in DTYPES:
        raise unknown_name("--dtype", parsed.dtype, DTYPES)
    classes = None if parsed.classes is None else class_list(parsed.classes)
    how = DataSpec(parsed.data, parsed.n, classes, parsed.normalise or "auto", parsed.size, parsed.root, parsed.seed)
    spec = NetworkSpec("kernel", parsed.network, parsed.scheme, parsed.activation, parsed.width, parsed.depth)
    data = data_for(spec, load_data(how))
    kernel = limit_kernel(build_for(spec, data), parsed.kind)
    x, path = data.x.to(DTYPES[parsed.dtype]), Path(parsed.out)
    started = time.perf_counter()
    if needs_particles(kernel.module):
        raise ArgumentError("--network", "has a limit that is sampled", "call zeroloss.limit_kernel in Python")
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} rows"),
        TimeRemainingColumn(),
        console=console(json=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bars:
        task = bars.add_task("kernel", total=len(x))
        values = kernel.write(path, x, progress=lambda done, _: bars.update(task, completed=done))
    found: dict[str, Any] = {
        "path": str(path),
        "kind": parsed.kind,
        "rows": len(x),
        "dtype": parsed.dtype,
        "entry_error": kernel.entry_error(x),
        "seconds": time.perf_counter() - started,
    }
    if len(x) <= SPECTRUM:
        ends = extremes(torch.from_numpy(values.astype("float64")), found["entry_error"])
        found |= {"smallest": ends.smallest, "largest": ends.largest, "smallest_bound": ends.smallest_bound}
    if parsed.json:
        print(json.dumps(found, indent=1))
        return 0
    out = console(json=False)
    out.print(f"{parsed.kind} of {len(x)} rows: {path}", markup=False, soft_wrap=True)
    out.print(f"every entry to within {number(found['entry_error'])}, in {found['seconds']:.1f} s", markup=False)
    if "smallest" in found:
        bound = found["smallest_bound"]
        proven = (
            f"at least {number(bound)} with every error counted" if bound > 0 else "not known to be above 0 in this precision"
        )
        out.print(
            f"smallest eigenvalue {number(found['smallest'])} ({proven}), largest {number(found['largest'])}",
            markup=False,
            soft_wrap=True,
        )
    return 0
