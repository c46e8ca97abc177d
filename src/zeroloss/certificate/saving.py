"""Certificates as files: JSON whose numbers are exact (``float.hex``), and the tensors in safetensors beside it, bound by a digest."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from zeroloss.certificate.certificate import ASSUMPTIONS, Certificate
from zeroloss.certificate.problem import Problem
from zeroloss.certificate.stages import Activation, Conv2d, Flatten, Linear, Pool, Residual, Scale, Stage
from zeroloss.certificate.theorems import Descent, Flow, Newton, Stochastic

FORMAT, VERSION = "zeroloss-certificate", 1


def save(certificate: Certificate, problem: Problem, path: Path) -> Path:
    """Write both files.

    Args:
        certificate: PROVED.
        problem: what it is about.
        path: with or without ``.json``.

    Returns:
        The JSON file's path.
    """
    path = path if path.suffix == ".json" else path.with_name(path.name + ".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".safetensors")
    tensors = {**problem.chain.tensors, "x": problem.x, "y": problem.y, "multiplicity": problem.multiplicity}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(beside))
    digest = hashlib.sha256(beside.read_bytes()).hexdigest()
    text = json.dumps(as_json(certificate, problem, beside.name, digest), indent=1, ensure_ascii=False)
    partial = path.with_name(path.name + ".part")
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)
    return path


def as_json(certificate: Certificate, problem: Problem, file: str, digest: str) -> dict[str, Any]:
    """The JSON file's content.

    Args:
        certificate: PROVED.
        problem: what it is about.
        file: the tensors' file name.
        digest: its sha256.

    Returns:
        Nested dictionaries.
    """
    c, n = certificate, certificate.numbers
    claims = {"samples": n.samples, "outputs": n.outputs, "N": n.N, "P": n.P}
    main = {"residual": n.residual, "sigma0": n.sigma0, "beta0": n.beta0}
    f = c.flow
    if isinstance(f, Flow):
        main |= {"lipschitz": f.lipschitz, "R": f.radius, "path": f.path, "alpha": f.alpha, "rate": f.rate}
        main["h"] = f.lipschitz * n.residual / n.sigma0**2
    else:  # existence alone holds
        assert c.proof is not None
        main |= {"lipschitz": c.proof.lipschitz, "R": c.proof.radius}
    return {
        "format": FORMAT,
        "version": VERSION,
        "method": c.method,
        "status": str(c.status),
        "tensors": {"file": file, "sha256": digest},
        "network": [_stage(stage) for stage in problem.chain.stages],
        "claims": {**claims, **_hex(main)},
        "gd": _gd(c.gd),
        "sgd": _sgd(c.sgd) if c.method == "sgd" else None,
        "newton": _newton(c.newton),
        "assumptions": list(ASSUMPTIONS),
        "made_by": f"zeroloss {_version()}",
    }


def _hex(numbers: dict[str, float]) -> dict[str, str]:
    return {name: float(value).hex() for name, value in numbers.items()}


def _gd(found: object) -> dict[str, str] | None:
    if not isinstance(found, Descent):
        return None
    return _hex(
        {"step": found.step, "c": found.c, "R": found.radius, "lipschitz": found.lipschitz, "beta": found.beta, "alpha": found.alpha,
         "q": found.q, "path": found.path}
    )  # fmt: skip


def _sgd(found: object) -> dict[str, Any] | None:
    if not isinstance(found, Stochastic):
        return None
    numbers = {"step": found.step, "R": found.radius, "lipschitz": found.lipschitz, "beta": found.beta, "alpha": found.alpha}
    return {"batch": found.batch, **_hex({**numbers, "q": found.q, "delta": found.delta})}


def _newton(found: object) -> dict[str, str] | None:
    if not isinstance(found, Newton):
        return None
    return _hex({"D0": found.length, "lipschitz": found.lipschitz, "h": found.h, "R": found.radius, "radius": found.radius})


def _stage(stage: Stage) -> dict[str, Any]:
    match stage:
        case Linear(weight, bias, trained):
            return {"kind": "linear", "weight": weight, "bias": bias, "trained": list(trained)}
        case Conv2d(weight, bias, trained):
            geometry = {"stride": list(stage.stride), "padding": list(stage.padding), "padding_mode": stage.padding_mode}
            made = {"kind": "conv2d", "weight": weight, "bias": bias, "trained": list(trained)}
            return {**made, **geometry, "dilation": list(stage.dilation)}
        case Activation(sigma):
            named: dict[str, Any] = {"kind": "activation", "name": sigma.name}
            if sigma.name == "leaky_relu":
                named["slope"] = sigma.parameter.hex()
            if sigma.name == "softplus":
                named["beta"] = sigma.parameter.hex()
            if sigma.name == "hard_tanh":
                named["low"], named["high"] = sigma.limits[0].hex(), sigma.limits[1].hex()
            return named
        case Scale(factor):
            return {"kind": "scale", "factor": float(factor).hex()}
        case Residual(stages):
            return {"kind": "residual", "stages": [_stage(inner) for inner in stages]}
        case Pool(to):
            return {"kind": "average_pool", "to": list(to)}
        case Flatten():
            return {"kind": "flatten"}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("zeroloss")
    except PackageNotFoundError:
        return "unknown"
