"""Experiments: they gather the evidence that claims are judged on, and give no verdict."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from zeroloss.claims import Differences, Evidence, Padded, Point, SmallestEigenvalue, Sweep
from zeroloss.data import Dataset, pad, parallel_pairs
from zeroloss.gram import formula_gradient, gram, layer_grams, rows_of, trace
from zeroloss.kernels import limit_kernel
from zeroloss.networks import fully_connected
from zeroloss.spectrum import extremes, spectral_norm
from zeroloss.study.building import build, build_for, data_for, with_width
from zeroloss.study.extensions import depths, growth, images, printed
from zeroloss.study.setting import SEEDS, Setting
from zeroloss.study.specification import NetworkSpec
from zeroloss.training import descend

SWEEP_STEPS = (1, 8, 32)  # where a short run is measured: at once, on its way, and when the loss is nearly gone


def gradients(setting: Setting) -> list[Evidence]:
    """AZ's formula against automatic differentiation, on random networks over the data's own rows."""
    few = setting.few.as_rows()
    d, values = few.x.shape[1], []
    shapes: list[tuple[int, int | list[int], int]] = [(1, 16, 1), (2, 32, 3), (3, [24, 40, 16, 32], 2), (5, 64, 1)]
    for seed, (depth, width, outputs) in enumerate(shapes):
        net = fully_connected(d, width, depth, outputs, seed=seed)
        y = torch.randn(few.n, outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        trained = [p for p in net.parameters() if p.requires_grad]
        exact = torch.autograd.grad(0.5 * (net(few.x) - y).square().sum(), trained)
        ours = formula_gradient(net, few.x, y).values()
        values += [float((a - b).norm() / b.norm()) for a, b in zip(ours, exact, strict=True) if float(b.norm()) > 0]
    return [Differences("random AZ networks", tuple(values))]


def padding(setting: Setting) -> list[Evidence]:
    """The data padded as footnote 3 says."""
    return [Padded(f"{setting.data.name}, padded", pad(setting.data.x.flatten(1)))]


def norms(setting: Setting) -> list[Evidence]:
    """How far AZ's layers are from keeping norms, over widths, and the variance of the last one over many draws."""
    found: list[Evidence] = []
    few = setting.few.as_rows()
    x = few.x
    for spec in (s for s in setting.networks if s.scheme == "allen-zhu" and s.family == "fully_connected"):
        points = []
        for width in setting.widths(spec):
            for seed in range(SEEDS):
                ratios = _layer_norms(with_width(spec, width, seed), x)
                points.append(Point(width, seed, {"norm_deviation": float((ratios - 1).abs().max())}))
        width, draws = 256, 200
        logs = torch.stack([2 * _layer_norms(with_width(spec, width, 1000 + s), x[:1])[-1, 0].log() for s in range(draws)])
        expected = 5 * (spec.depth + 1) / width
        facts = {"variance_ratio": float(logs.var()) / expected}
        found.append(Sweep(spec.name, build_for(with_width(spec, 64, 0), few).architecture, tuple(points), facts))
    return found


def runs(setting: Setting) -> list[Evidence]:
    """The runs that the setting already has."""
    return list(setting.runs)


def kernels(setting: Setting) -> list[Evidence]:
    """The initial Gram against the limit recursion, over widths and seeds."""
    found: list[Evidence] = []
    for spec in setting.networks:
        few = setting.few_for(spec)
        narrow = build_for(with_width(spec, 64, 0), few)
        points, mean = [], torch.zeros(few.n, few.n, dtype=torch.float64)
        widths = [2 * width for width in setting.widths(spec)]  # forming a Gram is cheap beside training: go one octave wider
        gap = 0.0
        for width in widths:
            mean.zero_()
            limit = limit_kernel(build_for(with_width(spec, width, 0), few))(few.x)
            for seed in range(SEEDS):
                finite = gram(build_for(with_width(spec, width, seed), few), few.x)
                mean += finite / SEEDS
                points.append(Point(width, seed, {"kernel_gap": float((finite - limit).norm() / limit.norm())}))
            gap = float((mean - limit).norm() / limit.norm())
        found.append(Sweep(spec.name, narrow.architecture, tuple(points), {"mean_gap": gap}))
    return found


