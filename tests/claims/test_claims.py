"""Every claim: a case where it holds, one where a hypothesis fails, and a corrupted one that it must reject."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from zeroloss import CLAIMS
from zeroloss.claims import Differences, Judgement, Padded, Point, Run, SmallestEigenvalue, Sweep, Verdict, find_claim
from zeroloss.data import pad
from zeroloss.networks import Architecture
from zeroloss.training import Probe

AZ = Architecture("fully_connected", "allen-zhu", 4, (64, 64, 64), 2, 1, "relu")
DU = Architecture("fully_connected", "du", 4, (64, 64), 2, 1, "erf")
WIDTHS = (32, 64, 128, 256, 512, 1024)


def probe(step: int, loss: float, gradient: float, **changes: object) -> Probe:
    values = {
        "step": step,
        "loss": loss,
        "largest_loss": loss,
        "gradient_norm": gradient,
        "smallest": 1.0,
        "largest": 10.0,
        "gram_drift": 0.01,
        "last_hidden_smallest": 0.9,
        "last_hidden_drift": 0.01,
        "weight_drift": {"W1": 0.1},
        "weight_drift_frobenius": {"W1": 0.1},
        "sign_changes": 0.0,
        "whole": True,
        "forecast": 100,
    }
    return Probe(**{**values, **changes})


def run(
    architecture: Architecture = DU,
    loss: list[float] | None = None,
    probes: tuple[Probe, ...] | None = None,
    **changes: object,
) -> Run:
    losses = torch.tensor([0.9**k for k in range(200)] if loss is None else loss, dtype=torch.float64)
    quotient_five = tuple(probe(k, 0.9**k, math.sqrt(10 * 0.9**k)) for k in (0, 10, 100))
    values = {"n": 10, "separation": 0.5, "largest_norm": 1.0, "step_size": 0.1, "last_hidden_limit": 1.0, **changes}
    return Run("a run", architecture, loss=losses, probes=quotient_five if probes is None else probes, **values)


def sweep(
    quantity: str,
    power: float,
    architecture: Architecture,
    noise: float = 0.02,
    floor: float = 0.0,
    scale: float = 1.0,
    **facts: float,
) -> Sweep:
    generator = torch.Generator().manual_seed(0)
    points = tuple(
        Point(m, s, {quantity: scale * m**power * math.exp(noise * float(torch.randn((), generator=generator))) + floor})
        for m in WIDTHS
        for s in range(5)
    )
    return Sweep("a sweep", architecture, points, facts)


def rows(n: int) -> torch.Tensor:
    return torch.randn(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


HOLDS, VIOLATED = Judgement.HOLDS, Judgement.VIOLATED
ABSENT, UNSURE = Judgement.NOT_APPLICABLE, Judgement.INCONCLUSIVE
SLOW_TAIL = [1 / (1 + k) ** 4 for k in range(400)]  # a power law, not a linear rate

TABLE = [
    ("AZ-00", Differences("nets", (1e-15, 3e-13)), HOLDS),
    ("AZ-00", Differences("nets", (1e-15, 1e-6)), VIOLATED),
    ("AZ-00", Differences("nets", (1e-15, math.nan)), VIOLATED),
    ("AZ-01", Padded("rows", pad(rows(6))), HOLDS),
    ("AZ-01", Padded("rows", pad(rows(6)) * (1 + 1e-9)), VIOLATED),
    ("AZ-01", Padded("rows", torch.nn.functional.normalize(rows(6))), VIOLATED),
    ("AZ-02", sweep("norm_deviation", -0.5, AZ, variance_ratio=1.05), HOLDS),
    ("AZ-02", sweep("norm_deviation", -0.2, AZ, variance_ratio=1.05), VIOLATED),
    ("AZ-02", sweep("norm_deviation", -0.5, AZ, variance_ratio=2.0), VIOLATED),  # as if variances were standard deviations
    ("AZ-10", run(AZ, probes=(probe(0, 1.0, math.sqrt(500)),)), HOLDS),
    ("AZ-10", run(AZ, probes=(probe(0, 1.0, math.sqrt(3000)),)), VIOLATED),
    ("AZ-10", run(AZ, probes=(probe(0, 1.0, math.nan),)), VIOLATED),
    # L n m / d = 2 * 10 * 64 / 4 = 320: with A's width counted, or without d, this would hold
    ("AZ-10", run(dataclasses.replace(AZ, outputs=4), probes=(probe(0, 1.0, math.sqrt(1.3 * 320)),)), VIOLATED),
    ("AZ-10", run(dataclasses.replace(AZ, outputs=4), probes=(probe(0, 1.0, math.sqrt(1.1 * 320)),)), HOLDS),
    ("AZ-10", run(AZ, largest_norm=60.0), ABSENT),
    ("AZ-10", run(dataclasses.replace(AZ, activation="tanh")), ABSENT),
    ("AZ-10", run(DU), ABSENT),
    ("AZ-13", run(), HOLDS),
    ("AZ-13", run(probes=(probe(0, 1.0, math.sqrt(2 * 10.000001)),)), VIOLATED),
    ("AZ-13", run(probes=(probe(0, 1.0, math.nan),)), VIOLATED),
    ("AZ-13", run(probes=(probe(0, 1.0, math.sqrt(2 * 0.999)),)), VIOLATED),
    ("AZ-13", run(probes=(probe(0, 1.0, 1.0, whole=False),)), ABSENT),
    ("AZ-16", run(), HOLDS),
    ("AZ-16", run(loss=SLOW_TAIL), VIOLATED),
    ("AZ-16", run(loss=[1.0, 0.5, math.nan]), VIOLATED),
    ("AZ-16", run(loss=[0.99**k for k in range(200)]), VIOLATED),  # a line, but slower than eta lambda_min = 0.1
    ("AZ-16", run(loss=[0.5**k + 0.8**k for k in range(200)]), HOLDS),  # convex: fast parts die first
    ("AZ-16", run(loss=[max(0.8**k, 1e-14) for k in range(400)]), HOLDS),  # the floor of float32 is not the theorem's business
    ("AZ-16", run(loss=[0.8**k for k in range(10)]), UNSURE),
    ("AZ-16", run(separation=0.0), ABSENT),
    ("AZ-16", run(step_size=0.3), ABSENT),
    ("AZ-16", run(probes=(probe(0, 1.0, 1.0, smallest=-1e-15),)), ABSENT),
    ("AZ-20", sweep("weight_drift", -0.5, AZ), HOLDS),
    ("AZ-20", sweep("weight_drift", 0.0, AZ), VIOLATED),
    ("AZ-20", sweep("weight_drift", -0.5, dataclasses.replace(AZ, activation="tanh")), ABSENT),
    ("AZ-02", sweep("norm_deviation", -0.5, dataclasses.replace(AZ, activation="erf"), variance_ratio=1.0), ABSENT),
    ("AZ-20", sweep("weight_drift", -0.5, AZ, noise=3.0), UNSURE),
    ("AZ-20", sweep("weight_drift", -2.0, AZ, noise=1.0), HOLDS),  # noisy, but clear of the bound
    ("DU-01", sweep("kernel_gap", -0.5, DU, mean_gap=0.01), HOLDS),
    ("DU-01", sweep("kernel_gap", -0.5, DU, mean_gap=0.2), VIOLATED),
    ("DU-01", sweep("kernel_gap", -0.5, DU, floor=0.3, mean_gap=0.3), VIOLATED),  # a wrong recursion leaves a floor
    ("DU-01", sweep("kernel_gap", 0.0, DU, scale=0.3, mean_gap=0.01), VIOLATED),
    ("DU-01", sweep("kernel_gap", -0.5, DU, scale=7.0, mean_gap=0.01), UNSURE),  # saturated at the narrow end
    ("DU-03", SmallestEigenvalue("K", 0.1, 0.1001, 5.0, 0), HOLDS),
    ("DU-03", SmallestEigenvalue("K", -1e-3, -1e-3, 5.0, 0), VIOLATED),
    ("DU-03", SmallestEigenvalue("K", -1e-14, 1e-15, 5.0, 0), UNSURE),
    ("DU-03", SmallestEigenvalue("K", 1e-17, 2e-17, 100.0, 0), UNSURE),  # forming the kernel cost more than this
    ("DU-03", SmallestEigenvalue("K", -1e-14, 1e-15, 5.0, 2), ABSENT),
    ("DU-06", sweep("scaled_drift", -0.5, DU), HOLDS),
    ("DU-06", sweep("scaled_drift", -0.1, DU), VIOLATED),
    ("DU-06", sweep("scaled_drift", -0.4, DU), UNSURE),  # within what a logarithm explains
    ("DU-07", sweep("gram_drift", -0.5, DU, smallest_kept=0.9), HOLDS),
    ("DU-07", sweep("gram_drift", 0.0, DU, smallest_kept=0.9), VIOLATED),
    ("DU-07", sweep("gram_drift", -0.5, DU, smallest_kept=0.2), UNSURE),
    ("DU-08", run(), HOLDS),
    ("DU-08", run(loss=[0.951**k for k in range(200)]), VIOLATED),  # slower than 1 - eta lambda/2 = 0.95
    ("DU-08", run(loss=[0.949**k for k in range(200)]), HOLDS),
    ("DU-08", run(step_size=0.3), ABSENT),
    ("DU-08", run(probes=(probe(0, 1.0, 1.0, last_hidden_smallest=0.4),)), ABSENT),
    ("DU-08", run(AZ), ABSENT),
    ("DU-09", sweep("linear_gap", -0.5, DU), HOLDS),
    ("DU-09", sweep("linear_gap", 0.0, DU), VIOLATED),
]


@pytest.mark.parametrize(
    ("claim_id", "evidence", "status"), TABLE, ids=[f"{c}-{s.lower()}-{i}" for i, (c, _, s) in enumerate(TABLE)]
)
def test_verdicts(claim_id, evidence, status):
    verdict = find_claim(claim_id).judge(evidence)
    assert isinstance(verdict, Verdict)
    assert (verdict.claim, verdict.status) == (claim_id, status), verdict.reason
    assert verdict.subject == evidence.subject
    assert len(verdict.reason) > 10
    if isinstance(evidence, Run | Sweep):
        assert "proven regime" in verdict.regime


def test_each_claim_is_seen_to_hold_and_to_be_rejected():
    for status in (HOLDS, VIOLATED):
        assert {c for c, _, s in TABLE if s is status} == {c.id for c in CLAIMS}


def test_the_catalogue_is_complete_and_documented():
    wanted = ["AZ-00", "AZ-01", "AZ-02", "AZ-10", "AZ-13", "AZ-16", "AZ-20", "DU-01", "DU-03", "DU-06", "DU-07", "DU-08", "DU-09"]
    assert [c.id for c in CLAIMS] == wanted
    assert all(c.statement and c.formula and c.source and c.provenance for c in CLAIMS)
    with pytest.raises(ValueError, match="did you mean 'AZ-01'"):
        find_claim("AZ-011")


def test_a_slope_needs_seeds_and_decades():
    short = sweep("weight_drift", -0.5, AZ)
    few_seeds = Sweep("s", AZ, tuple(p for p in short.points if p.seed < 3), {})
    few_widths = Sweep("s", AZ, tuple(p for p in short.points if p.at < 256), {})
    one_width = Sweep("s", AZ, tuple(p for p in short.points if p.at == 64), {})
    not_positive = Sweep("s", AZ, (*short.points, Point(64, 0, {"weight_drift": 0.0})), {})
    for evidence, message in (
        (few_seeds, "3 seeds"),
        (few_widths, "0.60 decades of m"),
        (one_width, "1 values of m below saturation"),
        (not_positive, "not positive"),
    ):
        verdict = find_claim("AZ-20").judge(evidence)
        assert verdict.status is UNSURE
        assert message in verdict.reason


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """400 sweeps with a known slope and a random tilt a seed: 95 % intervals cover it in 95 % of cases, within 3 deviations."""
    from zeroloss.claims.fits import fit_slope

    generator, covered = torch.Generator().manual_seed(1), 0
    for _ in range(400):
        tilt = 0.05 * torch.randn(5, generator=generator)
        points = tuple(Point(m, s, {"q": m ** (-0.5 + float(tilt[s]))}) for m in WIDTHS for s in range(5))
        low, high = fit_slope(Sweep("s", AZ, points, {}), "q").interval
        covered += low <= -0.5 <= high
    assert abs(covered - 380) < 3 * math.sqrt(400 * 0.05 * 0.95)


@pytest.mark.parametrize(
    ("evidence", "power"),
    [
        (run(AZ, n=100, separation=0.1), 24 * 2 + 12 * math.log10(2) + 8),
        (run(dataclasses.replace(AZ, outputs=10), n=100, separation=0.1), 1 + 24 * 2 + 12 * math.log10(2) + 8),
        (run(DU, n=100, last_hidden_limit=0.01), 2 * math.log10(2) + 16),
        (run(dataclasses.replace(DU, family="resnet"), n=100, last_hidden_limit=0.01), 16 - 6 * math.log10(2)),
        (run(DU, n=100, last_hidden_limit=0.0), math.inf),
        (run(AZ, separation=0.0), math.inf),
    ],
)
def test_required_widths_are_the_theorems(evidence, power):
    """THEORY section 4, C6, and 3.7: k n^24 L^12 / delta^8; 2^H n^4/lambda^4; n^4/(lambda^4 H^6)."""
    from zeroloss.claims.regime import regime, required_width

    assert required_width(evidence) == pytest.approx(power)
    assert regime(evidence).startswith("outside the proven regime")
