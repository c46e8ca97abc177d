"""An independent writer of small certificates: torch for the derivatives, numpy for their singular values, closed formulas for Lambda.

Nothing here is shared with the library's own writer; bounds are computed in float64 and widened by a relative SLACK.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

SLACK = 1e-10


def run(stages: list[dict], p: dict[str, Tensor], x: Tensor, met: dict[str, Tensor] | None = None) -> Tensor:
    """The network by torch's own operations, each stage as the format describes it; ``met`` collects what every layer meets and gives."""
    for stage in stages:
        entering = x
        match stage["kind"]:
            case "linear":
                x = functional.linear(x, p[stage["weight"]], p.get(stage["bias"]))
            case "conv2d":
                (up, left), bias = stage["padding"], p.get(stage["bias"])
                if stage["padding_mode"] == "circular":
                    x = functional.pad(x, (left, left, up, up), mode="circular")
                    up = left = 0
                x = functional.conv2d(x, p[stage["weight"]], bias, stage["stride"], (up, left), stage["dilation"])
            case "activation":
                x = activation(stage)(x)
            case "scale":
                x = x * float.fromhex(stage["factor"])
            case "average_pool":
                x = functional.adaptive_avg_pool2d(x, stage["to"])
            case "flatten":
                x = x.flatten(1)
            case "residual":
                x = x + run(stage["stages"], p, x, met)
        if met is not None and "weight" in stage:
            met[stage["weight"]], met[f"{stage['weight']} gives"] = entering, x
    return x


def activation(stage: dict):
    number = {key: float.fromhex(value) for key, value in stage.items() if key not in ("kind", "name")}
    return {
        "relu": torch.relu,
        "leaky_relu": lambda z: functional.leaky_relu(z, number["slope"]),
        "abs": torch.abs,
        "hard_tanh": lambda z: functional.hardtanh(z, number.get("low", -1.0), number.get("high", 1.0)),
        "softplus": lambda z: torch.logaddexp(number.get("beta", 1.0) * z, torch.zeros_like(z)) / number.get("beta", 1.0),
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "erf": torch.erf,
        "gelu": functional.gelu,
        "silu": functional.silu,
    }[stage["name"]]


def linear(name: str, trained=("weight",), bias: bool = False) -> dict:
    return {"kind": "linear", "weight": f"{name}.weight", "bias": f"{name}.bias" if bias else None, "trained": list(trained)}


def conv(
    name: str, trained=("weight",), bias: bool = False, stride=(1, 1), padding=(1, 1), mode="zeros", dilation=(1, 1)
) -> dict:
    geometry = {"stride": list(stride), "padding": list(padding), "padding_mode": mode, "dilation": list(dilation)}
    return {**linear(name, trained, bias), "kind": "conv2d", **geometry}


def act(name: str, **numbers: float) -> dict:
    return {"kind": "activation", "name": name, **{key: float(value).hex() for key, value in numbers.items()}}


@dataclass
class Made:
    """A certificate in memory: change anything, then write it."""

    stages: list[dict]
    tensors: dict[str, Tensor]
    document: dict = field(default_factory=dict)

    def copy(self) -> Made:
        return copy.deepcopy(self)

    @property
    def claims(self) -> dict:
        return self.document["claims"]

    def claim(self, name: str, section: str = "claims") -> float:
        return float.fromhex(self.document[section][name])

    def set(self, section: str = "claims", **numbers: float) -> Made:
        changed = self.copy()
        changed.document[section] |= {name: float(number).hex() for name, number in numbers.items()}
        return changed

    @property
    def trained(self) -> list[str]:
        return [stage[part] for stage in flat(self.stages) if "trained" in stage for part in stage["trained"]]

    def residual(self, parameters: dict[str, Tensor] | None = None) -> Tensor:
        p = self.tensors if parameters is None else parameters
        roots = self.tensors["multiplicity"].sqrt()[:, None]
        return ((run(self.stages, p, self.tensors["x"]) - self.tensors["y"]) * roots).flatten()

    def jacobian(self, parameters: dict[str, Tensor] | None = None) -> Tensor:
        base = self.tensors if parameters is None else parameters
        moved = {name: base[name] for name in self.trained}
        blocks = torch.func.jacrev(lambda p: self.residual({**base, **p}))(moved)
        return torch.cat([blocks[name].flatten(1) for name in self.trained], 1)

    def write(self, folder: Path, name: str = "net") -> Path:
        """Both files; the sha256 is that of the tensors as they are, unless the document already has one."""
        raw = save({key: tensor.contiguous() for key, tensor in self.tensors.items()})
        (folder / f"{name}.safetensors").write_bytes(raw)
        document = copy.deepcopy(self.document)
        document["tensors"] = {
            "file": f"{name}.safetensors",
            "sha256": hashlib.sha256(raw).hexdigest(),
            **document.get("tensors", {}),
        }
        path = folder / f"{name}.json"
        path.write_text(json.dumps(document))
        return path


def flat(stages: list[dict]):
    for stage in stages:
        yield stage
        yield from flat(stage.get("stages", []))


