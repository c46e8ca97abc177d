"""``zeroloss certify``: train a network (or take one), polish it, and prove that zero loss lies next to it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from torch import nn

from zeroloss.certificate import Certificate, Fails, Polished, Status, certify, polish
from zeroloss.cli.show import console, number
from zeroloss.cli.study import class_list
from zeroloss.cli.user_file import read_build, stdout_to_stderr
from zeroloss.data import Dataset
from zeroloss.study import DataSpec, NetworkSpec
from zeroloss.study.building import build_for, data_for, load_data
from zeroloss.study.result import plain
from zeroloss.training import Trajectory, descend


def certify_command(parsed: argparse.Namespace) -> int:
    """Make the certificate.

    Returns:
        0 where it is PROVED, else 1.
    """
    out = console(parsed.json)
    module, data = _subject(parsed)
    run = None
    if parsed.max_steps > 0:
        with out.status("training"):
            run = descend(module, data, max_steps=parsed.max_steps, until=parsed.until, seed=parsed.seed)
        out.print(f"training: {run.status} after {run.steps[-1]} steps, loss {number(float(run.loss[-1]))}", markup=False)
    found: Polished | None = None
    if not parsed.no_polish and not data.conflicts:
        with out.status("polishing"):
            found = polish(module, data)
        module = found.module
        out.print(f"polish: {found.status}, residual {number(found.residual)}, moved {number(found.moved)}", markup=False)
    step = None if parsed.step is None else float(parsed.step)
    with out.status("certifying"):
        made = certify(
            module, data, method=parsed.method, step=step, batch=parsed.batch, scale=parsed.scale, precision=parsed.precision
        )
    path = None
    if made.status is Status.PROVED and parsed.out is not None:
        path = made.save(parsed.out)
    if parsed.json:
        print(json.dumps(plain(_result(made, run, found, path)), indent=1))
    else:
        out.print(made.explain(), markup=False, soft_wrap=True)
        if path is not None:
            out.print(
                f"\ncertificate: {path}; zeroloss verify {path} checks it with independent code", markup=False, soft_wrap=True
            )
    return 0 if made.status is Status.PROVED else 1


def _subject(parsed: argparse.Namespace) -> tuple[nn.Module, Dataset]:
    classes = None if parsed.classes is None else class_list(parsed.classes)
    how = DataSpec(parsed.data, parsed.n, classes, parsed.normalise or "auto", parsed.size, parsed.root, parsed.seed)
    if parsed.module is not None:
        loaded = load_data(how)
        with stdout_to_stderr():
            module = read_build(parsed.module, parsed.seed)[0](None)
        images = any(isinstance(layer, nn.Conv2d) for layer in module.modules())
        return module, loaded.as_images() if images else loaded.as_rows()
    trained = None if parsed.train is None else tuple(parsed.train.split(","))
    options: dict[str, Any] = {} if trained is None else {"trained": "all" if trained == ("all",) else trained}
    spec = NetworkSpec(
        "certified", parsed.network, parsed.scheme, parsed.activation, parsed.width, parsed.depth, parsed.seed, **options
    )
    data = data_for(spec, load_data(how))
    return build_for(spec, data), data


def _result(made: Certificate, run: Trajectory | None, found: Polished | None, path: Path | None) -> dict[str, Any]:
    theorems = {"flow": made.flow, "gd": made.gd, "sgd": made.sgd, "newton": made.newton}
    return {
        "status": str(made.status),
        "reason": made.reason,
        "method": made.method,
        "radius": made.radius,
        "rate": made.rate,
        "step": made.step,
        "lipschitz": made.lipschitz,
        "numbers": vars(made.numbers),
        "theorems": {k: None if v is None else {"holds": not isinstance(v, Fails), **vars(v)} for k, v in theorems.items()},
        "loss_floor": made.loss_floor,
        "training": None
        if run is None
        else {"status": str(run.status), "steps": int(run.steps[-1]), "loss": float(run.loss[-1])},
        "polish": None if found is None else {"status": str(found.status), "residual": found.residual, "moved": found.moved},
        "path": None if path is None else str(path),
        "seconds": made.seconds,
    }
