"""Random networks of random stages: what is true is accepted, what is false by little is not, and norms are never below the true ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from tests.certificate.bounds import own_bound
from tests.certificate.maker import Made, act, conv, linear, make, run, with_gd, with_newton, with_sgd
from zeroloss_verifier import facts, verify
from zeroloss_verifier.balls import exact, precision
from zeroloss_verifier.geometry import conv_windows
from zeroloss_verifier.network import Affine
from zeroloss_verifier.outcome import UnprovenError
from zeroloss_verifier.passes import AffineNode, apply, apply_transposed

SMOOTH = ("softplus", "tanh", "sigmoid", "erf", "gelu", "silu")
KINKED = ("relu", "abs", "leaky_relu", "hard_tanh")


def some(g: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (1,), generator=g))


@pytest.mark.parametrize("written_out", [0, 400])
def test_convolutions_and_their_norms(written_out, monkeypatch):
    """Against torch's own convolution, by its matrix: strides, padding, dilation, both paddings."""
    monkeypatch.setattr(facts, "UNROLLED", written_out)
    closest = math.inf
    for trial in range(60):
        g = torch.Generator().manual_seed(trial)
        out, channels, kh, kw, h, w = (some(g, 1, high) for high in (4, 3, 3, 3, 5, 5))
        stride, padding, dilation = ((some(g, low, 2), some(g, low, 2)) for low in (1, 0, 1))
        mode = ("zeros", "circular")[trial % 2]
        reach = (dilation[0] * (kh - 1), dilation[1] * (kw - 1))
        if h + 2 * padding[0] <= reach[0] or w + 2 * padding[1] <= reach[1]:
            continue
        if mode == "circular" and (reach[0] >= h or reach[1] >= w or padding[0] > h or padding[1] > w):
            continue
        kernel = torch.randn(out, channels, kh, kw, generator=g, dtype=torch.float64)
        stage = Affine("conv2d", "K", None, frozenset({"weight"}), stride, padding, mode, dilation)
        windows = conv_windows(stage, tuple(kernel.shape), (channels, h, w))
        unit = torch.eye(channels * h * w, dtype=torch.float64).reshape(-1, channels, h, w)
        by_torch = {"K": kernel, "x": unit}
        described = conv("K", stride=stride, padding=padding, mode=mode, dilation=dilation) | {"weight": "K"}
        theirs = run([described, {"kind": "flatten"}], by_torch, unit)  # the map's transpose
        with precision(96):
            weight = exact(kernel.flatten().tolist(), windows.columns)
            pixels, values = exact(unit.flatten().tolist(), windows.inputs), theirs.shape[1]
            ours = apply(windows, pixels, weight)
            back = apply_transposed(windows, exact(torch.eye(values).flatten().tolist(), values), weight).transpose()
            for found in (ours, back):
                torch.testing.assert_close(torch.tensor(list(map(float, found.entries())), dtype=torch.float64), theirs.flatten())
            node = AffineNode(stage, windows, weight, pixels, False)
            bound, cover = float(facts._map_norm(node)), float(facts.window_cover(windows))
        true = float(torch.linalg.matrix_norm(theirs, 2))
        assert bound >= true * (1 - 1e-12)
        closest = min(closest, bound / true if true > 0 else math.inf)
        patches = functional.unfold(unit, (kh, kw), dilation, padding, stride) if mode == "zeros" else None
        if patches is not None:
            assert cover >= float(torch.linalg.matrix_norm(patches.flatten(1), 2)) * (1 - 1e-12)
    assert closest < 1 + 1e-8


def random_network(trial: int) -> Made:
    g = torch.Generator().manual_seed(trial)
    n, d, k = some(g, 2, 5), some(g, 3, 6), some(g, 1, 2)
    images = trial % 6 == 0
    x = (
        torch.randn(n, 2, 4, 4, generator=g, dtype=torch.float64)
        if images
        else torch.randn(n, d, generator=g, dtype=torch.float64)
    )
    stages, shapes, size = [], {}, 2 if images else d
    names = SMOOTH if trial % 3 else KINKED

    def activation() -> dict:
        name = names[some(g, 0, len(names) - 1)]
        numbers = {"leaky_relu": {"slope": 0.2}, "hard_tanh": {"low": -3.0, "high": 3.0}, "softplus": {"beta": 1.5}}.get(name, {})
        return act(name, **numbers)

    def layer(out: int) -> dict:
        nonlocal size
        name, bias, parts = f"L{len(shapes)}", bool(some(g, 0, 1)), []
        parts = [part for part in ("weight", "bias") if some(g, 0, 3) and (bias or part == "weight")]
        make_layer = conv if images else linear
        shapes[f"{name}.weight"] = (out, size, 3, 3) if images else (out, size)
        if bias:
            shapes[f"{name}.bias"] = (out,)
        size = out
        return make_layer(name, parts, bias)

    for _ in range(some(g, 1, 2)):
        stages += [layer(some(g, 8, 14)), activation()]
        if some(g, 0, 1):
            stages.append({"kind": "residual", "stages": [layer(size), activation(), {"kind": "scale", "factor": (0.5).hex()}]})
    if images:
        stages += [{"kind": "average_pool", "to": [2, 2]}, {"kind": "flatten"}]
        size *= 4
    shapes["out.weight"] = (k, size)
    stages.append(linear("out"))
    repeats = [some(g, 1, 3) for _ in range(n)]
    return make(stages, shapes, x, lipschitz=own_bound, gap=1e-11, seed=trial, repeats=repeats)


def check(trials: range, folder) -> int:
    accepted = 0
    for trial in trials:
        try:
            made = random_network(trial)
            made = with_newton(
                with_sgd(with_gd(made, own_bound), own_bound), own_bound, slack=1e-3
            )  # the residual has few digits
        except (UnprovenError, ValueError):  # a unit too near its kink, or an ill-conditioned draw: nothing to certify
            continue
        answer = verify(made.write(folder))
        if not answer.accepted:
            assert "smallest singular value" in answer.reason or "Theorem" in answer.reason, (trial, answer)
            continue
        accepted += 1
        for name, sign in (("residual", -300), ("sigma0", 1), ("beta0", -1), ("lipschitz", -1)):
            if made.claim(name) == 0.0:  # affine in what is trained: there is nothing better to claim
                continue
            worse = made.set(**{name: made.claim(name) * (1 + sign * 1e-4)})
            assert not verify(worse.write(folder)).accepted, (trial, name)
    return accepted


def test_random_networks(tmp_path):
    assert check(range(1, 6), tmp_path) >= 3


@pytest.mark.slow
def test_many_random_networks(tmp_path):
    assert check(range(6, 160), tmp_path) >= 80