def make(
    stages: list[dict],
    shapes: dict[str, tuple[int, ...]],
    x: Tensor,
    *,
    lipschitz,
    gap: float = 1e-9,
    seed: int = 0,
    repeats=None,
) -> Made:
    """A certificate for random weights: targets are the outputs moved by ``gap``, so nothing needs to be trained.

    Args:
        stages: of the format.
        shapes: of every parameter.
        x: inputs.
        lipschitz: (Made, R) -> Lambda.
        gap: size of the residual.
        seed: of weights and targets.
        repeats: multiplicities.
    """
    g = torch.Generator().manual_seed(seed)
    tensors = {
        n: torch.randn(s, generator=g, dtype=torch.float64) / math.sqrt(max(1, math.prod(s[1:]))) for n, s in shapes.items()
    }
    tensors["x"], n = x, len(x)
    tensors["multiplicity"] = (
        torch.ones(n, dtype=torch.float64) if repeats is None else torch.tensor(repeats, dtype=torch.float64)
    )
    f = run(stages, tensors, x)
    tensors["y"] = f + gap * torch.randn(f.shape, generator=g, dtype=torch.float64)
    made = Made(stages, tensors)
    values = np.linalg.svd(made.jacobian().numpy(), compute_uv=False)
    N, k, P = f.numel(), f.shape[1], sum(tensors[name].numel() for name in made.trained)
    rho = float(made.residual().norm()) * (1 + SLACK) + 4e-15 * max(1.0, float(f.norm()))
    sigma, beta = float(values[min(N, len(values)) - 1]) * (1 - SLACK), float(values[0]) * (1 + SLACK)
    R = 3 * rho / sigma
    lip = lipschitz(made, R) * (1 + SLACK)
    room = sigma**2 - 2 * lip * rho
    alpha = math.sqrt(max(room, 0.0)) * (1 - SLACK)
    path = 2 * rho / (sigma + alpha) * (1 + SLACK)
    numbers = {"residual": rho, "sigma0": sigma, "beta0": beta, "lipschitz": lip, "R": R, "path": path, "alpha": alpha}
    numbers |= {"rate": alpha**2 * (1 - SLACK), "h": lip * rho / sigma**2}
    made.document = {
        "format": "zeroloss-certificate",
        "version": 1,
        "method": "flow",
        "status": "PROVED",
        "network": stages,
        "claims": {"samples": n, "outputs": k, "N": N, "P": P, **{name: v.hex() for name, v in numbers.items()}},
        "gd": None,
        "sgd": None,
        "newton": None,
        "assumptions": ["real arithmetic"],
        "made_by": "the tests",
    }
    return made


def with_gd(made: Made, lipschitz, share: float = 0.5) -> Made:
    changed = made.copy()
    rho, sigma, beta0 = (made.claim(name) for name in ("residual", "sigma0", "beta0"))
    R = 10 * rho / sigma
    lip = lipschitz(made, R) * (1 + SLACK)
    beta = (beta0 + lip * R) * (1 + SLACK)
    step = share / beta**2
    c = (1 - step * beta**2 / 2) * (1 - SLACK)
    alpha = math.sqrt((c * sigma) ** 2 - 2 * lip * rho) * (1 - SLACK)
    path = 2 * rho / (c * sigma + alpha) * (1 + SLACK)
    q = 1 - step * (sigma - lip * path) * alpha * (1 - SLACK)
    numbers = {"step": step, "c": c, "R": R, "lipschitz": lip, "beta": beta, "alpha": alpha, "q": q, "path": path}
    changed.document |= {"gd": {name: v.hex() for name, v in numbers.items()}, "method": "gd"}
    return changed


def with_sgd(made: Made, lipschitz, batch: int = 2, share: float = 0.3, reach: float = 1e3) -> Made:
    changed = made.copy()
    rho, sigma, beta0 = (made.claim(name) for name in ("residual", "sigma0", "beta0"))
    ratio = float(made.tensors["multiplicity"].sum()) / batch
    R = reach * rho / sigma
    lip = lipschitz(made, R) * (1 + SLACK)
    beta, alpha = (beta0 + lip * R) * (1 + SLACK), (sigma - lip * R) * (1 - SLACK)
    step = share * alpha**2 / (beta**4 * ratio)
    q = math.sqrt(1 - 2 * step * alpha**2 + step**2 * beta**4 * ratio)
    q = (q + lip * step**2 * ratio**2 * beta**2 * (rho + beta * R) / 2) * (1 + 1e-14)
    delta = step * beta * math.sqrt(ratio) * rho / ((1 - q) * R) * (1 + 1e-6)
    numbers = {"step": step, "R": R, "lipschitz": lip, "beta": beta, "alpha": alpha, "q": q, "delta": delta}
    changed.document |= {"sgd": {**{name: v.hex() for name, v in numbers.items()}, "batch": batch}, "method": "sgd"}
    return changed


def with_newton(made: Made, lipschitz, slack: float = 1e-7) -> Made:
    changed = made.copy()
    sigma = made.claim("sigma0")
    step = torch.linalg.lstsq(made.jacobian(), made.residual(), driver="gelsd").solution
    start = float(step.norm()) * (1 + slack)
    R = 3 * start
    lip = lipschitz(made, R) * (1 + SLACK)
    numbers = {"D0": start, "radius": R, "R": R, "lipschitz": lip, "h": lip * start / sigma}
    changed.document |= {"newton": {name: v.hex() for name, v in numbers.items()}, "method": "newton"}
    return changed