def pairs(setting: Setting) -> list[Evidence]:
    r"""$\lambda_{\min}(K^{(H)})$ of DU's networks on the data."""
    found: list[Evidence] = []
    parallel = len(parallel_pairs(setting.data.x.flatten(1)))
    for spec in (s for s in setting.networks if s.scheme == "du"):
        data = data_for(spec, setting.data)
        kernel = limit_kernel(build_for(with_width(spec, 4, 0), data), "last-hidden")(data.x)
        ends = extremes(kernel)
        bound = ends.smallest if ends.smallest_bound is None else ends.smallest_bound
        found.append(
            SmallestEigenvalue(f"{spec.name} on {setting.data.name}", bound, ends.smallest, float(kernel.trace()), parallel)
        )
    return found


def widths(setting: Setting) -> list[Evidence]:
    """Short runs over widths and seeds: how far weights, Gram and outputs move from where the linear model has them."""
    found: list[Evidence] = []
    for spec in setting.networks:
        few = setting.few_for(spec)
        architecture = build_for(with_width(spec, 64, 0), few).architecture
        points, kept = [], 0.0
        for width in setting.widths(spec):
            shares = []
            for seed in range(SEEDS):
                values, share = _short_run(with_width(spec, width, seed), few)
                points.append(Point(width, seed, values))
                shares.append(share)
            kept = min(shares)
        found.append(Sweep(spec.name, architecture, tuple(points), {"smallest_kept": kept}))
    return found


EXPERIMENTS: dict[str, Callable[[Setting], list[Evidence]]] = {
    "gradients": gradients,
    "padding": padding,
    "norms": norms,
    "run": runs,
    "kernels": kernels,
    "pairs": pairs,
    "widths": widths,
    "images": images,
    "growth": growth,
    "depths": depths,
    "printed": printed,
}


def _layer_norms(spec: NetworkSpec, x: torch.Tensor) -> torch.Tensor:
    """Norm of every hidden layer over that of its input row, one row a layer."""
    _, calls = trace(build(spec, x.shape[1], 1), x)
    hidden = [call.inputs for call in calls[1:]]
    ratios: torch.Tensor = torch.stack([torch.linalg.vector_norm(h, dim=1) for h in hidden]) / torch.linalg.vector_norm(x, dim=1)
    return ratios


def _short_run(spec: NetworkSpec, few: Dataset) -> tuple[dict[str, float], float]:
    """The largest of each drift over a few steps of a short run; and the least lambda_min(G_H(k)) over that of its limit."""
    net = build_for(spec, few)
    start = {name: p.detach().clone() for name, p in net.named_parameters() if p.requires_grad}
    whole = gram(net, few.x, "full")
    parts = layer_grams(net, few.x)
    last = ([name for name in parts if name not in ("a", "B")] or list(parts))[-1]
    with torch.no_grad():
        initial = (rows_of(net(few.x), few.n) - few.y).reshape(-1)
    eta = 1.0 / extremes(whole).largest
    limit = extremes(limit_kernel(net, "last-hidden")(few.x)).smallest
    linear, norm, done, kept = initial.clone(), float(initial.norm()), 0, math.inf
    worst = dict.fromkeys(("weight_drift", "scaled_drift", "gram_drift", "linear_gap"), 0.0)
    for stop in SWEEP_STEPS:
        descend(net, few, step=eta, max_steps=stop - done, until=0.0)
        for _ in range(stop - done):
            linear = linear - eta * (whole @ linear)
        done = stop
        with torch.no_grad():
            now = (rows_of(net(few.x), few.n) - few.y).reshape(-1)
        moved = [(p.detach() - start[name]).flatten(1) for name, p in net.named_parameters() if name in start]
        after = layer_grams(net, few.x)[last]
        here = {
            "weight_drift": max(spectral_norm(m) for m in moved) / norm,
            "scaled_drift": max(float(m.norm()) for m in moved) / (net.architecture.width**0.5 * norm),
            "gram_drift": spectral_norm(after - parts[last]),
            "linear_gap": float((now - linear).norm()) / norm,
        }
        worst = {name: max(value, here[name]) for name, value in worst.items()}
        kept = min(kept, extremes(after).smallest / max(limit, 1e-300))
    return worst, kept
