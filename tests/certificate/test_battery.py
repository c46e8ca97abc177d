"""Random problems full of traps: nothing that is proved is false, whatever the problem; a few dozen here, ten thousand when slow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.certificate.problems import dense, interpolate
from tests.certificate.reference import evaluate, newton_root, norm, singular_values
from zeroloss import Dataset, certify
from zeroloss.certificate import Certificate, Fails, Flow, Status, read_chain
from zeroloss.networks import Abs, Erf

ACTS = (nn.ReLU, nn.Tanh, nn.Softplus, nn.Sigmoid, nn.GELU, nn.SiLU, Erf, Abs, lambda: nn.LeakyReLU(-0.3), nn.Hardtanh)
TRAPS = (
    "none",
    "near duplicate",
    "kink",
    "near kink",
    "dead units",
    "too few weights",
    "huge",
    "tiny",
    "subnormal",
    "singular",
    "far",
    "repeated",
    "frozen",
    "ill scaled",
)


def problem(seed: int) -> tuple[str, nn.Sequential, Dataset]:
    """A network of a few units, two or three rows, polished by a random number of steps, then tampered with."""
    generator = torch.Generator().manual_seed(seed)

    def pick(n: int) -> int:
        return int(torch.randint(n, (1,), generator=generator))

    def number() -> float:
        return float(torch.rand(1, generator=generator, dtype=torch.float64))

    trap = TRAPS[seed % len(TRAPS)]
    act, n, d, k = ACTS[pick(len(ACTS))], 1 + pick(3), 1 + pick(3), 1 + pick(2)
    hidden = [2 + pick(5) for _ in range(1 + pick(2))]
    if trap == "too few weights":
        hidden, n = [1], 9
    module = dense((d, *hidden, k), act, bias=bool(pick(2)), seed=seed)
    x = torch.randn(n, d, dtype=torch.float64, generator=generator)
    y = torch.randn(n, k, dtype=torch.float64, generator=generator)
    if trap == "near duplicate":
        x = torch.cat((x, x[:1] + 10.0 ** (-3 - 12 * number())))
        y = torch.cat((y, y[:1] + number() - 0.5))
    if trap == "repeated":
        x, y = torch.cat((x, x[:1])), torch.cat((y, y[:1]))
    if trap == "frozen":
        module[pick(2) * 2].requires_grad_(False)
    data = Dataset(x, y)
    interpolate(module, data, steps=pick(25))
    weight = module[0].weight
    with torch.no_grad():
        if trap == "dead units":
            weight[0] = 0.0
        if trap in ("kink", "near kink"):
            weight[0] -= (x[0] @ weight[0]) / x[0].square().sum() * x[0] * (1 if trap == "kink" else 1 + 1e-9 * (number() - 0.5))
        if trap == "huge":
            weight *= 10.0 ** (300 * number())
        if trap == "tiny":
            weight *= 10.0 ** (-300 * number())
        if trap == "subnormal":
            weight[0, 0] = 5e-324 * (1 + pick(1000))
        if trap == "singular" and len(hidden) > 1:
            module[2].weight[:] = module[2].weight[:1]
        if trap == "ill scaled":
            weight[0] *= 10.0 ** (8 * number())
    if trap in ("kink", "near kink", "dead units", "subnormal", "ill scaled", "singular") and pick(2):
        outputs = module(x).detach()
        if bool(torch.isfinite(outputs).all()):
            data = Dataset(x, outputs * (1 + 1e-13 * number()))
    return trap, module, data


def wrong(module: nn.Sequential, data: Dataset, found: Certificate) -> str:
    """What is false about a proof, or nothing: everything is computed again in 50 digits."""
    chain = read_chain(module, data.x)
    if found.status is Status.IMPOSSIBLE:
        return "" if data.conflicts else "there is no conflict"
    if found.status is Status.REFUSED:
        return ""
    keep = [0 if i == 0 else i for i in range(data.n) if not any(i in g[1:] for g in data.duplicates)]
    roots = [math.sqrt(next((len(g) for g in data.duplicates if g[0] == i), 1)) for i in keep]
    x, y = data.x[keep], data.y[keep]
    f, J = evaluate(chain, x)
    k = y.shape[1]
    for i, root in enumerate(roots):
        J[i * k : (i + 1) * k] *= root
    if not norm((f - _mp(y)) * _mp(torch.tensor(roots, dtype=torch.float64))[:, None]) <= found.numbers.residual * (1 + 1e-14):
        return "the residual is larger"
    values = singular_values(J)
    if not (found.numbers.sigma0 <= values[0] * (1 + 1e-14) and values[-1] <= found.numbers.beta0 * (1 + 1e-14)):
        return f"singular values {values[0]} to {values[-1]}, not {found.numbers.sigma0} to {found.numbers.beta0}"
    moved, left = newton_root(chain, x, y)
    if not left < 1e-25 * max(1.0, found.numbers.residual):
        return f"no root was found (residual {left})"
    limit = found.flow.path if isinstance(found.flow, Flow) else found.radius
    # Newton's root is one of many: the nearest is no farther from the weights, up to the curvature of the set of roots
    return "" if moved <= limit * 1.5 else f"the root is at {moved}, not within {limit}"


def _mp(values: torch.Tensor):
    from tests.certificate.reference import array

    return array(values)


def run(seeds: range) -> dict[str, int]:
    counts = dict.fromkeys((str(s) for s in Status), 0)
    for seed in seeds:
        trap, module, data = problem(seed)
        found = certify(module, data, method=("flow", "gd", "newton")[seed % 3])
        counts[str(found.status)] += 1
        assert not (complaint := wrong(module, data, found)), f"seed {seed}, {trap}: {complaint}"
    return counts


def test_no_false_certificate_in_a_few_dozen_problems():
    counts = run(range(84))
    assert counts["PROVED"] > 20
    assert counts["REFUSED"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_no_false_certificate_in_ten_thousand_problems(part):
    counts = run(range(1000 + part * 500, 1000 + (part + 1) * 500))
    assert counts["PROVED"] > 80


def test_the_battery_notices_a_false_certificate(monkeypatch):
    """The control: with an enclosure of the residual that forgets it, something false is proved and noticed."""
    import importlib

    place = importlib.import_module("zeroloss.certificate.certify")
    honest = place._residual
    monkeypatch.setattr(place, "_residual", lambda *a: (honest(*a)[0] * 1e-12, 0.0, honest(*a)[2] * 1e-12))
    caught = 0
    for seed in range(42):
        _, module, data = problem(seed)
        caught += bool(wrong(module, data, certify(module, data)))
    assert caught > 5


def test_the_battery_notices_a_gram_that_forgets_its_rounding(monkeypatch):
    """The control: singular Grams are proved positive once lower bounds are replaced by larger numbers."""
    import importlib

    place = importlib.import_module("zeroloss.certificate.certify")
    honest = place.smallest_eigenvalue_bound
    monkeypatch.setattr(place, "smallest_eigenvalue_bound", lambda *a: (abs(honest(*a)[1]) * 4 + 1e-12, honest(*a)[1]))
    caught = 0
    for seed in range(42):
        _, module, data = problem(seed)
        found = certify(module, data)
        caught += bool(wrong(module, data, found))
    assert caught > 5


def test_halving_the_lipschitz_constant_would_prove_something_false():
    """f = (a x) b with one row is f = ab x: the theorem with half of its constant would promise a root that does not exist."""
    from zeroloss.certificate import gradient_flow

    # sigma x - lip x^2/2 with lip twice what is claimed, just beyond the limit
    sigma, lip = 1.0, 1.0
    rho = 0.75 * sigma**2 / lip  # no root: needs rho <= 1/2
    assert isinstance(gradient_flow(rho, sigma, lambda _: lip), Fails)
    assert not isinstance(gradient_flow(rho, sigma, lambda _: lip / 2), Fails)
